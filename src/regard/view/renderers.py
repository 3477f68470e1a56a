"""The pictures and pages a reading can be saved as, and how a notebook shows it."""

from pathlib import Path

from regard.reading.reading import RENDERERS, VIEWS, Reading
from regard.view.answer_figure import plot_answer
from regard.view.frame import frame
from regard.view.html import save_html, to_html
from regard.view.plots import plot_alignment
from regard.view.shares import shares
from regard.view.widget import widget

PICTURES = (".png", ".svg", ".pdf")


def register() -> None:
    """Make pictures and pages of the formats that `Reading.save` knows."""
    RENDERERS.update(dict.fromkeys(PICTURES, draw))
    RENDERERS[".html"] = save_html
    VIEWS.update(html=to_html, widget=widget, frame=frame)


def draw(
    reading: Reading,
    path: Path,
    *,
    layer: int | None = None,
    head: int | None = None,
    token: str | None = None,
    segments: str = "sentences",
) -> None:
    """Of a translation the alignment of one cross layer, by default the last; of any other text where its weight went.

    Of one head or the mean of all, and of a text by default of all layers. The rest is as in `shares`.
    """
    if "cross" in reading.kinds:
        weights = reading.alignment(layer=-1 if layer is None else layer, head=head)
        plot_alignment(weights, reading.sequences["source"].words, reading.sequences["target"].words, path)
    else:
        plot_answer(shares(reading, token=token, layer=layer, head=head, segments=segments), path)
