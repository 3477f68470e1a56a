"""`regard sources`: which passages of its prompt an answer rests on."""

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from regard.cli.bulk import NO_JOB, Files, Jobs, check_no_job, run
from regard.cli.options import NO_LANGUAGES, Count, Device, Dtype, HyphenOrText, Languages, text_or_standard_input
from regard.cli.read import INPUT, File, Text, inputs_of
from regard.errors import RegardError


def sources(
    model: str,
    files: Annotated[Files, Parameter(group=INPUT)] = (),
    /,
    *,
    prompt: Text = None,
    prompt_file: File = None,
    source: Text = None,
    target: HyphenOrText | None = None,
    messages: File = None,
    image: Annotated[tuple[str, ...], Parameter(group=INPUT, consume_multiple=False)] = (),
    audio: Annotated[tuple[str, ...], Parameter(group=INPUT, consume_multiple=False)] = (),
    language: str | None = None,
    task: str | None = None,
    system: str | None = None,
    chat: bool = False,
    answer: HyphenOrText | None = None,
    contrast: HyphenOrText | None = None,
    grain: str = "sentences",
    question: str | None = None,
    within: str | None = None,
    of: str | None = None,
    confirm: Count = 3,
    max_new_tokens: Count | None = None,
    curves: Path | None = None,
    json: bool = False,
    out: Path | None = None,
    resume: bool = False,
    jobs: Jobs = NO_JOB,
    threads: Count | None = None,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Show which passages of a prompt its answer rests on; the strongest are removed to see what that does.

    Parameters
    ----------
    model
        A Hugging Face folder, a name of its hub, a GGUF file, a run, smollm2 or gemma3-270m.
    files
        Bulk work: files, patterns or folders whose lines, or records, are worked on, into the folder --out.
    prompt
        The page and the question; `-` is standard input.
    prompt_file
        A text file with them.
    source
        A text to translate, for a translator; `-` is standard input.
    target
        Its translation, judged in place of the model's own; `-` is standard input.
    messages
        A JSON file with a conversation to answer: a list of {"role": …, "content": …}; `-` is standard input.
    image
        A picture that the prompt is about: the regions of it that the answer rests on are sought; may be given again.
    audio
        A sound that the prompt is about, or that a speech model writes down: the spans of it that the answer rests on
        are sought.
    language
        The language of the sound, such as en; by default the one that the model hears.
    task
        What a speech model does: transcribe or, into English, translate.
    system
        A system message before the prompt, which then is a user's message as with --chat.
    chat
        The prompt is a user's message, put into the model's chat template.
    answer
        An answer written elsewhere, judged in place of the model's own; `-` is standard input.
    contrast
        Another answer: why the one, and not this?
    grain
        How the prompt is split: sentences, paragraphs, turns, documents or words.
    question
        The part of the prompt that asks, which is no passage; by default what ends in a question mark.
    within
        The part of the prompt in which passages are sought: a paragraph, to see which of its sentences counts.
    of
        The part of the answer that is judged.
    confirm
        How many passages, the strongest by estimate, are removed; more while the answer rests on each.
    max_new_tokens
        Writing stops after so many tokens; by default 64, and a speech model writes a sound down to its end.
    curves
        A picture (.png, .svg, .pdf) of the answer's log-probability as the strongest passages are removed, and as they
        alone are kept, beside random orders; it takes many runs.
    json
        One JSON document: answer, verdict, and every passage with its estimate and effect.
    out
        A folder for bulk work, whose rows are such documents.
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
    from regard.api import sources as find
    from regard.data.media import open_image
    from regard.files import same_file
    from regard.language_model import LanguageModel
    from regard.reading.media_sources import MediaSources
    from regard.view.figure import check_path
    from regard.view.progress import counting
    from regard.view.sources import SEEKING, sources_view

    if files:
        alone = {
            "--prompt": prompt,
            "--prompt-file": prompt_file,
            "--source": source,
            "--target": target,
            "--messages": messages,
            "--image": image,
            "--system": system,
            "--answer": answer,
            "--curves": curves,
            "--contrast": contrast,
            "--json": json,
        }
        given = {"grain": grain, "question": question, "within": within, "of": of, "confirm": confirm}
        given |= {"chat": chat or None, "max_new_tokens": max_new_tokens}
        run(
            *("sources", model, files, out, jobs),
            resume=resume,
            threads=threads,
            loading={"device": device, "dtype": dtype, **vars(languages)},
            options=given,
            alone={name: bool(value) for name, value in alone.items()},
        )
        return
    check_no_job(jobs, resume=resume, threads=threads)
    if out is not None:
        raise RegardError("--out DIR is for bulk work; name the FILES whose lines are worked on")
    inputs = inputs_of(prompt, prompt_file, messages, source=source, system=system)
    check_path(curves)
    for name, path in (("--prompt-file", prompt_file), ("--messages", messages)):
        if curves is not None and path is not None and same_file(curves, path):
            raise RegardError(f"{curves} is --curves and {name} at once; choose another --curves")
    options = {
        "contrast": contrast,
        "grain": grain,
        "question": question,
        "within": within,
        "of": of,
        "confirm": confirm,
    }
    if source is not None:
        inputs |= {"target": None if target is None else text_or_standard_input(target)}
        alone = {"--answer": answer is not None, "--chat": chat}
        if wrong := [name for name, is_given in alone.items() if is_given]:
            raise RegardError(f"{' and '.join(wrong)} go with a prompt; a --source goes with a --target")
    else:
        if target is not None:
            raise RegardError("--target goes with --source; with a prompt give --answer")
        answer = None if answer is None else text_or_standard_input(answer)
        inputs |= {"chat": chat and "messages" not in inputs, "answer": answer, "max_new_tokens": max_new_tokens}
    if image:
        # what no picture can be made of is told before a model is loaded
        inputs["images"] = [open_image(each) for each in image]
    if audio:
        inputs["audio"] = list(audio)
    inputs |= {name: value for name, value in (("language", language), ("task", task)) if value is not None}
    if curves is not None and (image or audio):
        raise RegardError("--curves are of passages of a text, not of an image or a sound")
    opened = load(model, device=device, dtype=dtype, **vars(languages))
    useless = inputs.keys() & {"images", "audio", "language", "task"}
    if useless and not isinstance(opened, LanguageModel):
        raise RegardError(f"{opened.name} is a translator, which takes no {min(useless)}; give it a --source")
    with counting(SEEKING, None if source is not None else confirm + 1) as progress:
        found = find(opened, **inputs, **options, progress=progress)
    if curves is not None and not isinstance(found, MediaSources):
        with counting("curves", None) as progress:
            found.curves(progress=progress).plot(curves)
    if json:
        print(json_module.dumps(found.to_json(), ensure_ascii=False))
    else:
        Console().print(found.answer, sources_view(found), sep="\n", markup=False, highlight=False)
