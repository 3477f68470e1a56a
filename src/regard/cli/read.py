"""`regard read`: what a translation looked at."""

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from regard.cli.options import Count, Device, Dtype, HyphenOrText, text_or_standard_input
from regard.errors import RegardError


def read(
    run: Path,
    /,
    *,
    source: HyphenOrText,
    target: str | None = None,
    out: Annotated[tuple[Path, ...], Parameter(consume_multiple=False)] = (),
    layer: int = -1,
    head: int | None = None,
    num_beams: Count = 1,
    length_penalty: float = 1.0,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Show which source words every written word looked at.

    Parameters
    ----------
    run
        A run folder.
    source
        The text to translate; `-` is standard input.
    target
        A translation to read instead of the model's own.
    out
        Keeps the reading as .safetensors or .json, or draws it as .png, .svg or .pdf; may be given again.
    layer
        The cross layer shown; -1 is the last.
    head
        The head shown; by default the mean of all.
    num_beams
        Hypotheses kept at each step of the model's own translation; 1 is greedy.
    length_penalty
        Beams are ranked by log-probability / length ** this.
    json
        The reading as one JSON document: sequences, tokens, checks, and the weights of every layer and head.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_run
    from regard.reading.reading import FORMATS, RENDERERS
    from regard.view.figure import check_path
    from regard.view.renderers import draw
    from regard.view.terminal import alignment_grid, strongest

    for path in out:
        if path.suffix not in FORMATS | RENDERERS:
            raise RegardError(f"--out {path}: a reading is saved as {', '.join(FORMATS | RENDERERS)}; rename it")
        if path.suffix in RENDERERS:
            check_path(path)
    translator = load_run(run, device=device, dtype=dtype)
    text = text_or_standard_input(source)
    reading = translator.read(text, target, num_beams=num_beams, length_penalty=length_penalty)
    alignment = reading.alignment(layer=layer, head=head)
    for path in out:
        if path.suffix in RENDERERS:
            draw(reading, path, layer=layer, head=head)
        else:
            reading.save(path)
    if json:
        print(json_module.dumps(reading.to_json(), ensure_ascii=False))
        return
    console = Console()
    sources, targets = reading.sequences["source"].words, reading.sequences["target"].words
    console.print(reading.sequences["target"].text, markup=False, highlight=False)
    console.print()
    console.print(alignment_grid(alignment, sources, targets, width=console.width))
    console.print()
    console.print(strongest(alignment, sources, targets, width=console.width))
    console.print()
    console.print(_proof(reading), markup=False, highlight=False, style="dim")


def _proof(reading) -> str:
    errors = [max(check.row_sum_error, check.context_error) for check in reading.checks.values()]
    rows = sum(check.rows for check in reading.checks.values())
    where = ", ".join(f"{len(reading.layers(kind))} {kind}" for kind in reading.kinds)
    told = f"read: {where} layers; checked: {rows} rows sum to 1 and give the model's own context, off by at most "
    refused = "".join(f"; refused {kind} {layer}: {why}" for (kind, layer), why in reading.refused.items())
    return f"{told}{max(errors):.0e}{refused}"
