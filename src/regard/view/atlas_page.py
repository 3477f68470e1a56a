"""An atlas as one HTML file: a map of all heads, and of each what it does, with intervals and examples."""

from typing import Any

import numpy as np

from regard.reading.atlas import Atlas
from regard.reading.atlas_difference import AtlasDifference
from regard.reading.measures import MEASURES
from regard.view.html import page

ATLAS = "regard-atlas-1"
# measures of a head whose examples the page has
MOST = 2


def atlas_html(atlas: Atlas, lang: str | None = None, *, difference: AtlasDifference | None = None) -> str:
    """The whole file; with a `difference` whose `after` the atlas is, the map shows changes too."""
    return page(f"Atlas of {atlas.model}", document(atlas, difference), {}, lang=lang)


def document(atlas: Atlas, difference: AtlasDifference | None = None) -> dict[str, Any]:
    """What the page shows, as JSON holds it."""
    found: dict[str, Any] = {
        "format": ATLAS,
        **atlas.facts(),
        "refused": [{"layer": layer, "why": why} for layer, why in atlas.refused.items()],
        "layers": atlas.layers,
        "heads": atlas.tally.heads,
        "roles": atlas.roles(),
        "measures": {name: _measure(atlas, name, difference) for name in MEASURES},
        "examples": _examples(atlas),
    }
    if (effects := atlas.effects) is not None:
        found["effects"] = {"texts": len(effects.values), "mean": _numbers(effects.mean)}
    if difference is not None and difference.has_same_shape:
        found["before"] = {"model": difference.before.model, "paired": difference.is_paired}
    return found


def _measure(atlas: Atlas, name: str, difference: AtlasDifference | None) -> dict[str, Any]:
    measure = MEASURES[name]
    low, high = atlas.interval(name)
    facts = {
        each: getattr(measure, each)
        for each in ("label", "label_zh", "meaning", "source", "unit", "role", "role_zh", "shown_by")
    }
    tables = {"mean": atlas.mean(name), "low": low, "high": high}
    tables |= {f"q{percent}": atlas.quantile(name, percent / 100) for percent in (10, 50, 90)}
    if difference is not None and difference.has_same_shape:
        low, high = difference.interval(name)
        tables |= {"change": difference.change(name), "change_low": low, "change_high": high}
    chance = [None if np.isnan(each) else round(float(each), 5) for each in atlas.chance(name)]
    return {**facts, "chance": chance, **{each: _numbers(table) for each, table in tables.items()}}


def _examples(atlas: Atlas) -> dict[str, Any]:
    """Of each head, by its measures, those first of which it has most: two of them with examples."""
    found = {}
    for layer, count in zip(atlas.layers, atlas.tally.heads, strict=True):
        for head in range(count):
            found[f"{layer}.{head}"] = [
                {
                    "measure": name,
                    "rows": [
                        {"id": each.id, "text": each.text, "row": each.row, "keys": each.keys, "value": each.value}
                        for each in atlas.examples(layer, head, name)
                    ],
                }
                for name in atlas.nearest(layer, head)[:MOST]
            ]
    return found


def _numbers(table: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(each) else round(float(each), 5) for each in row] for row in table]
