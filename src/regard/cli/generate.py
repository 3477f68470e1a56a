"""`regard generate`: a language model goes on with a text."""

import json as json_module
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CycloptsError, Group, Parameter
from cyclopts.validators import mutually_exclusive

from regard.cli.bulk import NO_JOB, Files, Jobs, check_no_job, run
from regard.cli.options import Count, Device, messages_of_file, text_of_file, with_system
from regard.config import shown
from regard.errors import RegardError
from regard.generation.writing import Writing

if TYPE_CHECKING:
    from regard.generation.result import Generation

logger = logging.getLogger("regard")
# an option for each field
WritingOptions = Annotated[Writing, Parameter(name="*")]
GREEDY = Writing()
# they are drawn together, and kept until all are written
MOST_SAMPLES = 10_000
INPUT = Group("Input", help="One of these.", validator=mutually_exclusive)


def generate(
    model: str,
    prompt: Annotated[Files, Parameter(group=INPUT)] = (),
    /,
    *,
    messages: Annotated[Path | None, Parameter(group=INPUT, allow_leading_hyphen=True)] = None,
    system: str | None = None,
    image: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    audio: Annotated[str | None, Parameter(group=INPUT)] = None,
    language: str | None = None,
    task: str | None = None,
    chat: bool = False,
    options: WritingOptions = GREEDY,
    num_samples: Annotated[int, Parameter(alias="-n")] = 1,
    json: bool = False,
    attention: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    jobs: Jobs = NO_JOB,
    library: Literal["regard", "transformers"] | None = None,
    device: Device = "auto",
    dtype: Literal["float32", "bfloat16", "float64", "int8", "int4"] = "float32",
    threads: Count | None = None,
    compile: bool = False,
) -> None:
    """Go on with a text, or answer a message, shown as it is written.

    Parameters
    ----------
    model
        A Hugging Face folder, a name of its hub, a GGUF file, smollm2, gemma3-270m, whisper-tiny or whisper-base.
    prompt
        What to go on from; `-`, or nothing, is standard input. With --out, files whose lines are prompts.
    messages
        A JSON file with a conversation to answer: a list of {"role": …, "content": …}; `-` is standard input.
    system
        A system message before the prompt, which then is a user's message as with --chat.
    image
        A picture that the model is given, before the prompt or in its places for pictures; may be given again.
    audio
        A sound that a speech model, such as whisper-tiny, writes down: a WAV file or, with soundfile installed, FLAC,
        OGG or MP3.
    language
        The language of the sound, such as en; by default the one that the model hears.
    task
        What a speech model does: transcribe or, into English, translate.
    chat
        The prompt is a user's message, put into the model's chat template. A model without one is given a page, up to
        the last blank line, and `Question: … Answer:`, in Chinese for a Chinese question.
    num_samples
        How many texts are drawn; several are shown when all are written, with an empty line between two.
    json
        A JSON object for each text, on a line: prompt or messages, text, tokens, log_probability, finished.
    attention
        Keeps what every written token looked at, as .safetensors or .json, or shows it as .html, .png, .svg or .pdf.
    out
        A folder for bulk work: what is written after each line, or record, of the files that are named.
    resume
        Go on with the shards that --out has.
    library
        regard or transformers runs the model; by default regard where it can.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64; int8 and int4 round the weights, which is faster.
    threads
        How many threads of a CPU compute; by default as many as a short probe finds fastest, in bulk work 1.
    compile
        Writes by machine code made for the model's sizes, which on a CPU is up to twice as fast. The first time it is
        compiled, which takes about a minute and a C++ compiler, and then kept.
    """
    from regard.api import load
    from regard.data.media import open_image
    from regard.kernels.threads import check_threads
    from regard.kernels.threads import threads as compute_on
    from regard.language_model import LanguageModel

    # what makes no sense is told before a model is loaded
    Writing.of(vars(options))
    if num_samples < 1:
        raise RegardError(f"--num-samples must be at least 1, not {num_samples}")
    if num_samples > MOST_SAMPLES:
        raise RegardError(f"--num-samples must be at most {MOST_SAMPLES:,}, not {shown(num_samples)}")
    if threads is not None:
        check_threads(threads)
    if attention is not None:
        _check_attention(attention, num_samples)
    if out is not None:
        alone = {"--messages": messages, "--image": image, "--audio": audio, "--json": json, "--attention": attention}
        given = {name: value for name, value in vars(options).items() if value != getattr(GREEDY, name)}
        given |= {"n": num_samples, "chat": chat, "system": system, "compile": compile}
        loading = {"library": library, "device": device, "dtype": dtype}
        how = {"resume": resume, "threads": threads, "alone": {name: bool(value) for name, value in alone.items()}}
        run("generate", model, prompt, out, jobs, loading=loading, options=given, **how)
        return
    check_no_job(jobs, resume=resume)
    if len(prompt) > 1:
        raise CycloptsError(msg="several prompts are bulk work: put them into a file, a line each, and add --out DIR")
    if audio is not None:
        _check_speech(
            options, num_samples, {"--chat": chat, "--system": system, "--image": image, "--compile": compile}
        )
        inputs: dict[str, Any] = {"audio": audio}
    elif language is not None or task is not None:
        raise RegardError("--language and --task go with --audio")
    else:
        inputs = _inputs(prompt[0] if prompt else None, messages, system)
    pictures = [open_image(each) for each in image] or None
    opened = load(model, library=library, device=device, dtype=dtype)
    if not isinstance(opened, LanguageModel):
        raise RegardError(f"{opened.name} is a translator; `regard translate {model}` runs it")
    if audio is not None:
        speech: dict[str, Any] = {"language": language, "task": task}
        if options.max_new_tokens != GREEDY.max_new_tokens:
            speech["max_new_tokens"] = options.max_new_tokens
        transcript = opened.transcribe(audio, **speech)
        _say((json_module.dumps(_document(inputs, transcript), ensure_ascii=False) if json else transcript.text) + "\n")
        if attention is not None:
            opened.read(audio=audio, **speech).save(attention)
        return
    if compile:
        opened.compile()
    text, chats = inputs.get("prompt"), {"chat": chat, "messages": inputs.get("messages"), "images": pictures}
    settings: dict[str, Any] = {"read": attention is not None, **chats, **vars(options)}
    with compute_on(threads or opened.fastest_threads()):
        if num_samples == 1 and not json:
            written = [_streamed(opened.generate, text, settings)]
        else:
            found = opened.generate(text, n=num_samples, **settings)
            written = found if num_samples > 1 else [found]
            for number, each in enumerate(written):
                if json:
                    _say(json_module.dumps(_document(inputs, each), ensure_ascii=False) + "\n")
                else:
                    _say("\n" * (number > 0) + each.text + "\n")
    if attention is not None:
        opened.read_written(text, written[0], **chats).save(attention)


