"""`regard export`: a trained model for another tool."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from regard.cli.options import NO_LANGUAGES, Languages
from regard.errors import RegardError


def export(
    model: str,
    folder: Path,
    /,
    *,
    to: Literal["ctranslate2", "hf"],
    sample: Path | None = None,
    apart: bool = False,
    languages: Languages = NO_LANGUAGES,
) -> None:
    """Write a model for another tool, which must then translate, or predict the next token, as Regard does.

    Greedy translations of a sample are compared; below 99 % agreement nothing is written. For a language model the
    logits are compared.

    Parameters
    ----------
    model
        A run folder, a Hugging Face folder, a name of its hub, a GGUF file, smollm2 or gemma3-270m.
    folder
        What is written, a folder that is empty or does not exist yet: the model, its tokenizer, and a README.md that
        tells how to use them.
    to
        ctranslate2: translators, runs of Transformers or pretrained ones. hf: language models and pretrained
        translators, for transformers.
    sample
        A text file whose lines are translated as a check; by default the first 200 sentences of the run's dev split,
        which a pretrained translator has not.
    apart
        Of a run with LoRA: its adapter alone, for peft, without the model that it adapts. By default they are merged.
    """
    from regard.api import load
    from regard.data.formats import read_lines
    from regard.language_model import LanguageModel

    if apart:
        from regard.export.adapter import export_adapter

        if to != "hf" or sample is not None:
            raise RegardError("--apart is of adapters: it goes with --to hf, without --sample")
        export_adapter(Path(model), folder)
        Console(stderr=True).print(
            f"{model}: peft gives the same logits", highlight=False, markup=False, soft_wrap=True
        )
        print(folder)
        return
    opened = load(model, device="cpu", **vars(languages))
    if isinstance(opened, LanguageModel):
        if sample is not None:
            raise RegardError("--sample is of translations; a language model is checked by its logits")
        opened.export(to, folder)
        told = "the same logits"
    else:
        texts = None if sample is None else list(read_lines(sample))
        agreement = opened.export(to, folder, sample=texts)
        told = f"the same greedy translation of {agreement.same} in {agreement.sentences} sentences"
    Console(stderr=True).print(f"{opened.name}: {to} gives {told}", highlight=False, markup=False, soft_wrap=True)
    print(folder)
