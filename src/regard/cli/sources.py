"""`regard sources`: which passages of its prompt an answer rests on."""

import json as json_module

from rich.console import Console

from regard.cli.options import Count, Device, Dtype, HyphenOrText, text_or_standard_input
from regard.cli.read import File, Text, inputs_of
from regard.errors import RegardError


def sources(
    model: str,
    /,
    *,
    prompt: Text = None,
    prompt_file: File = None,
    messages: File = None,
    system: str | None = None,
    chat: bool = False,
    answer: HyphenOrText | None = None,
    contrast: HyphenOrText | None = None,
    grain: str = "sentences",
    question: str | None = None,
    of: str | None = None,
    confirm: Count = 3,
    max_new_tokens: Count = 64,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Show which passages of a prompt its answer rests on; the strongest are removed to see what that does.

    Parameters
    ----------
    model
        A Hugging Face folder, a name of its hub, a GGUF file, a run of a language model, smollm2 or gemma3-270m.
    prompt
        The page and the question; `-` is standard input.
    prompt_file
        A text file with them.
    messages
        A JSON file with a conversation to answer: a list of {"role": …, "content": …}; `-` is standard input.
    system
        A system message before the prompt, which then is a user's message as with --chat.
    chat
        The prompt is a user's message, put into the model's chat template.
    answer
        An answer written elsewhere, judged in place of the model's own; `-` is standard input.
    contrast
        Another answer: why the one, and not this?
    grain
        How the prompt is split: sentences, paragraphs, turns or documents.
    question
        The part of the prompt that asks, which is no passage; by default what ends in a question mark.
    of
        The part of the answer that is judged.
    confirm
        How many passages, the strongest by estimate, are removed; more while the answer rests on each.
    max_new_tokens
        Writing stops after so many tokens.
    json
        One JSON document: answer, verdict, and every passage with its estimate and effect.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load
    from regard.language_model import LanguageModel
    from regard.view.progress import counting
    from regard.view.sources import SEEKING, SourcesView

    inputs = inputs_of(prompt, prompt_file, messages, system=system)
    answer = None if answer is None else text_or_standard_input(answer)
    opened = load(model, device=device, dtype=dtype)
    if not isinstance(opened, LanguageModel):
        raise RegardError(f"{opened.name} is a translator; sources need a language model")
    with counting(SEEKING, confirm + 1) as progress:
        found = opened.sources(
            **inputs,
            chat=chat and "messages" not in inputs,
            answer=answer,
            contrast=contrast,
            grain=grain,
            question=question,
            of=of,
            confirm=confirm,
            max_new_tokens=max_new_tokens,
            progress=progress,
        )
    if json:
        print(json_module.dumps(found.to_json(), ensure_ascii=False))
    else:
        Console().print(found.answer, SourcesView(found), sep="\n", markup=False, highlight=False)
