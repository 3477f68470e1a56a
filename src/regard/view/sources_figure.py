"""The passages that an answer rests on as a picture: what the answer loses without each."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.reading.source_record import numbered
from regard.view.answer_figure import BAR_HEIGHT, CELL_WIDTH, FONT_SIZE, HEADING, LINE_HEIGHT, WIDTH
from regard.view.figure import FAINT, check_path, drawing, save
from regard.view.words import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# passages that are drawn
MOST = 10
# in inches: where numbers, bars and texts begin
NUMBER, BAR, TEXT = 0.0, 0.95, 2.6
# how far the question stands from the passages, in rows
APART = 0.6
NAMED, OTHERS = "#f0ab3f", "#cfc8bd"


def plot_sources(found: dict[str, Any], path: str | Path | None = None) -> "Figure":
    """Draw what `to_json` of `Sources` or `MediaSources` gives as .png, .svg or .pdf.

    Raises RegardError if it cannot be written.
    """
    path = check_path(path)
    rows = [(numbered(number), source) for number, source in enumerate(found["sources"][:MOST])]
    rows += [] if found.get("question") is None else [("?", found["question"])]
    answer = _line(found["answer"], WIDTH)
    title = f"This answer {found['verdict']['text']}"
    note = "nats that the answer's log-probability loses without it; ≈ an estimate, ≤ a bound, not confirmed"
    height = HEADING * 2 + LINE_HEIGHT * 2 + BAR_HEIGHT * (len(rows) + APART)
    with drawing([answer, title, note, *(source["text"] for _, source in rows)]) as figure:
        figure.set_size_inches(WIDTH, height)
        page = figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()
        page.set_xlim(0, WIDTH)
        page.set_ylim(height, 0)
        page.text(0, LINE_HEIGHT, answer, fontsize=FONT_SIZE + 1, va="center")
        page.text(0, LINE_HEIGHT + HEADING, title, fontsize=10.5, fontweight="bold", va="center")
        top = LINE_HEIGHT + HEADING * 1.5
        most = max([_drawn(source) for _, source in rows] + [1e-9])
        for number, (name, source) in enumerate(rows):
            top += APART * BAR_HEIGHT * (name == "?")
            _draw(page, name, source, top, most=most, is_named=name != "?" and number in found["verdict"]["on"])
            top += BAR_HEIGHT
        page.text(0, top + LINE_HEIGHT, note, fontsize=7, color=FAINT, va="center")
        save(figure, path)
    return figure


def _line(text: str, width: float) -> str:
    return shorten(printable(" ".join(text.split())), round(width / CELL_WIDTH) - 2)


def _loss(source: dict[str, Any]) -> float:
    known = source["effect"]
    return -(source["bound" if "bound" in source else "estimate"] if known is None else known)


def _drawn(source: dict[str, Any]) -> float:
    """The length of the bar: a bound has none."""
    return 0.0 if "bound" in source and source["effect"] is None else max(0.0, _loss(source))


def _draw(page: "Axes", name: str, source: dict[str, Any], top: float, *, most: float, is_named: bool) -> None:
    from matplotlib.patches import Rectangle

    middle, loss = top + BAR_HEIGHT * 0.55, _loss(source)
    is_known = source["effect"] is not None
    ink = "#000000" if is_known else FAINT
    page.text(NUMBER, middle, name, fontsize=9, va="center", fontweight="bold" if is_named else "normal")
    figure = f"{'' if is_known else '≤ ' if 'bound' in source else '≈ '}{round(loss, 2) + 0.0:.2f}"
    page.text(BAR - 0.08, middle, figure, fontsize=8, ha="right", va="center", color=ink)
    width = (TEXT - BAR - 0.15) * _drawn(source) / most
    colour = NAMED if is_named else OTHERS
    page.add_patch(Rectangle((BAR, top + 0.03), width, BAR_HEIGHT - 0.06, facecolor=colour, linewidth=0))
    text = _line(source["text"], WIDTH - TEXT)
    page.text(TEXT, middle, text, fontsize=FONT_SIZE, va="center", fontweight="bold" if is_named else "normal")
