"""Alignment error rate in the terminal: a figure with its interval and, where there are several heads, all of them."""

from rich import box
from rich.table import Table
from rich.text import Text

from regard.view.terminal import GAP, QUIET_STYLE, STRONGEST_STYLE, UNDEFINED


def error_rate_line(quality: dict) -> Text:
    """Alignment error rate, precision and recall in percent, and of which head, from a `Quality.to_json()`."""
    rate, low, high, precision, recall = (
        UNDEFINED if quality[name] is None else f"{100 * quality[name]:.1f}"
        for name in ("aer", "aer_low", "aer_high", "aer_precision", "aer_recall")
    )
    told = Text(f"alignment error rate {rate} %", "bold")
    told.append(f" ({low}–{high})   precision {precision}   recall {recall}", "not bold")
    if len(quality["aer_by_head"]) > 1:
        chosen = quality["aer_head"]
        told.append(f"\ncross layer {chosen['layer']}, {_name(chosen['head'])}", "not bold")
        if chosen["chosen_on"]:
            told.append(f", the one head that aligns {chosen['chosen_on']} best", "not bold")
    return told


def error_rate_grid(quality: dict) -> Table:
    """The alignment error rate in percent: a row for each head and for their mean, a column for each cross layer."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0))
    table.show_edge = False
    table.add_column("cross layer", style=QUIET_STYLE, no_wrap=True)
    rates = {(part["layer"], part["head"]): f"{100 * part['aer']:.1f}" for part in quality["aer_by_head"]}
    chosen = quality["aer_head"]["layer"], quality["aer_head"]["head"]
    layers = sorted({layer for layer, _ in rates})
    for layer in layers:
        table.add_column(str(layer), justify="right", no_wrap=True)
    for head in [*sorted({head for _, head in rates if head is not None}), None]:
        cells = [(layer, head) for layer in layers]
        styles = [STRONGEST_STYLE if cell == chosen else "" for cell in cells]
        table.add_row(
            _name(head), *(Text(rates.get(cell, ""), style) for cell, style in zip(cells, styles, strict=True))
        )
    return table


def _name(head: int | None) -> str:
    return "mean of heads" if head is None else f"head {head}"
