"""`regard evaluate`: quality overall and by source length."""

import json as json_module
from pathlib import Path

from rich.console import Console

from regard.cli.options import GREEDY, Count, DecodingOptions, Device, Dtype, Split


def evaluate(
    run: Path,
    /,
    *,
    split: Split = "test",
    decoding: DecodingOptions = GREEDY,
    batch_size: Count = 64,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure a run on its own corpus: BLEU, chrF, exact match and perplexity, overall and by source length.

    Where the corpus has gold links between words, the alignment error rate of attention too, of each head and of the
    one that aligns dev best.

    Parameters
    ----------
    run
        A run folder.
    split
        train, dev or test.
    batch_size
        Sentences translated at a time; it does not change the result.
    json
        One JSON document.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_run
    from regard.view.alignment_error import error_rate_grid, error_rate_line
    from regard.view.progress import counting
    from regard.view.terminal import quality_line, quality_table

    translator = load_run(run, device=device, dtype=dtype)
    with counting(translator.name, None) as progress:
        quality = translator.evaluate(split, decoding, batch_size=batch_size, progress=progress)
    attribution = translator.run.facts.get("attribution")
    if json:
        facts = {"run": translator.name, "split": split, "attribution": attribution}
        print(json_module.dumps({**facts, **quality.to_json()}, indent=2))
        return
    console, document = Console(), quality.to_json()
    curves = {translator.name: document["by_length"]}
    console.print(quality_table(curves, length_unit=quality.length_unit, width=console.width))
    console.print(quality_line(document))
    if quality.aer is not None:
        console.print()
        console.print(error_rate_line(document))
        if len(document["aer_by_head"]) > 1:
            console.print()
            console.print(error_rate_grid(document))
    if attribution:
        console.print()
        console.print(attribution, markup=False, highlight=False, style="dim")
