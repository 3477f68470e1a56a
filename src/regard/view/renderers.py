"""The pictures a reading can be saved as."""

from pathlib import Path

from regard.reading.reading import RENDERERS, Reading
from regard.view.plots import plot_alignment


def register() -> None:
    """Make pictures of the formats that `Reading.save` knows."""
    RENDERERS.update(dict.fromkeys((".png", ".svg", ".pdf"), draw))


def draw(reading: Reading, path: Path, *, layer: int = -1, head: int | None = None) -> None:
    """The alignment of one cross layer, by default the last, and one head, by default the mean of all."""
    weights = reading.alignment(layer=layer, head=head)
    plot_alignment(weights, reading.sequences["source"].words, reading.sequences["target"].words, path)
