"""A picture with the heat of where the answer looked, the same for each written token, and what saw no picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regard.view.figure import FAINT, check_path, drawing, save
from regard.view.heat import MIDDLE_GREY, STOPS
from regard.view.pictures import Heat, Looks
from regard.view.pixels import grey, pixels
from regard.view.words import percent, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOKENS = 15
# in inches
WIDTH, LARGE, TALLEST, SMALL, GAP = 9.4, 3.6, 4.2, 1.2, 0.14
HEADING, CAPTION, SCALE, LINE, FOOT = 0.36, 0.4, 0.5, 0.2, 0.1
LABEL, BAR = 0.62, 2.2
# pixels of the longer side
LARGE_PIXELS, SMALL_PIXELS = 1000, 300
GRID = {"colors": "white", "linewidths": 0.35, "alpha": 0.8}


def plot_pictures(
    found: Looks, path: str | Path | None = None, *, has_grid: bool = False, title: str | None = None
) -> "Figure":
    """Draw the heat over each picture as .png, .svg or .pdf, with a small one for each written token.

    `has_grid` draws the edges of the patches. Raises RegardError for a picture that cannot be drawn or if the file
    cannot be written.
    """
    path = check_path(path)
    shown = found.by_token[:MOST_TOKENS] if len(found.by_token) > 1 else []
    title = printable(title) if title else f"What {found.subject} looked at  ·  {found.scope}"
    left_out = len(found.by_token) - len(shown) if shown else 0
    notes = [f"the first {len(shown)} of {len(found.by_token)} tokens; token= draws any one"] if left_out else []
    blocks = [_Block(heat, [(name, heats[place]) for name, heats in shown]) for place, heat in enumerate(found.heats)]
    height = HEADING + sum(block.height for block in blocks) + LINE * (len(found.shares) + len(notes)) + HEADING + FOOT
    names = [name for name, _ in found.shares]
    with drawing([title, *names, *(name for name, _ in shown)]) as figure:
        figure.set_size_inches(WIDTH, height)
        page = figure.add_axes((0, 0, 1, 1))
        page.set_axis_off()
        page.set_xlim(0, WIDTH)
        # inches from the top
        page.set_ylim(height, 0)
        page.text(0, HEADING * 0.7, title, fontsize=9.5, fontweight="bold", va="baseline")
        top = HEADING
        for block in blocks:
            block.draw(figure, page, top, height, has_grid=has_grid)
            top += block.height
        for note in notes:
            page.text(WIDTH, top + LINE * 0.5, note, fontsize=7.5, color=FAINT, ha="right")
            top += LINE
        _draw_shares(page, found.shares, top)
        save(figure, path)
    return figure


class _Block:
    """One picture: large, and small for each token."""

    def __init__(self, heat: Heat, small: Sequence[tuple[str, Heat]]) -> None:
        self.heat, self.small = heat, small
        ratio = heat.picture.height / heat.picture.width
        self.width = min(LARGE, TALLEST / ratio)
        self.tall = self.width * ratio
        room = WIDTH - LARGE - 3 * GAP
        self.columns = int((room + GAP) / (SMALL + GAP))
        self.small_width = min(SMALL, 1.25 * SMALL / ratio)
        self.small_tall = self.small_width * ratio
        # the picture in its own colours comes first
        rows = -(-(len(small) + 1) // self.columns)
        self.height = max(HEADING + self.tall + SCALE, rows * (CAPTION + self.small_tall + GAP) + GAP) + GAP

    def draw(self, figure: "Figure", page: "Axes", top: float, height: float, *, has_grid: bool) -> None:
        heat = self.heat
        told = f"image {heat.number + 1} · {heat.picture.width} × {heat.picture.height} pixels · {heat.grid}"
        page.text(0, top + HEADING * 0.62, told, fontsize=8, color=FAINT, va="baseline")
        page.text(LARGE, top + HEADING * 0.62, percent(heat.share), fontsize=8, fontweight="bold", ha="right")
        image = pixels(heat.picture, LARGE_PIXELS)
        place = (0.0, top + HEADING, self.width, self.tall)
        axes = figure.add_axes(_within(place, height))
        mesh = _draw_heat(axes, heat, grey(image))
        if has_grid:
            _draw_grid(axes, heat)
        _draw_scale(
            figure, mesh, heat.scale, (0.0, top + HEADING + self.tall + 0.14, min(self.width, 2.2), 0.09), height
        )
        _draw_picture(self._small(figure, page, 0, top, height, "the picture", ""), heat, image)
        small_image = grey(pixels(heat.picture, SMALL_PIXELS)) if self.small else image
        for place, (name, own) in enumerate(self.small, start=1):
            told = f"{percent(own.share)}, scale to {percent(float(own.density.max()))}"
            _draw_heat(self._small(figure, page, place, top, height, name, told), own, small_image)

    def _small(
        self, figure: "Figure", page: "Axes", place: int, top: float, height: float, name: str, told: str
    ) -> "Axes":
        row, column = divmod(place, self.columns)
        left = LARGE + 3 * GAP + column * (SMALL + GAP)
        upper = top + row * (CAPTION + self.small_tall + GAP) + GAP
        page.text(left, upper + CAPTION * 0.42, shorten(name, 20), fontsize=7.5, fontweight="bold", va="baseline")
        page.text(left, upper + CAPTION * 0.82, told, fontsize=6, color=FAINT, va="baseline")
        return figure.add_axes(_within((left, upper + CAPTION, self.small_width, self.small_tall), height))


def _within(place: tuple[float, float, float, float], height: float) -> tuple[float, float, float, float]:
    left, top, width, tall = place
    return left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height


def _draw_heat(axes: "Axes", heat: Heat, image: np.ndarray) -> Any:
    """The picture with its heat, which is returned."""
    from matplotlib.colors import LinearSegmentedColormap

    _draw_picture(axes, heat, image)
    most = float(heat.density.max()) or 1.0
    colours = LinearSegmentedColormap.from_list("heat", [(*np.divide(stop[:3], 255), stop[3]) for stop in STOPS])
    return axes.pcolorfast(heat.xs, heat.ys, heat.density, cmap=colours, vmin=0, vmax=most)


def _draw_picture(axes: "Axes", heat: Heat, image: np.ndarray) -> None:
    size = heat.picture
    axes.imshow(image, extent=(0, size.width, size.height, 0), interpolation="antialiased", aspect="auto")
    # whatever is drawn later
    axes.autoscale(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_grid(axes: "Axes", heat: Heat) -> None:
    from matplotlib.collections import LineCollection

    left, top, right, bottom = heat.boxes.T
    corners = np.array([[left, right, right, left, left], [top, top, bottom, bottom, top]])
    axes.add_collection(LineCollection(list(corners.transpose(2, 1, 0)), **GRID))


def _draw_scale(
    figure: "Figure", mesh: Any, name: str, place: tuple[float, float, float, float], height: float
) -> None:
    axes = figure.add_axes(_within(place, height))
    axes.set_facecolor(str(MIDDLE_GREY / 255))
    bar = figure.colorbar(mesh, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    most = mesh.get_clim()[1]
    bar.set_ticks([0, most / 2, most], labels=["0", percent(most / 2), percent(most)])
    axes.tick_params(length=0, labelsize=6.5, labelcolor=FAINT, pad=2)
    axes.text(1.05, 0.5, name, transform=axes.transAxes, fontsize=6.5, color=FAINT, va="center")


def _draw_shares(page: "Axes", shares: Sequence[tuple[str, float]], top: float) -> None:
    from matplotlib.patches import Rectangle

    page.text(0, top + HEADING * 0.7, "Where the weight went", fontsize=9.5, fontweight="bold", va="baseline")
    top += HEADING
    for name, share in shares:
        page.text(LABEL - 0.08, top + LINE * 0.6, percent(share), fontsize=8, ha="right", va="center")
        page.add_patch(Rectangle((LABEL, top + 0.03), BAR * share, LINE - 0.06, facecolor="#f0ab3f", linewidth=0))
        page.text(LABEL + BAR + 0.1, top + LINE * 0.6, shorten(name, 60), fontsize=8, va="center")
        top += LINE
