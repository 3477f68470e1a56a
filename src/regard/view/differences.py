"""How systems differ from the first of them, in the terminal: each difference with its interval and p-value."""

from collections.abc import Mapping

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from regard.evaluation.significance import Difference
from regard.view.length_bins import METRICS
from regard.view.terminal import GAP, LONGEST_NAME, QUIET_STYLE
from regard.view.words import printable, shorten

# p-values below it are commonly called significant
SIGNIFICANT = 0.05


def difference_table(first: str, differences: Mapping[str, Mapping[str, Difference]]) -> Group:
    """A row for each other system and metric; exact matches in percent."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0))
    table.show_edge = False
    table.add_column(Text(f"against {shorten(printable(first), LONGEST_NAME)}"), no_wrap=True)
    table.add_column("")
    for heading in ("difference", "95 % interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in differences.items():
        for key, metric in METRICS.items():
            each = found[key]
            scaled = [None if part is None else metric.scale * part for part in (each.difference, each.low, each.high)]
            value, low, high = ("–" if part is None else f"{part:+.1f}" for part in scaled)
            is_significant = each.p_value is not None and each.p_value < SIGNIFICANT
            style = "bold" if is_significant else ""
            table.add_row(
                Text(shorten(printable(name), LONGEST_NAME)),
                Text(metric.name),
                Text(value, style),
                Text("–" if each.low is None else f"{low} to {high}"),
                Text("–" if each.p_value is None else f"{each.p_value:.3f}", style),
            )
    note = "p: how probable so large a difference would be if both were equally good (paired bootstrap)"
    return Group(table, Text(note, QUIET_STYLE))
