"""`regard evaluate`: quality overall and by source length."""

import json as json_module
from pathlib import Path

from rich.console import Console

from regard.cli.options import Count, Device, Dtype, Split


def evaluate(
    run: Path,
    /,
    *,
    split: Split = "test",
    num_beams: Count = 1,
    length_penalty: float = 1.0,
    batch_size: Count = 64,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure a run on its own corpus: BLEU, chrF, exact match and perplexity, overall and by source length.

    Parameters
    ----------
    run
        A run folder.
    split
        train, dev or test.
    num_beams
        Hypotheses kept at each step; 1 is greedy.
    length_penalty
        Beams are ranked by log-probability / length ** this.
    batch_size
        Sentences translated at a time; it does not change the result.
    json
        One JSON document.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load
    from regard.view.progress import counting
    from regard.view.terminal import quality_line, quality_table

    translator = load(run, device=device, dtype=dtype)
    with counting(translator.name, None) as progress:
        quality = translator.evaluate(
            split, num_beams=num_beams, length_penalty=length_penalty, batch_size=batch_size, progress=progress
        )
    if json:
        print(json_module.dumps({"run": translator.name, "split": split, **quality.to_json()}, indent=2))
        return
    console = Console()
    curves = {translator.name: quality.to_json()["by_length"]}
    console.print(quality_table(curves, length_unit=quality.length_unit, width=console.width))
    console.print(quality_line(quality.to_json()))
