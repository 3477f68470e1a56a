"""Pictures that explain attention: quality against sentence length, who looked at whom, and what heads do.

Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
translate", figures 2 and 3.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from regard.view.figure import FAINT, check_path, drawing, save
from regard.view.length_bins import Curves, Metric, all_bins, counts, label, metric_called
from regard.view.words import check_alignment, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design", without the yellow that vanishes on white
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LETTERS_ALONG_AXIS = 70
LONGEST_NAME, LONGEST_WORD = 32, 24
SCALES = (0.25, 0.5)
CELL = 0.24
# at this many tokens on a side, cells and letters shrink to keep the picture on a screen
MANY_TOKENS, SMALL_CELL = 40, 0.17
# of a map of heads
HEAD_CELL, MOST_TICKS = 0.2, 32


def plot_length_curve(
    curves: Curves,
    path: str | Path | None = None,
    *,
    metric: str = "chrf",
    title: str | None = None,
    length_unit: str = "words",
) -> "Figure":
    """Draw quality against source length, one line for each model, as .png, .svg or .pdf.

    `curves` maps a model's name to its `by_length` list. Bands are 95 % intervals; the numbers
    under the axis count sentences. Raises RegardError for an unknown metric or suffix, for curves
    without any bin, or if the file cannot be written.
    """
    path = check_path(path)
    measured = metric_called(metric)
    bins = all_bins(curves)
    names = {name: shorten(printable(name), LONGEST_NAME) for name in curves}
    with drawing([*names.values(), title or ""]) as figure:
        figure.set_size_inches(6.4, 3.9)
        axes = figure.add_axes((0.1, 0.2, 0.72, 0.68))
        ends = []
        for (name, parts), look in zip(curves.items(), _looks(), strict=False):
            if parts:
                ends += [(names[name], *end) for end in _draw_curve(axes, parts, measured, **look)]
        _dress_length_axes(axes, bins, counts(curves), length_unit, _top(curves, measured))
        _name_curves(figure, axes, ends)
        axes.set_ylabel(measured.name)
        if title:
            axes.set_title(printable(title), loc="left", fontsize=11, fontweight="bold", pad=12)
        save(figure, path)
    return figure


def plot_alignment(
    weights: Float[np.ndarray, "target source"],
    sources: Sequence[str],
    targets: Sequence[str],
    path: str | Path | None = None,
    *,
    title: str | None = None,
) -> "Figure":
    """Draw an alignment as .png, .svg or .pdf: sources along the top, targets down the left, dark where weight is.

    Raises RegardError for weights that do not fit the words, an unknown suffix, or if the file
    cannot be written.
    """
    path = check_path(path)
    weights = check_alignment(weights, sources, targets)
    columns, rows = ([shorten(printable(word), LONGEST_WORD) for word in words] for words in (sources, targets))
    with drawing([*columns, *rows, title or ""]) as figure:
        cell = SMALL_CELL if max(weights.shape) >= MANY_TOKENS else CELL
        height, width = (cell * size for size in weights.shape)
        figure.set_size_inches(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        # faint weights of a long sentence stay visible; the bar says which scale it is
        top = next((top for top in SCALES if weights.max() <= top), 1.0)
        mesh = axes.pcolormesh(weights, cmap="Blues", vmin=0, vmax=top, edgecolors="#ECECEC", linewidth=0.5)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=cell * 36)
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=_rotation(columns), va="bottom")
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
        _draw_scale(figure, mesh, top, height=height, width=width)
        if title:
            axes.set_title(printable(title), loc="left", fontsize=11, fontweight="bold", pad=10)
        save(figure, path)
    return figure


def plot_heads(
    table: Sequence[Float[np.ndarray, " head"]],
    layers: Sequence[int],
    path: str | Path | None = None,
    *,
    name: str,
    title: str | None = None,
) -> "Figure":
    """Draw one number, called `name`, for each layer and head: layers to the right, heads down; as .png, .svg or .pdf.

    A head whose number is NaN stays white. Raises RegardError for an unknown suffix, or if the file cannot be written.
    """
    path = check_path(path)
    values = np.full((max(map(len, table)), len(table)), np.nan)
    for column, row in enumerate(table):
        values[: len(row), column] = row
    with drawing([name, title or ""]) as figure:
        height, width = (HEAD_CELL * size for size in values.shape)
        figure.set_size_inches(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap="viridis", edgecolors="white", linewidth=1)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=7)
        step = -(-len(layers) // MOST_TICKS)
        axes.set_xticks(np.arange(0, len(layers), step) + 0.5, [str(layer) for layer in layers[::step]])
        axes.set_yticks(np.arange(len(values)) + 0.5, [str(head) for head in range(len(values))])
        axes.set_xlabel("layer")
        axes.set_ylabel("head")
        bar = figure.colorbar(mesh, cax=figure.add_axes((1 + 0.2 / width, 0, 0.09 / width, 1)))
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT)
        bar.ax.set_ylabel(name, fontsize=7, color=FAINT)
        if title:
            axes.set_title(printable(title), loc="left", fontsize=9, fontweight="bold")
        save(figure, path)
    return figure


def _looks() -> itertools.cycle:
    dashes = ("-", "--", ":")
    return itertools.cycle(
        {"color": colour, "marker": marker, "linestyle": dash}
        for dash in dashes
        for colour, marker in zip(COLOURS, MARKERS, strict=True)
    )


def _draw_curve(
    axes: "Axes", parts: Sequence[dict], measured: Metric, *, color: str, marker: str, linestyle: str
) -> list[tuple[float, float, str]]:
    """Draw one model and return where its line ends, and its colour; nothing where no figure is defined."""
    defined = [part for part in parts if not math.isnan(measured.interval(part)[0])]
    parts = sorted(defined, key=lambda part: part["from"])
    if not parts:
        return []
    centres = np.array([_centre((part["from"], part["to"])) for part in parts])
    value, low, high = np.array([measured.interval(part) for part in parts]).T
    axes.fill_between(centres, low, high, color=color, alpha=0.16, linewidth=0)
    if len(parts) == 1:
        # a single point has no band
        axes.vlines(centres, low, high, color=color, alpha=0.5, linewidth=2)
    axes.plot(
        centres,
        value,
        color=color,
        marker=marker,
        linestyle=linestyle,
        linewidth=1.8,
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        clip_on=False,
        zorder=3,
    )
    return [(centres[-1], value[-1], color)]


def _top(curves: Curves, measured: Metric) -> float:
    """The end of the scale: 100 for exact match, else the next multiple of 10 above every interval."""
    ends = (measured.interval(part)[2] for parts in curves.values() for part in parts)
    highest = max((end for end in ends if not math.isnan(end)), default=100.0)
    return 100.0 if measured.key == "exact" else min(100.0, 10.0 * max(1, math.ceil(highest / 10)))


def _dress_length_axes(
    axes: "Axes", bins: list[tuple[int, int]], sentences: list[str], length_unit: str, top: float
) -> None:
    centres = [_centre(ends) for ends in bins]
    half = (bins[0][1] - bins[0][0] + 1) / 2
    axes.set_xlim(centres[0] - half, centres[-1] + half)
    # shares go to 100; scores that never come near it get the room they need
    axes.set_ylim(0, top)
    labels = [label(ends) for ends in bins]
    longest = max(map(len, [*labels, *sentences]))
    every = math.ceil(len(bins) * (longest + 2) / LETTERS_ALONG_AXIS)
    axes.set_xticks(centres[::every], labels[::every])
    axes.tick_params(length=0, pad=5)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    # below the tick labels, at the same places
    below = axes.get_xaxis_transform()
    for centre, count in list(zip(centres, sentences, strict=True))[::every]:
        axes.text(centre, -0.105, count, transform=below, ha="center", va="top", fontsize=7.5, color=FAINT)
    axes.text(-0.06, -0.105, "sentences", transform=axes.transAxes, ha="right", va="top", fontsize=7.5, color=FAINT)
    axes.set_xlabel(f"Source length ({length_unit})", labelpad=20)
    axes.text(1, -0.2, "bands: 95 % intervals", transform=axes.transAxes, ha="right", va="top", fontsize=7, color=FAINT)


def _name_curves(figure: "Figure", axes: "Axes", ends: list[tuple[str, float, float, str]]) -> None:
    """Write each model's name beside the end of its line, moved apart where names would touch."""
    left, right = axes.get_xlim()
    margin = (right - left) / 50
    percent = axes.get_ylim()[1] / 100
    gap = min(6.5, 100 / max(1, len(ends)))
    order = sorted(ends, key=lambda end: end[2])
    places = [percent * place for place in apart([value / percent for _, _, value, _ in order], gap=gap)]
    for (name, centre, value, color), place in zip(order, places, strict=True):
        axes.annotate(
            name,
            xy=(centre, value),
            xytext=(right + margin, place),
            color=color,
            va="center",
            fontweight="bold",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.7,
                "alpha": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 5,
            },
        )


def apart(values: list[float], *, gap: float) -> list[float]:
    """Sorted values moved as little as needed to lie `gap` apart, between 0 and 100 if they fit."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap if places else 0.0))
    limit = 100.0
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


def _draw_scale(figure: "Figure", mesh: object, top: float, *, height: float, width: float) -> None:
    length = min(max(height, 0.5), 1.6)
    place = (1 + 0.2 / width, 1 - length / height, 0.09 / width, length / height)
    bar = figure.colorbar(mesh, cax=figure.add_axes(place))  # pyright: ignore[reportArgumentType]
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT)
    bar.ax.set_ylabel("weight", fontsize=7, color=FAINT)
    bar.set_ticks([0, top / 2, top], labels=["0", f"{top / 2:g}", f"{top:g}"])


def _rotation(words: list[str]) -> int:
    # short labels, such as single Han letters, fit over their column upright
    return 0 if all(len(word) <= 2 for word in words) else 90


def _centre(ends: tuple[int, int]) -> float:
    return sum(ends) / 2
