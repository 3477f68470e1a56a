"""Alignments and quality as text, for a terminal of any colour or of none."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from regard.view.length_bins import METRICS, Curves, Metric, all_bins, counts, label, metric_called
from regard.view.words import check_alignment, graphemes, printable, shorten

# the least weight of each shade; what is lighter stays blank
SHADES = ((0.05, "·"), (0.15, "░"), (0.35, "▒"), (0.6, "▓"), (0.85, "█"))
SHADE_STYLE, STRONGEST_STYLE, QUIET_STYLE = "blue", "bold magenta", "dim"
CELL = 2
# a faint line down every fifth column leads the eye to its word
GUIDE, GUIDE_EVERY = "┊", 5
HEADING_ROWS = 10
EIGHTHS = ("", *"▏▎▍▌▋▊▉")
BAR_WIDTH, VALUE_WIDTH = 4, 18
# in place of a figure that there is not
UNDEFINED = "–"
# one column of padding, one of the box between two columns
GAP = 2
LONGEST_NAME = 19
# weights of which a target word's list is made
NOTABLE, MOST_NOTABLE = 0.1, 3


def alignment_grid(
    weights: Float[np.ndarray, "target source"],
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    width: int = 80,
) -> Group:
    """Source words along the top, target words down the left, cells shaded by weight.

    A source too long for `width` terminal columns goes on in a panel below. Where there is colour,
    the largest weight of each target stands out. Raises RegardError for weights that do not fit
    the words.
    """
    weights = check_alignment(weights, sources, targets)
    names = [printable(word) for word in targets]
    side = min(max(map(cell_len, names)), max(width // 4, 4))
    names = [shorten(name, side) for name in names]
    most = max((width - side - 1) // CELL, 1)
    num_panels = -(-len(sources) // most)
    # panels of even width read better than a last one with a single column
    per_panel = -(-len(sources) // num_panels)
    lines = []
    for start in range(0, len(sources), per_panel):
        chosen = range(start, min(start + per_panel, len(sources)))
        if num_panels > 1:
            lines.append(Text(f"source words {chosen.start + 1} to {chosen.stop} of {len(sources)}", QUIET_STYLE))
        lines += _heading([printable(sources[index]) for index in chosen], side=side)
        for row, name in zip(weights, names, strict=True):
            lines.append(_row(row, chosen, name=name, side=side))
        lines.append(Text())
    return Group(*lines, _legend(width))


def strongest(
    weights: Float[np.ndarray, "target source"], sources: Sequence[str], targets: Sequence[str], *, width: int = 80
) -> Group:
    """For each target word the source words it looked at most, with their weights in percent.

    Raises RegardError for weights that do not fit the words.
    """
    weights = check_alignment(weights, sources, targets)
    names = [printable(word) for word in targets]
    side = min(max(map(cell_len, names)), max(width // 4, 4))
    lines = []
    for row, name in zip(weights, names, strict=True):
        line = Text(_right(shorten(name, side), side) + " ← ", no_wrap=True)
        order = np.argsort(-row, kind="stable")[:MOST_NOTABLE]
        # the first is told however small it is: an evenly spread row has no notable weight
        for rank, source in enumerate(map(int, order)):
            piece = f"{shorten(printable(sources[source]), max(width // 4, 4))} {row[source]:.0%}"
            separator = "   " if rank else ""
            fits = cell_len(line.plain) + cell_len(separator + piece) <= width
            if rank == 0 or (row[source] >= NOTABLE and fits):
                line.append(separator).append(piece, STRONGEST_STYLE if rank == 0 else SHADE_STYLE)
        lines.append(line)
    return Group(*lines)


def quality_table(
    curves: Curves,
    *,
    metrics: Sequence[str] = ("exact", "chrf", "bleu"),
    length_unit: str = "words",
    width: int = 80,
) -> Group:
    """Quality by source length, with sentence counts, 95 % intervals and bars.

    `curves` maps a model's name to its `by_length` list. One model makes one table with a column
    for each metric; several make a table for each metric with a column for each model.
    Raises RegardError for an unknown metric or for curves without any bin.
    """
    all_bins(curves)
    chosen = [metric_called(name) for name in metrics]
    names = {name: printable(name) for name in curves}
    tables = []
    if len(curves) == 1:
        ((name, parts),) = curves.items()
        columns = [(metric.name, metric, parts) for metric in chosen]
        tables += _tables(names[name], columns, curves, length_unit=length_unit, width=width)
    else:
        for metric in chosen:
            columns = [(shorten(names[name], LONGEST_NAME), metric, parts) for name, parts in curves.items()]
            tables += _tables(metric.name, columns, curves, length_unit=length_unit, width=width)
    note = "value, then its 95 % interval rounded outwards; every scale goes to 100"
    return Group(*tables, Text(note, QUIET_STYLE))


def quality_line(quality: dict) -> Text:
    """The whole test set in a few lines, from `Quality.to_json()`."""
    told = Text(f"all {quality['count']:,} sentences", "bold")
    for metric in METRICS.values():
        value, low, high = metric.interval(quality)
        if math.isnan(value):
            told.append(f"   {metric.name} {UNDEFINED}", "bold")
            continue
        told.append(f"   {metric.name} {value:.1f}", "bold").append(f" ({low:.1f}–{high:.1f})", "not bold")
    if quality["perplexity"] is not None:
        told.append(f"\nperplexity {quality['perplexity']:.3f} per target token", "not bold")
    return told.append("\n" + quality["signature"], f"not bold {QUIET_STYLE}")


def _heading(words: list[str], *, side: int) -> list[Text]:
    """The words written downwards, one letter a row, each ending just above its column."""
    columns = []
    for word in words:
        letters = graphemes(word)
        # the ellipsis runs the way the word does
        columns.append(letters if len(letters) <= HEADING_ROWS else [*letters[: HEADING_ROWS - 1], "⋮"])
    height = max(map(len, columns))
    padded = [[""] * (height - len(letters)) + letters for letters in columns]
    return [
        Text(" " * (side + 1) + "".join(_left(letter, CELL) for letter in row).rstrip(), no_wrap=True)
        for row in zip(*padded, strict=True)
    ]


def _row(row: Float[np.ndarray, " source"], chosen: range, *, name: str, side: int) -> Text:
    line = Text(_right(name, side) + " ", no_wrap=True)
    for index in chosen:
        shade = _shade(row[index])
        if shade:
            line.append(shade * CELL, STRONGEST_STYLE if index == row.argmax() else SHADE_STYLE)
        elif index % GUIDE_EVERY == GUIDE_EVERY - 1:
            line.append(_left(GUIDE, CELL), QUIET_STYLE)
        else:
            line.append(" " * CELL)
    return line


def _shade(weight: float) -> str:
    return next((shade for least, shade in reversed(SHADES) if weight >= least), "")


def _legend(width: int) -> Group:
    lines = [Text("weight at least", QUIET_STYLE)]
    for least, shade in SHADES:
        piece = Text.assemble((shade * CELL, SHADE_STYLE), f" {least:.0%}", style=QUIET_STYLE)
        if lines[-1].cell_len + 2 + piece.cell_len > width:
            lines.append(Text(style=QUIET_STYLE))
        lines[-1].append("  " if lines[-1] else "").append_text(piece)
    return Group(*lines)


def _tables(
    title: str,
    columns: list[tuple[str, Metric, Sequence[dict]]],
    curves: Curves,
    *,
    length_unit: str,
    width: int,
) -> Iterator[Table | Text]:
    """As many tables as it takes to keep each within `width`."""
    bins, sentences = all_bins(curves), counts(curves)
    column_width = max([VALUE_WIDTH, *(cell_len(heading) for heading, _, _ in columns)]) + GAP
    lengths = [label(ends) for ends in bins]
    taken = sum(max(map(cell_len, column)) + GAP for column in ([length_unit, *lengths], ["count", *sentences]))
    per_table = max((width - taken) // column_width, 1)
    for start in range(0, len(columns), per_table):
        shown = columns[start : start + per_table]
        # Text, because a plain string could hold markup
        table = Table(
            title=Text(shorten(f"{title} by source length", width), "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, GAP - 1, 0, 0),
        )
        table.show_edge = False
        table.add_column(Text(length_unit), no_wrap=True)
        table.add_column(Text("count"), justify="right", no_wrap=True, style=QUIET_STYLE)
        for heading, _, _ in shown:
            table.add_column(Text(heading), no_wrap=True)
        for ends, length, count in zip(bins, lengths, sentences, strict=True):
            table.add_row(length, count, *(_measured(metric, parts, ends) for _, metric, parts in shown))
        yield table
        yield Text()


def _measured(metric: Metric, parts: Sequence[dict], ends: tuple[int, int]) -> Text:
    part = next((part for part in parts if (part["from"], part["to"]) == ends), None)
    value, low, high = (math.nan,) * 3 if part is None else metric.interval(part)
    if math.isnan(value):
        return Text(UNDEFINED, QUIET_STYLE)
    interval = f"{math.floor(low)}–{math.ceil(high)}"
    return Text.assemble((bar(value / 100, BAR_WIDTH), SHADE_STYLE), f" {value:5.1f} ", (f"{interval:<7}", QUIET_STYLE))


def bar(share: float, width: int) -> str:
    """A bar whose whole width stands for 1, drawn in eighths of a column."""
    eighths = round(share * width * 8)
    rest = EIGHTHS[eighths % 8]
    return ("█" * (eighths // 8) + rest).ljust(width)


def _left(word: str, cells: int) -> str:
    return word + " " * (cells - cell_len(word))


def _right(word: str, cells: int) -> str:
    return " " * (cells - cell_len(word)) + word
