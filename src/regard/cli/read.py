"""`regard read`: what a translation or an answer looked at."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import ArgumentCollection, Group, Parameter
from rich.console import Console

from regard.cli.bulk import NO_JOB, Files, Jobs, check_no_job, run
from regard.cli.options import (
    NO_LANGUAGES,
    USUAL,
    Count,
    Device,
    Dtype,
    HyphenOrText,
    Languages,
    ReadingFlags,
    messages_of_file,
    text_of_file,
    text_or_standard_input,
    with_system,
)
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.reading.reading import Reading


def _one_of_them(arguments: ArgumentCollection) -> None:
    texts = [argument for argument in arguments if argument.name not in MEDIA]
    given = [argument.name for argument in texts if argument.has_tokens]
    has_media = any(argument.has_tokens for argument in arguments if argument.name in MEDIA)
    if len(given) > 1 or not (given or has_media):
        told = f", not {' and '.join(given)}" if given else ""
        *others, last = (argument.name for argument in texts)
        alone = (
            "" if given else f", or {' or '.join(argument.name for argument in arguments if argument.name in MEDIA)}"
        )
        raise ValueError(f"give one of {', '.join(others)} and {last}{alone}{told}")


MEDIA = ("--image", "--audio")
INPUT = Group("Input", help="One of these; images or a sound also by themselves.", validator=_one_of_them)
Text = Annotated[HyphenOrText | None, Parameter(group=INPUT)]
File = Annotated[Path | None, Parameter(group=INPUT, allow_leading_hyphen=True)]


def read(
    model: str,
    files: Annotated[Files, Parameter(group=INPUT)] = (),
    /,
    *,
    prompt: Text = None,
    prompt_file: File = None,
    messages: File = None,
    text: Text = None,
    text_file: File = None,
    source: Text = None,
    image: Annotated[tuple[str, ...], Parameter(group=INPUT, consume_multiple=False)] = (),
    audio: Annotated[tuple[str, ...], Parameter(group=INPUT, consume_multiple=False)] = (),
    language: str | None = None,
    task: str | None = None,
    target: str | None = None,
    system: str | None = None,
    options: ReadingFlags = USUAL,
    token: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    out: Annotated[tuple[Path, ...], Parameter(consume_multiple=False)] = (),
    layer: int | None = None,
    head: int | None = None,
    num_beams: Count = 1,
    length_penalty: float = 1.0,
    json: bool = False,
    resume: bool = False,
    jobs: Jobs = NO_JOB,
    threads: Count | None = None,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Show what every written word looked at: in the source of a translation, in a prompt, in a text.

    Parameters
    ----------
    model
        A run folder, a Hugging Face folder, a name of its hub, a GGUF file, smollm2, gemma3-270m, whisper-tiny or
        whisper-base.
    files
        Bulk work: files, patterns or folders whose lines, or records, are read, into the folder --out.
    prompt
        A language model goes on from this; `-` is standard input.
    prompt_file
        A text file with the prompt.
    messages
        A JSON file with a conversation, which a language model answers: a list of {"role": …, "content": …}; `-` is
        standard input.
    text
        A text that is read as it stands; `-` is standard input.
    text_file
        A text file to be read as it stands.
    source
        The text to translate; `-` is standard input.
    image
        A picture that the model is given, before the prompt or in its places for pictures; may be given again.
    audio
        A sound that the model hears: a WAV file or, with soundfile installed, FLAC, OGG or MP3. A speech model writes
        it down first.
    language
        The language of the sound, such as en; by default the one that the model hears.
    task
        What a speech model does: transcribe or, into English, translate.
    target
        A translation to read instead of the model's own.
    system
        A system message before the prompt, which then is a user's message as with --chat.
    token
        Shows what one token of the answer looked at: its place, 0 for the first and -1 for the last, or its text.
    out
        Keeps the reading as .safetensors or .json, shows it in a page of its own, .html, or draws it as .png, .svg or
        .pdf; may be given again. Of bulk work a folder.
    layer
        The layer shown, -1 is the last; by default the last of a translation, of a language model the mean of all.
    head
        The head shown; by default the mean of all.
    num_beams
        Hypotheses kept at each step of a translator's own translation; 1 is greedy.
    length_penalty
        Beams are ranked by log-probability / length ** this.
    json
        The reading as one JSON document: sequences, tokens, checks, and the weights of every layer and head. In bulk
        work each row has it, beside its strongest parts and words.
    resume
        Go on with the shards that --out has.
    threads
        How many threads of a CPU compute in each worker of bulk work; by default 1.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load
    from regard.data.media import open_image
    from regard.language_model import LanguageModel
    from regard.view.picture_terminal import picture_view, unplaced_view
    from regard.view.pictures import has_pictures
    from regard.view.renderers import PICTURES, draw
    from regard.view.sources import with_sources
    from regard.view.speech import has_sound
    from regard.view.speech_terminal import speech_view
    from regard.view.statistics_table import statistics_tables

    if files:
        alone = {
            "--prompt": prompt,
            "--prompt-file": prompt_file,
            "--messages": messages,
            "--text": text,
            "--text-file": text_file,
            "--source": source,
            "--target": target,
            "--system": system,
            "--image": image,
            "--audio": audio,
            "--language": language,
            "--task": task,
            "--token": token,
        }
        if len(out) > 1:
            raise RegardError("bulk work goes into one folder; give one --out")
        beams = {"num_beams": num_beams, "length_penalty": length_penalty}
        changed = {name: value for name, value in beams.items() if value != 1}
        given = {name: value for name, value in vars(options).items() if value != getattr(USUAL, name)}
        run(
            *("read", model, files, out[0] if out else None, jobs),
            resume=resume,
            threads=threads,
            loading={"device": device, "dtype": dtype, **vars(languages)},
            options={**given, **changed, "layer": layer, "head": head, **({"whole": True} if json else {})},
            alone={name: bool(value) for name, value in alone.items()},
        )
        return
    check_no_job(jobs, resume=resume, threads=threads)
    _check_out(out, {"--prompt-file": prompt_file, "--messages": messages, "--text-file": text_file})
    if target is not None and source is None:
        raise RegardError("--target goes with --source")
    inputs = inputs_of(prompt, prompt_file, messages, text, text_file, source, system=system)
    if image:
        # what no picture can be made of is told before a model is loaded
        inputs["images"] = [open_image(each) for each in image]
    if audio:
        inputs["audio"] = list(audio)
    inputs |= {name: value for name, value in (("language", language), ("task", task)) if value is not None}
    opened = load(model, device=device, dtype=dtype, **vars(languages))
    beams = [
        name
        for name, is_given in (("--num-beams", num_beams > 1), ("--length-penalty", length_penalty != 1))
        if is_given
    ]
    if isinstance(opened, LanguageModel):
        _refuse(beams, f"{opened.name} is a language model, which is read on its likeliest tokens")
        if source is not None:
            raise RegardError(f"{opened.name} takes a prompt or a text, not a source")
        settings = vars(options)
        if audio and "--max-new-tokens" not in options.changed():
            # a transcript is as long as it is
            settings = {**settings, "max_new_tokens": None}
        reading = opened.read(**inputs, **settings)
    else:
        if useless := inputs.keys() & {"images", "audio", "language", "task"}:
            raise RegardError(f"{opened.name} is a translator, which takes no {sorted(useless)[0]}; give it a --source")
        if source is None:
            raise RegardError(f"{opened.name} is a translator; give it a --source")
        settings = {"num_beams": num_beams, "length_penalty": length_penalty}
        if not opened.is_pretrained:
            _refuse(options.changed(), f"{opened.name} is a run of Regard, which is read whole")
        else:
            _refuse(["--chat"] * options.chat, f"{opened.name} is a translator, which does not chat")
            new = {"max_new_tokens": options.max_new_tokens} if "--max-new-tokens" in options.changed() else {}
            settings |= options.reading | new
        reading = opened.read(source=inputs["source"], target=target, **settings)
    reading, rests = with_sources(reading)
    shown: dict[str, Any] = {"layer": layer, "head": head, "token": token, "segments": options.segments}
    # what cannot be shown is told before a file is written
    if has_pictures(reading):
        view = picture_view(reading, **shown)
    elif has_sound(reading):
        view = speech_view(reading, **shown)
    elif reading.media and not {"decoder", "encoder", "cross"} & set(reading.kinds):
        view = unplaced_view(reading)
    else:
        view = _translation(reading, **shown) if "cross" in reading.kinds else _answer(reading, **shown)
    view[1:1] = rests
    view += statistics_tables(reading)
    for path in out:
        if path.suffix in PICTURES:
            draw(reading, path, **shown)
        else:
            reading.save(path)
    if json:
        print(json_module.dumps({**reading.to_json(), **reading.settings.get("sources", {})}, ensure_ascii=False))
    else:
        Console().print(*view, sep="\n")


def _check_out(out: tuple[Path, ...], read: dict[str, Path | None]) -> None:
    from regard.files import same_file
    from regard.reading.files import FORMATS
    from regard.reading.views import RENDERERS
    from regard.view.figure import check_path
    from regard.view.renderers import PICTURES

    for path in out:
        if path.suffix not in FORMATS | RENDERERS:
            raise RegardError(f"--out {path}: a reading is saved as {', '.join(FORMATS | RENDERERS)}; rename it")
        for name, other in read.items():
            if other is not None and same_file(path, other):
                raise RegardError(f"{path} is --out and {name} at once; choose another --out")
        if path.suffix in PICTURES:
            check_path(path)


def _refuse(options: list[str], why: str) -> None:
    if options:
        raise RegardError(f"{why}; leave out {', '.join(options)}")


def inputs_of(
    prompt: str | None,
    prompt_file: Path | None,
    messages: Path | None,
    text: str | None = None,
    text_file: Path | None = None,
    source: str | None = None,
    *,
    system: str | None,
) -> dict[str, Any]:
    """The one that is given, read from where it stands, by the library's name; a system message makes messages of it.

    Raises RegardError for what cannot be read, and for a system message without a prompt.
    """
    if messages is not None:
        inputs: dict[str, Any] = {"messages": messages_of_file(messages)}
    elif source is not None:
        inputs = {"source": text_or_standard_input(source)}
    else:
        is_prompt = prompt is not None or prompt_file is not None
        name, given, file = ("prompt", prompt, prompt_file) if is_prompt else ("text", text, text_file)
        inputs = {name: text_of_file(file or "-") if file is not None or given == "-" else given}
        inputs = {name: value for name, value in inputs.items() if value is not None}
    if system is None:
        return inputs
    if inputs.get("prompt") is None:
        raise RegardError("--system goes with a prompt; in --messages it is a message of its own")
    return {"messages": with_system(system, inputs["prompt"])}


def _translation(
    reading: "Reading", *, layer: int | None, head: int | None, token: str | None, segments: str
) -> list[Any]:
    from rich.text import Text as Line

    from regard.view.proof import proof
    from regard.view.terminal import alignment_grid, strongest

    if token is not None:
        raise RegardError("--token picks a token of a language model's answer; a translation is shown whole")
    width = Console().width
    alignment = reading.alignment(layer=-1 if layer is None else layer, head=head)
    sources, targets = reading.sequences["source"].words, reading.sequences["target"].words
    grid = alignment_grid(alignment, sources, targets, width=width)
    lines = strongest(alignment, sources, targets, width=width)
    return [Line(reading.sequences["target"].text), "", grid, "", lines, "", Line(proof(reading), style="dim")]


def _answer(reading: "Reading", **shown: Any) -> list[Any]:
    from regard.view.answer import answer_view

    return answer_view(reading, **shown)
