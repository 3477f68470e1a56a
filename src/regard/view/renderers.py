"""The pictures and pages a reading can be saved as, and how a notebook shows it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regard.config import suggest
from regard.errors import RegardError
from regard.reading.atlas import Atlas
from regard.reading.reading import Reading
from regard.reading.views import RENDERERS, VIEWS
from regard.view.answer_figure import plot_answer
from regard.view.atlas_page import atlas_html
from regard.view.curves_figure import plot_curves
from regard.view.frame import frame
from regard.view.heads import by_head, label, measure_label
from regard.view.html import save_html, to_html
from regard.view.picture_figure import plot_pictures
from regard.view.pictures import has_pictures, looks
from regard.view.plots import plot_alignment, plot_heads
from regard.view.shares import shares
from regard.view.sources_figure import plot_sources
from regard.view.speech import has_sound, heard
from regard.view.speech_figure import plot_speech
from regard.view.summary import summary
from regard.view.widget import widget

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
# with what each cannot show
PLOTS = {
    "alignment": ("token",),
    "heads": ("layer", "head", "token"),
    "text": ("title",),
    "sources": ("layer", "head", "token", "title"),
    "image": (),
    "image grid": (),
    "speech": (),
}
# on a side of an alignment of tokens
MOST_TOKENS = 120


def register() -> None:
    """Make pictures and pages of the formats that `Reading.save` knows."""
    RENDERERS.update(dict.fromkeys(PICTURES, draw))
    RENDERERS[".html"] = save_html
    VIEWS.update({"atlas html": atlas_html, "atlas plot": plot_atlas})
    VIEWS.update(html=to_html, widget=widget, frame=frame, plot=plot, curves=plot_curves, summary=summary)


def plot_atlas(atlas: Atlas, measure: str, path: str | Path | None, *, title: str | None) -> "Figure":
    """What `Atlas.plot` gives."""
    rows = [row[:count] for row, count in zip(atlas.mean(measure), atlas.tally.heads, strict=True)]
    return plot_heads(rows, atlas.layers, path, name=measure_label(measure), title=title)


def draw(
    reading: Reading,
    path: Path,
    *,
    layer: int | None = None,
    head: int | None = None,
    token: str | None = None,
    segments: str = "sentences",
) -> None:
    """As `plot` draws where nothing else is asked for; `segments` are as in `shares`."""
    if has_pictures(reading):
        plot_pictures(looks(reading, token=token, layer=layer, head=head), path)
    elif has_sound(reading):
        plot_speech(heard(reading, token=token, layer=layer, head=head), path)
    elif "cross" in reading.kinds:
        _plot_alignment(reading, path, layer=layer, head=head)
    else:
        plot_answer(shares(reading, token=token, layer=layer, head=head, segments=segments), path)


def plot(
    reading: Reading,
    what: str | None,
    path: str | Path | None,
    *,
    kind: str | None,
    layer: int | None,
    head: int | None,
    token: str | None,
    statistic: str,
    title: str | None,
) -> "Figure":
    """What `Reading.plot` gives."""
    if not reading.kinds:
        raise RegardError("there is nothing to draw: no attention was read")
    usual = "alignment" if "cross" in reading.kinds else "text"
    what = what or ("image" if has_pictures(reading) else "speech" if has_sound(reading) else usual)
    if what not in PLOTS:
        raise RegardError(f"there is no picture {what!r}{suggest(what, PLOTS)}")
    if what in ("image", "image grid"):
        found = looks(reading, kind=kind, layer=layer, head=head, token=token)
        return plot_pictures(found, path, has_grid=what == "image grid", title=title)
    if what == "speech":
        found = heard(reading, kind=kind, layer=layer, head=head, token=token)
        return plot_speech(found, path, title=title)
    kind = kind or ("cross" if "cross" in reading.kinds else reading.kinds[0])
    if kind not in reading.kinds:
        raise RegardError(f"there is no {kind!r} attention here; there is {', '.join(reading.kinds)}")
    given = {"layer": layer, "head": head, "token": token, "title": title}
    useless = [name for name in PLOTS[what] if given[name] is not None]
    if useless:
        raise RegardError(f"a picture of {what!r} has no use for {useless[0]}; leave it out")
    if what == "heads":
        known = by_head(reading, kind)
        if statistic not in known:
            raise RegardError(
                f"heads have no {statistic!r} here{suggest(statistic, known)}; they have {', '.join(known)}"
            )
        return plot_heads(known[statistic], reading.layers(kind), path, name=label(statistic), title=title)
    if what == "sources":
        return plot_sources(reading.settings.get("sources") or reading.sources().to_json(), path)
    if what == "text":
        return plot_answer(shares(reading, token=token, layer=layer, head=head), path)
    if kind == "cross":
        return _plot_alignment(reading, path, layer=layer, head=head, title=title)
    layers = reading.layers(kind) if layer is None else [layer]
    weights = np.mean([reading.weights(kind, each) for each in layers], axis=0)
    if head is not None and not 0 <= head < len(weights):
        raise RegardError(f"there is no head {head}; there are heads 0 to {len(weights) - 1}")
    asking, asked = ([_shown(each.text) for each in reading.sequences[side].tokens] for side in reading.sides[kind])
    # the last token that was written looked at nothing and was not looked at
    asked = asked[: weights.shape[2]]
    if max(weights.shape[1:]) > MOST_TOKENS:
        raise RegardError(f"a picture of more than {MOST_TOKENS} tokens has no room for their names; draw 'text'")
    table = weights.mean(axis=0) if head is None else weights[head]
    return plot_alignment(table, asked, [asking[row] for row in reading.rows(kind)], path, title=title)


def _plot_alignment(
    reading: Reading, path: str | Path | None, *, layer: int | None, head: int | None, title: str | None = None
) -> "Figure":
    weights = reading.alignment(layer=-1 if layer is None else layer, head=head)
    source, target = (reading.sequences[side].words for side in ("source", "target"))
    return plot_alignment(weights, source, target, path, title=title)


def _shown(token: str) -> str:
    """A token as the name of a row, which spaces alone would leave empty."""
    return token.strip() or ("↵" if "\n" in token else "␣")
