"""Pictures in a terminal: half blocks with the heat of where the answer looked or, without colour, digits."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from regard.reading.reading import Reading
from regard.view.answer import MOST_WORDS, answer_view, heading
from regard.view.heat import MIDDLE_GREY, coloured, over, parts
from regard.view.pictures import Heat, Looks, looks, pictures
from regard.view.pixels import grey, pixels
from regard.view.proof import proof
from regard.view.terminal import QUIET_STYLE, SHADE_STYLE, bar
from regard.view.words import percent, printable, shorten

# in columns; a half block is as wide as it is high
WIDEST, TALLEST, BAR = 64, 44, 12
STEPS, UPPER_HALF = 5, "▀"


class PictureView:
    """`Looks` for a terminal of any width. Where it has no colour a digit says how strong each place is."""

    def __init__(self, found: Looks, *, has_shares: bool = True) -> None:
        self.found = found
        self.has_shares = has_shares

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found, width = self.found, options.max_width
        has_colour = console.color_system is not None and not console.no_color
        yield heading(f"What {found.subject} looked at in the images", found.scope, width)
        for place, heat in enumerate(found.heats):
            picture = heat.picture
            if place:
                yield Text()
            title = f"image {heat.number + 1}"
            name = [printable(picture.name)] if picture.name != title else []
            told = " · ".join([title, *name, heat.grid, percent(heat.share)])
            yield Text(shorten(told, width), QUIET_STYLE)
            columns = max(1, min(WIDEST, width - 2, round(TALLEST * picture.width / picture.height)))
            lines = half_blocks(heat, columns) if has_colour else digits(heat, columns)
            yield Padding(Text("\n").join(lines), (0, 1))
            yield Padding(_legend(heat, has_colour=has_colour), (0, 1))
        if self.has_shares:
            yield Text()
            yield from _balance(found.shares, width=width)
        if len(found.by_token) > 1:
            yield heading("Token by token", "its weight on each image, and on the strongest patch", width)
            yield from _token_lines(found, width=width)


def picture_view(
    reading: Reading, *, layer: int | None = None, head: int | None = None, token: str | None = None, segments: str
) -> list[RenderableType]:
    """The answer, what it looked at in the pictures and in the text, and what proves it.

    What is raised is that of `looks`, `pixels` and `shares`.
    """
    found = looks(reading, layer=layer, head=head, token=token)
    for heat in found.heats:
        # what cannot be shown is told before anything is
        pixels(heat.picture, 1)
    if found.kind == "decoder":
        answer, *rest = answer_view(reading, layer=layer, head=head, token=token, segments=segments)
        own = PictureView(found, has_shares=False)
        return [answer, own, *rest] if isinstance(answer, Text) else [own, answer, *rest]
    target = reading.sequences.get("target")
    written = [Text(printable(target.text))] if target is not None else []
    return [*written, PictureView(found), Text(f"\n{proof(reading)}", QUIET_STYLE)]


def unplaced_view(reading: Reading) -> list[RenderableType]:
    """What is told of pictures where no text was read and no patch has a known place."""
    names = [f"{printable(each.name)}: {each.width} × {each.height} pixels" for each in pictures(reading)]
    why = "No heat is drawn: which pixels a patch of this model covers is not known."
    return [Text("\n".join([*names, why])), Text(f"\n{proof(reading)}", QUIET_STYLE)]


def half_blocks(heat: Heat, columns: int) -> list[Text]:
    """The picture, `columns` wide, two of its lines in each line of text, with the heat over it."""
    rows = max(2, round(columns * heat.picture.height / heat.picture.width))
    rows += rows % 2
    image = grey(_shrunk(pixels(heat.picture, 4 * max(rows, columns)), rows, columns))
    values = over(heat, rows, columns)
    colours = coloured(values / (heat.density.max() or 1.0), image.astype(float)).astype(int)
    lines = []
    for upper, lower in zip(colours[::2], colours[1::2], strict=True):
        line = Text(no_wrap=True)
        for one, other in zip(upper.tolist(), lower.tolist(), strict=True):
            line.append(UPPER_HALF, Style(color=_hex(one), bgcolor=_hex(other)))
        lines.append(line)
    return lines


def digits(heat: Heat, columns: int) -> list[Text]:
    """Tenths of the strongest patch, rounded down; a point is less than one, and a space is outside of all patches."""
    # a letter is twice as high as wide, and no patch needs several
    ratio = heat.picture.height / heat.picture.width / 2
    columns = min(columns, max(2 * (len(heat.xs) - 1), round((len(heat.ys) - 1) / ratio)))
    rows = max(1, round(columns * ratio))
    values, covered = over(heat, rows, columns), over(heat, rows, columns, heat.coverage > 0)
    tenths = np.minimum(9, 10 * values / (heat.density.max() or 1.0)).astype(int)
    return [
        Text("".join(" " if not there else str(tenth) if tenth else "·" for tenth, there in zip(*line, strict=True)))
        for line in zip(tenths.tolist(), (covered > 0).tolist(), strict=True)
    ]


def _shrunk(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    height, width = image.shape[:2]
    down, across = parts(np.arange(height + 1.0), rows), parts(np.arange(width + 1.0), columns)
    return np.einsum("yh,hwc,xw->yxc", down, image, across, optimize=True).round().astype(np.uint8)


def _legend(heat: Heat, *, has_colour: bool) -> Text:
    most = float(heat.density.max())
    text = Text(heat.scale, QUIET_STYLE)
    if not has_colour:
        return text.append(f": digits are tenths of {percent(most)}, · is less than one")
    for share in np.linspace(0, 1, STEPS):
        colour = coloured(np.array(share), np.full(3, float(MIDDLE_GREY))).astype(int).tolist()
        ink = "#000000" if share < 0.7 else "#ffffff"
        text.append("  ").append(f" {percent(share * most)} ", Style(color=ink, bgcolor=_hex(colour), dim=False))
    return text


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _balance(shares: Sequence[tuple[str, float]], *, width: int) -> Iterator[Text]:
    side = max(cell_len(name) for name, _ in shares)
    for name, share in shares:
        line = Text(f" {name}{' ' * (side - cell_len(name))} ", no_wrap=True)
        line.append(f"{percent(share):>7}  ", "bold").append(bar(share, BAR), SHADE_STYLE)
        line.truncate(width, overflow="ellipsis")
        yield line


def _token_lines(found: Looks, *, width: int) -> Iterator[Text]:
    shown = found.by_token[:MOST_WORDS]
    side = max(cell_len(name) for name, _ in shown)
    for name, heats in shown:
        line = Text(f"{' ' * (side - cell_len(name))} {name} ← ", no_wrap=True)
        for heat in heats:
            number = f"image {heat.number + 1} " if len(heats) > 1 else ""
            line.append(f"  {number}{percent(heat.share)}").append(f" ({_strongest(heat)})", QUIET_STYLE)
        line.truncate(width, overflow="ellipsis")
        yield line
    if left := len(found.by_token) - len(shown):
        yield Text(f" … and {left:,} more; --token shows any one", QUIET_STYLE)


def _strongest(heat: Heat) -> str:
    """The strongest place: its weight, and its middle in pixels."""
    row, column = np.unravel_index(heat.density.argmax(), heat.density.shape)
    middle = (heat.xs[column : column + 2].mean(), heat.ys[row : row + 2].mean())
    return f"{percent(float(heat.density.max()))} at {middle[0]:.0f}, {middle[1]:.0f}"
