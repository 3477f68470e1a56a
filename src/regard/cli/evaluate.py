"""`regard evaluate`: quality overall and by source length."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from regard.cli.options import GREEDY, Count, DecodingOptions, Device, Dtype, Split
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.training.run import Run

BATCH_SIZE = 64


def evaluate(
    run: Path,
    /,
    *,
    split: Split = "test",
    decoding: DecodingOptions = GREEDY,
    batch_size: Count = BATCH_SIZE,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure a run on its own corpus: BLEU, chrF, exact match and perplexity, overall and by source length.

    Of a language model: the bits that it needs for each byte of the text, which compare whatever its tokens are.
    Where the corpus has gold links between words, the alignment error rate of attention too, of each head and of the
    one that aligns dev best.

    Parameters
    ----------
    run
        A run folder.
    split
        train, dev or test.
    batch_size
        Sentences translated at a time. In float32 it does not change the result; the coarser rounding of bfloat16 turns
        some translations into others.
    json
        One JSON document.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_run
    from regard.training.run import Run
    from regard.view.alignment_error import error_rate_grid, error_rate_line
    from regard.view.progress import counting
    from regard.view.terminal import quality_line, quality_table

    opened = Run.open(run)
    if not opened.recipe.translates:
        if decoding != GREEDY:
            raise RegardError(f"{run} is a language model, measured on text as it is; leave out options of decoding")
        if batch_size != BATCH_SIZE or dtype != "float32":
            raise RegardError(f"{run} is a language model, measured in float32; leave out --batch-size and --dtype")
        _evaluate_text(opened, split, json=json, device=device)
        return
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


def _evaluate_text(run: "Run", split: str, *, json: bool, device: str) -> None:
    from regard.api import evaluate as measure

    quality = measure(run.path, split, device=device).to_json()
    attribution = run.facts.get("attribution")
    if json:
        print(
            json_module.dumps({"run": run.path.name, "split": split, "attribution": attribution, **quality}, indent=2)
        )
        return
    console = Console(highlight=False, markup=False)
    console.print(
        f"{run.path.name} on {split}: {quality['bits_per_byte']:.3f} bits per byte, perplexity "
        f"{quality['perplexity']:.2f} per token; {quality['documents']:,} documents, {quality['bytes']:,} bytes, "
        f"{quality['tokens']:,} tokens" + (f", {quality['unknown']:,} unknown characters" if quality["unknown"] else "")
    )
    if attribution:
        console.print(attribution, style="dim")
