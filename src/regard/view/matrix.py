"""A matrix in a terminal: rows and columns named by tokens, weights shaded, one row marked."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.table import Table
from rich.text import Text
from torch import Tensor

from regard.view.words import printable

MARK = "▸"
MARKED = Style(color="#000000", bgcolor="#ffd866", bold=True)
FAINT = Style(dim=True)
BOLD = Style(bold=True)
PLAIN = Style.null()
PALE, DEEP = (236, 242, 252), (8, 58, 130)
BARS = " ▁▂▃▄▅▆▇█"
WIDEST_LABEL, WIDEST_HEADER = 18, 8


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Numbers with four decimals. Columns that do not fit side by side go on below, under their own names.

    `shaded` is for weights: the stronger, the greater within the matrix; where there is no colour, bars stand
    for shades. `dropped` cells say so in place of their zero. `group` draws a line after that many columns.
    """

    title: str
    values: Float[Tensor, "row column"]
    rows: Sequence[str]
    columns: Sequence[str]
    corner: str = ""
    marked: int | None = None
    group: int | None = None
    shaded: bool = False
    dropped: Bool[Tensor, "row column"] | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Table]:
        is_coloured = console.color_system is not None and not console.no_color
        count = len(self.columns)
        cells = [[self._cell(row, column, is_coloured) for column in range(count)] for row in range(len(self.rows))]
        headers = [printable(column) for column in self.columns]
        labels = [printable(row) for row in self.rows]
        width = max(cell.cell_len for line in cells for cell in line)
        width = max(width, min(WIDEST_HEADER, max(map(cell_len, headers))))
        label_width = min(WIDEST_LABEL, max(map(cell_len, [self.corner, *labels])))
        for line in cells:
            for cell in line:
                cell.align("right", width)

        lines = (count - 1) // self.group if self.group else 0
        room = options.max_width - len(MARK) - 1 - label_width - 2 * lines
        panels = math.ceil(count / max(1, room // (width + 1)))
        size = math.ceil(count / panels)
        for start in range(0, count, size):
            shown = range(start, min(start + size, count))
            part = f", columns {start + 1} to {shown.stop} of {count}" if panels > 1 else ""
            if start:
                yield Text()
            yield Text.assemble((self.title, BOLD), (f"  {self._shape}{part}", FAINT))
            table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, header_style=PLAIN)
            table.add_column(width=len(MARK))
            table.add_column(Text(self.corner, style=FAINT), width=label_width, overflow="fold")
            for column in shown:
                if self._opens_group(column):
                    table.add_column(Text("│", style=FAINT), width=1)
                table.add_column(Text(headers[column], style=FAINT), justify="right", width=width, overflow="fold")
            for row, line in enumerate(cells):
                is_marked = row == self.marked
                parts = [
                    Text(MARK if is_marked else "", style=BOLD),
                    Text(labels[row], style=MARKED if is_marked else ""),
                ]
                for column in shown:
                    if self._opens_group(column):
                        parts.append(Text("│", style=FAINT))
                    parts.append(line[column])
                table.add_row(*parts)
            yield table

    @property
    def _shape(self) -> str:
        count = len(self.columns)
        columns = f"({' + '.join([str(self.group)] * (count // self.group))})" if self.group else count
        return f"{len(self.rows)} × {columns}"

    def _opens_group(self, column: int) -> bool:
        return self.group is not None and column > 0 and column % self.group == 0

    def _cell(self, row: int, column: int, is_coloured: bool) -> Text:
        value = self.values[row, column].item()
        is_marked = row == self.marked
        if self.dropped is not None and bool(self.dropped[row, column]):
            return Text("dropped", style=FAINT)
        if value == -math.inf:
            return Text("−∞", style=FAINT)
        number = f"{value:z.4f}"
        if not self.shaded:
            return Text(number, style=MARKED if is_marked else PLAIN)
        # all weights of a matrix can be dropped
        share = value / (self.values.max().item() or 1.0)
        if not is_coloured:
            return Text(f"{number} {BARS[math.ceil(share * (len(BARS) - 1))]}", style=Style(bold=is_marked))
        return Text(number, style=_shade(share) + Style(bold=is_marked) if value else FAINT)


def _shade(share: float) -> Style:
    red, green, blue = (round(pale + (deep - pale) * share) for pale, deep in zip(PALE, DEEP, strict=True))
    ink = "#ffffff" if share > 0.66 else "#000000"
    return Style(color=ink, bgcolor=f"#{red:02x}{green:02x}{blue:02x}")
