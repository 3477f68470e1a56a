"""A reading of a language model as a picture: prompt and answer as shaded tokens, strongest parts, layers and heads."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from regard.data.words import word_spans
from regard.view.answer import MOST_PARTS, SHADES, scale, shaded_text
from regard.view.figure import FAINT, check_path, drawing, save
from regard.view.shares import Shares
from regard.view.words import percent, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# a monospaced letter is 0.602 of its size wide
COLUMNS, FONT_SIZE = 96, 8
CELL_WIDTH, LINE_HEIGHT = 0.602 * FONT_SIZE / 72, 0.17
WIDTH = COLUMNS * CELL_WIDTH
# in inches: what a heading, a bar and a cell of the strip take
HEADING, BAR_HEIGHT, STRIP_CELL = 0.34, 0.2, 0.11
LABEL = 0.62


def plot_answer(found: Shares, path: str | Path | None = None) -> "Figure":
    """Draw where the weight went as .png, .svg or .pdf. Raises RegardError if the file cannot be written."""
    path = check_path(path)
    levels = scale(found)
    blocks = [
        (
            f"What {found.subject} looked at  ·  {found.scope}",
            shaded_text(found.pieces, found.strongest[:MOST_PARTS], scale=levels),
        )
    ]
    if found.written:
        blocks.append(("The answer", shaded_text(found.written, [], scale=levels)))
    lines = [(title, _wrapped(text)) for title, text in blocks]
    parts = [found.parts[number] for number in found.strongest[:MOST_PARTS] if found.parts[number].share > 0]
    has_strips = found.first_by_head.size > 1
    strip = STRIP_CELL * found.first_by_head.shape[1] if has_strips else 0
    height = sum(HEADING + LINE_HEIGHT * len(rows) for _, rows in lines)
    height += HEADING + LINE_HEIGHT * 2.75 + BAR_HEIGHT * len(parts) + (2 * HEADING + strip if has_strips else 0)
    texts = [text.plain for _, text in blocks] + [part.text for part in parts] + [title for title, _ in blocks]
    with drawing(texts) as figure:
        figure.set_size_inches(WIDTH, height)
        page = figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()
        page.set_xlim(0, WIDTH)
        # inches from the top
        page.set_ylim(height, 0)
        top = 0.0
        for title, rows in lines:
            top = _draw_lines(page, rows, _title(page, title, top))
        top = _draw_legend(page, levels, top + LINE_HEIGHT / 2)
        top = _draw_parts(page, found, [(part.text, part.share) for part in parts], top)
        if has_strips:
            _draw_strips(figure, page, found, top, height=height)
        save(figure, path)
    return figure


def _wrapped(text: Text) -> list[Text]:
    console = Console(width=COLUMNS, color_system=None, _environ={})
    return list(text.wrap(console, COLUMNS, tab_size=4))


def _title(page: "Axes", title: str, top: float) -> float:
    page.text(0, top + HEADING * 0.75, title, fontsize=9.5, fontweight="bold", va="baseline")
    return top + HEADING


def _draw_lines(page: "Axes", lines: Sequence[Text], top: float) -> float:
    import matplotlib

    # where letters are as wide as a terminal's cells, the picture breaks lines where the terminal does
    family = ["DejaVu Sans Mono", *matplotlib.rcParams["font.family"]]
    for line in lines:
        # word by word, so that rounded letters do not add up to another width than that of the cells
        words = (end for start, word in word_spans(line.plain) for end in (start, word))
        ends = sorted({0, len(line.plain), *words, *(end for span in line.spans for end in span[:2])})
        for start, end in itertools.pairwise(ends):
            style = next((span.style for span in line.spans if span.start <= start < span.end), "")
            part = line.plain[start:end]
            if part.strip() or style:
                left, width = (CELL_WIDTH * cell_len(each) for each in (line.plain[:start], part))
                _draw_part(page, part, style, family, left=left, top=top, width=width)
        top += LINE_HEIGHT
    return top


def _draw_part(
    page: "Axes", part: str, style: str | Style, family: list[str], *, left: float, top: float, width: float
) -> None:
    from matplotlib.patches import Rectangle

    colour = style.bgcolor.name if isinstance(style, Style) and style.bgcolor else None
    if colour:
        page.add_patch(Rectangle((left, top), width, LINE_HEIGHT * 0.94, facecolor=colour, linewidth=0))
    # plain or shaded, or else the first token and what is left out
    ink = "#000000" if colour or style == "" else FAINT
    page.text(left, top + LINE_HEIGHT * 0.72, part, fontsize=FONT_SIZE, family=family, color=ink, va="baseline")


def _draw_legend(page: "Axes", levels: Sequence[float], top: float) -> float:
    line = Text("weight of a token at least")
    for style, least in zip(SHADES, levels, strict=True):
        line.append("  ").append(f" {percent(least)} ", style)
    return _draw_lines(page, [line], top)


def _draw_parts(page: "Axes", found: Shares, parts: Sequence[tuple[str, float]], top: float) -> float:
    from matplotlib.patches import Rectangle

    told = [f"prompt {percent(found.prompt)}"] if found.has_answer else [f"text {percent(found.prompt)}"]
    told += [f"template {percent(found.template)}"] if found.template else []
    told += [f"question {percent(found.question)}"] if found.question else []
    told += [f"answer {percent(found.answer)}"] if found.has_answer else []
    told += [f"images {percent(found.images)}"] if found.images else []
    told += [f"first token {percent(found.first)} (left out of shades)"] if found.first_token else []
    told += [f"outside {percent(found.outside)}"] if found.outside > 0.005 else []
    top = _title(page, "Where the weight went", top)
    page.text(0, top + LINE_HEIGHT * 0.5, "   ".join(told), fontsize=8, color=FAINT, va="center")
    top += LINE_HEIGHT * 1.25
    longest = WIDTH / 4
    for text, share in parts:
        page.text(LABEL - 0.08, top + BAR_HEIGHT * 0.62, percent(share), fontsize=8, ha="right", va="center")
        width = longest * share / parts[0][1]
        page.add_patch(Rectangle((LABEL, top + 0.03), width, BAR_HEIGHT - 0.06, facecolor="#f0ab3f", linewidth=0))
        name = shorten(printable(text), round((WIDTH - LABEL - longest) / CELL_WIDTH) - 2)
        page.text(LABEL + longest + 0.1, top + BAR_HEIGHT * 0.62, name, fontsize=8, va="center")
        top += BAR_HEIGHT
    return top


def _draw_strips(figure: "Figure", page: "Axes", found: Shares, top: float, *, height: float) -> None:
    """Two maps of all layers and heads, each on its own scale: the first token, and the strongest part."""
    half = WIDTH / 2
    heads = found.first_by_head.shape[1]
    tables = {"On the first token": found.first_by_head, "On the strongest part": found.part_by_head}
    for place, (title, table) in enumerate(tables.items()):
        left = place * half + LABEL
        page.text(
            place * half,
            top + HEADING * 0.75,
            f"{title}, up to {percent(float(np.nanmax(table)))}",
            fontsize=9.5,
            fontweight="bold",
        )
        width, tall = half - LABEL - 0.25, STRIP_CELL * heads
        axes = figure.add_axes(
            (left / WIDTH, 1 - (top + HEADING + tall) / height, width / WIDTH, tall / height),
        )
        _draw_strip(axes, table.T, found.layers)


def _draw_strip(axes: "Axes", table: Float[np.ndarray, "head layer"], layers: Sequence[int]) -> None:
    heads, count = table.shape
    axes.pcolormesh(
        table, cmap="YlOrBr", vmin=0, vmax=max(float(np.nanmax(table)), 1e-9), edgecolors="white", linewidth=0.3
    )
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    every = max(1, count // 10)
    axes.set_xticks(np.arange(0, count, every) + 0.5, [str(layer) for layer in layers[::every]])
    axes.set_yticks([0.5, heads - 0.5] if heads > 1 else [0.5], ["0", str(heads - 1)] if heads > 1 else ["0"])
    axes.tick_params(length=0, labelsize=6.5, labelcolor=FAINT)
    axes.set_xlabel("layer", fontsize=7, color=FAINT, labelpad=1)
    axes.set_ylabel("head", fontsize=7, color=FAINT, labelpad=1)
