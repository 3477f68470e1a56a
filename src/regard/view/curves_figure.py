"""Deletion and insertion curves as a picture: what an answer loses as passages go, and gains as they come."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regard.reading.source_curves import RemovalCurves
from regard.view.figure import FAINT, check_path, drawing, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR = "#D55E00"


def plot_curves(curves: RemovalCurves, path: str | Path | None = None) -> "Figure":
    """Draw both curves as .png, .svg or .pdf; bands are the range of random orders. Raises RegardError as `save`."""
    path = check_path(path)
    with drawing([]) as figure:
        figure.set_size_inches(7.2, 3.1)
        deletion, insertion = figure.subplots(1, 2, sharey=True)
        _draw(deletion, curves.removed, curves.deletion, curves.random_deletion)
        deletion.set_xlabel("passages removed, the strongest first")
        deletion.set_ylabel("log p of the answer, nats")
        deletion.set_title("deletion", loc="left", fontsize=10, fontweight="bold")
        _draw(insertion, curves.kept, curves.insertion, curves.random_insertion)
        insertion.set_xlabel("passages kept, the strongest first")
        insertion.set_title("insertion", loc="left", fontsize=10, fontweight="bold")
        figure.tight_layout(rect=(0, 0, 1, 0.94))
        figure.legend(*insertion.get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper right", ncols=2)
        save(figure, path)
    return figure


def _draw(axes: "Axes", counts: np.ndarray, ranked: np.ndarray, orders: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.fill_between(counts, orders.min(0), orders.max(0), color="#DDDDDD", linewidth=0)
    axes.plot(counts, orders.mean(0), color=FAINT, linestyle="--", label=f"{len(orders)} random orders, mean and range")
    axes.plot(counts, ranked, color=COLOUR, marker="o", markersize=3.5, label="this ranking")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
