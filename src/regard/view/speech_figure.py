"""A sound with the times of its words over its waveform, and below it where each written word looked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regard.errors import RegardError
from regard.view.figure import FAINT, INK, check_path, drawing, save
from regard.view.speech import Heard, samples
from regard.view.words import percent, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES, LONGEST_WORD, PARTS = 120, 24, 1600
# in inches
WIDTH, WAVE, LINE, HEAD, FOOT, NOTE, LEFT, BAR, RIGHT = 9.4, 1.15, 0.17, 0.95, 0.36, 0.18, 1.15, 0.09, 0.9
MARK, WAVE_COLOUR = "#D55E00", "#9A9A9A"


def plot_speech(found: Heard, path: str | Path | None = None, *, title: str | None = None) -> "Figure":
    """Draw the waveform, the words where they were spoken, and the weight of each over time; as .png, .svg or .pdf.

    Raises RegardError for more words than there is room for, a sound that cannot be drawn, an unknown suffix, or if the
    file cannot be written.
    """
    path = check_path(path)
    lines = found.lines
    if len(lines) > MOST_LINES:
        raise RegardError(f"{len(lines)} words have no room in one picture; token= draws any one of them")
    names = [shorten(printable(line.text), LONGEST_WORD) for line in lines] or [found.subject]
    rows = np.stack([line.weights for line in lines]) if lines else found.whole[None]
    title = printable(title) if title else f"What {found.subject} looked at  ·  {found.scope}"
    notes = [f"{name} {percent(share)}" for name, share in found.shares]
    # names of words stand slanted above the waveform
    head = HEAD if any(line.time for line in lines) else HEAD / 2
    height = head + WAVE + LINE * len(rows) + FOOT + NOTE
    with drawing([title, found.sound.name, found.note, *names]) as figure:
        figure.set_size_inches(WIDTH, height)
        width = WIDTH - LEFT - RIGHT
        wave = figure.add_axes((LEFT / WIDTH, 1 - (head + WAVE) / height, width / WIDTH, WAVE / height))
        heat = figure.add_axes(
            (LEFT / WIDTH, (FOOT + NOTE) / height, width / WIDTH, LINE * len(rows) / height), sharex=wave
        )
        _draw_wave(wave, found)
        mesh = _draw_heat(heat, found, rows, names)
        _draw_times(wave, heat, found)
        _draw_scale(figure, heat, mesh, height)
        figure.text(0.02, 1 - 0.17 / height, title, fontsize=9.5, fontweight="bold", va="center")
        told = f"{printable(found.sound.name)} · {found.sound.seconds:.2f} s · " + " · ".join(notes)
        figure.text(0.02, 1 - 0.37 / height, told, fontsize=7.5, color=FAINT, va="center")
        if found.note and lines:
            figure.text(0.02, 0.1 / height, found.note, fontsize=7, color=FAINT, va="center")
        save(figure, path)
    return figure


def _draw_wave(axes: "Axes", found: Heard) -> None:
    values, rate = samples(found.sound)
    edges = np.linspace(0, len(values), min(PARTS, len(values)) + 1).astype(int)[:-1]
    high, low = np.maximum.reduceat(values, edges), np.minimum.reduceat(values, edges)
    axes.fill_between(edges / rate, low, high, color=WAVE_COLOUR, linewidth=0.3)
    most = max(float(np.abs(values).max()), 1e-6)
    axes.set_ylim(-1.05 * most, 1.05 * most)
    axes.set_xlim(0, found.sound.seconds)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)


def _draw_heat(axes: "Axes", found: Heard, rows: np.ndarray, names: list[str]) -> Any:
    # a frame's colour is its weight, over all of the seconds that it stands for
    edges = np.append(found.starts, found.ends[-1])
    mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1), rows, cmap="Blues", vmin=0, rasterized=True)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(rows)) + 0.5, names, fontsize=7.5)
    axes.tick_params(length=0, labelsize=7.5)
    axes.set_xlabel("seconds", fontsize=8)
    axes.spines[:].set_visible(False)
    return mesh


def _draw_times(wave: "Axes", heat: "Axes", found: Heard) -> None:
    from matplotlib.patches import Rectangle

    last = -np.inf
    for place, line in enumerate(found.lines):
        if line.time is None:
            continue
        start, end = line.time.start, line.time.end
        wave.axvline(start, color=MARK, linewidth=0.6, alpha=0.8)
        heat.add_patch(
            Rectangle((start, place), end - start, 1, fill=False, edgecolor=MARK, linewidth=0.8, clip_on=False)
        )
        # a name for each word that has room for it
        if (start - last) / found.sound.seconds > 0.012:
            name = shorten(printable(line.text), LONGEST_WORD)
            wave.text(
                start, 1.03, name, transform=wave.get_xaxis_transform(), fontsize=6.5, rotation=45, color=INK,
                ha="left", va="bottom", rotation_mode="anchor",
            )  # fmt: skip
            last = start


def _draw_scale(figure: "Figure", heat: "Axes", mesh: Any, height: float) -> None:
    box = heat.get_position()
    tall = min(box.height, 1.6 / height)
    place = (box.x1 + 0.12 / WIDTH, box.y1 - tall, BAR / WIDTH, tall)
    bar = figure.colorbar(mesh, cax=figure.add_axes(place))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    most = mesh.get_clim()[1]
    ticks = [0, most] if tall * height < 0.5 else [0, most / 2, most]
    bar.set_ticks(ticks, labels=["0", *(percent(tick) for tick in ticks[1:])])
    bar.ax.tick_params(length=0, labelsize=6.5, labelcolor=FAINT)
    bar.ax.set_ylabel("weight of a frame", fontsize=6.5, color=FAINT)