def _inputs(prompt: str | None, messages: Path | None, system: str | None) -> dict[str, Any]:
    if messages is not None:
        if system is not None:
            raise RegardError("--system goes with a prompt; in --messages it is a message of its own")
        return {"messages": messages_of_file(messages)}
    text = text_of_file("-") if prompt in (None, "-") else prompt
    return {"prompt": text} if system is None else {"messages": with_system(system, text)}


def _check_speech(options: Writing, num_samples: int, others: dict[str, Any]) -> None:
    """Raises RegardError for options that a transcript has no use for: it is the likeliest one."""
    changed = [name for name, value in vars(options).items() if value != getattr(GREEDY, name)]
    useless = [f"--{name.replace('_', '-')}" for name in changed if name != "max_new_tokens"]
    useless += ["--num-samples"] * (num_samples > 1) + [name for name, value in others.items() if value]
    if useless:
        raise RegardError(f"a sound is written down by its likeliest tokens; leave out {', '.join(useless)}")


def _streamed(generate: Any, text: str | None, settings: dict[str, Any]) -> "Generation":
    started = False

    def say(piece: str) -> None:
        nonlocal started
        started = True
        _say(piece)

    def end_line(*_: object) -> bool:
        nonlocal started
        if started:
            _say("\n")
        started = False
        return True

    # what the log says once the text has ended begins a line of its own
    logger.addFilter(end_line)
    try:
        return generate(text, stream=say, **settings)
    finally:
        logger.removeFilter(end_line)
        # of what was interrupted too
        end_line()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _document(inputs: dict[str, Any], written: "Generation") -> dict[str, Any]:
    return {
        **inputs,
        "text": written.text,
        "tokens": written.tokens,
        "log_probability": written.log_probability,
        "finished": written.finished,
    }


def _check_attention(path: Path, num_samples: int) -> None:
    from regard.reading.files import FORMATS
    from regard.reading.views import RENDERERS
    from regard.view.figure import check_path
    from regard.view.renderers import PICTURES

    if num_samples > 1:
        raise RegardError("--attention keeps the reading of one text; leave out --num-samples")
    if path.suffix not in FORMATS | RENDERERS:
        raise RegardError(f"--attention {path}: a reading is saved as {', '.join(FORMATS | RENDERERS)}; rename it")
    if path.suffix in PICTURES:
        check_path(path)
