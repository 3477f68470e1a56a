"""`regard export`: a trained model for another tool."""

from pathlib import Path
from typing import Literal

from rich.console import Console


def export(
    run: Path,
    folder: Path,
    /,
    *,
    to: Literal["ctranslate2"],
    sample: Path | None = None,
) -> None:
    """Write a trained model for another tool, which must then translate as Regard does.

    Both translate the sample greedily; were fewer than 99 % of the translations the same, nothing would be left.

    Parameters
    ----------
    run
        A run folder.
    folder
        What is written, which must not exist yet: the model, its tokenizer, and a README.md that tells how to use them.
    to
        ctranslate2: for Transformers.
    sample
        A text file whose lines are translated as a check; by default the first 200 sentences of the run's dev split.
    """
    from regard.api import load_run
    from regard.data.formats import read_lines

    translator = load_run(run, device="cpu")
    texts = None if sample is None else list(read_lines(sample))
    agreement = translator.export(to, folder, sample=texts)
    told = f"the same greedy translation of {agreement.same} in {agreement.sentences} sentences"
    Console(stderr=True).print(f"{translator.name}: {to} gives {told}", highlight=False, markup=False, soft_wrap=True)
    print(folder)
