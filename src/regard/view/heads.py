"""What tells the heads of a reading apart: one number for each, by layer."""

import numpy as np
from jaxtyping import Float

from regard.reading.compute.statistics import STATISTICS
from regard.reading.measures import MEASURES
from regard.reading.reading import Reading

# of heads alone, beside the statistics
LABELS = {"strongest": "strongest weight", "concentration": "received by one token"}


def by_head(reading: Reading, kind: str) -> dict[str, list[Float[np.ndarray, " head"]]]:
    """By the name of a statistic and layer one number a head: the mean over all queries, or else over the kept rows.

    Of weights: `strongest`, each row's largest; `entropy` in nats; `first_token` and, in tokens, `distance` where a
    text looks at itself. Then every statistic that was read and has one number for each query or key of a head, and
    those of rows and keys, summed over keys. Of what was received `concentration`, the part that went to one key. NaN
    where there is no number.
    """
    found: dict[str, list[np.ndarray]] = {}
    positions = np.array(reading.rows(kind))
    is_within = reading.sides[kind][0] == reading.sides[kind][1]
    for number in reading.layers(kind):
        weights = reading.weights(kind, number)
        own = {"strongest": weights.max(axis=2), "entropy": _entropy(weights)}
        if is_within:
            away = np.abs(positions[:, None] - np.arange(weights.shape[2])).astype(np.float32)
            own |= {"first_token": weights[:, :, 0], "distance": np.einsum("hrk,rk->hr", weights, away)}
        known = reading.statistics.get((kind, number), {})
        # every query gives 1 to "received", so that its mean says nothing
        for name in (name for name in STATISTICS if name in known and name != "received"):
            if has_one_number(name):
                own[name] = known[name]
            elif STATISTICS[name].axes == ("head", "row", "key"):
                own[name] = known[name].sum(axis=2)
        numbers = {name: _means(table) for name, table in own.items()}
        if "received" in known:
            numbers["concentration"] = (known["received"] / known["received"].sum(axis=1, keepdims=True)).max(axis=1)
        for name, row in numbers.items():
            found.setdefault(name, []).append(row)
    # a layer may lack what others have
    return {name: table for name, table in found.items() if len(table) == len(reading.layers(kind))}


def has_one_number(name: str) -> bool:
    """Whether a statistic has one number for each query, row or key of a head."""
    return name in STATISTICS and STATISTICS[name].axes[:1] == ("head",) and len(STATISTICS[name].axes) == 2


def label(name: str) -> str:
    """What a picture calls a number of heads, with its unit."""
    if name not in STATISTICS:
        return LABELS.get(name, name)
    unit = STATISTICS[name].unit
    return f"{STATISTICS[name].label}, {unit}" if unit not in ("", "share") else STATISTICS[name].label


def measure_label(name: str) -> str:
    """What a picture calls a measure of an atlas, with its unit."""
    measure = MEASURES[name]
    return f"{measure.label}, {measure.unit}" if measure.unit != "share" else measure.label


def _means(table: np.ndarray) -> np.ndarray:
    counted = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return np.where(counted, table, 0).sum(axis=1, dtype=np.float64) / counted.sum(axis=1)


def _entropy(weights: Float[np.ndarray, "head row key"]) -> Float[np.ndarray, "head row"]:
    return -(weights * np.log(np.maximum(weights, np.finfo(np.float32).tiny))).sum(axis=2)
