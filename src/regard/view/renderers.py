"""The pictures a reading can be saved as."""

from pathlib import Path

from regard.reading.reading import RENDERERS, Reading
from regard.view.plots import plot_alignment


def register() -> None:
    """Make pictures of the formats that `Reading.save` knows."""
    RENDERERS.update(dict.fromkeys((".png", ".svg", ".pdf"), draw))


def draw(reading: Reading, path: Path) -> None:
    """The alignment of the last cross layer, mean of its heads."""
    weights = reading.alignment()
    plot_alignment(weights, reading.sequences["source"].words, reading.sequences["target"].words, path)
