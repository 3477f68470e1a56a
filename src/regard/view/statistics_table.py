"""The statistics of a reading in the terminal: for each the mean of all heads, and the heads with least and most."""

from collections.abc import Iterator

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from regard.reading.compute.statistics import STATISTICS
from regard.reading.reading import Reading
from regard.view.heads import by_head, label
from regard.view.words import percent, printable


def statistics_tables(reading: Reading) -> Iterator[Table]:
    """A table for each kind of which statistics were read that have a number for each head."""
    for kind in reading.kinds:
        layers = reading.layers(kind)
        read = {name for layer in layers for name in reading.statistics.get((kind, layer), {})}
        read |= {"concentration"} if "received" in read else set()
        rows = {name: numbers for name, numbers in by_head(reading, kind).items() if name in read}
        if not rows:
            continue
        table = Table(title=f"Statistics of {kind} heads", title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "mean", "least", "most"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, numbers in rows.items():
            values = np.concatenate(numbers)
            places = [
                f"layer {layer}, head {head}"
                for layer, row in zip(layers, numbers, strict=True)
                for head in range(len(row))
            ]
            known = np.flatnonzero(np.isfinite(values))
            told = [_number(name, float(values[known].mean()))] if len(known) else ["–"] * 3
            for place in (known[values[known].argmin()], known[values[known].argmax()]) if len(known) else ():
                told.append(f"{_number(name, float(values[place]))}  ({places[place]})")
            # Text, because a plain string could hold markup
            table.add_row(*(Text(printable(cell)) for cell in (label(name), *told)))
        yield table


def _number(name: str, value: float) -> str:
    is_share = name == "concentration" or STATISTICS[name].unit == "share"
    return percent(value) if is_share else f"{value:.3g}"
