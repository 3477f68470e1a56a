"""What tells the heads of a reading apart: one number for each, by layer."""

import numpy as np
from jaxtyping import Float

from regard.reading.record import Reading

QUERY_STATISTICS = (
    "entropy",
    "distance",
    "first_token",
    "previous_token",
    "induction",
    "duplicate_token",
    "received",
    "sink_share",
)


def by_head(reading: Reading, kind: str) -> dict[str, list[Float[np.ndarray, " head"]]]:
    """By the name of a statistic and layer the mean over all queries, or else over the kept rows.

    Of weights: `strongest`, each row's largest; `entropy` in nats; `first_token` and, in tokens, `distance` where a
    text looks at itself. Those of `QUERY_STATISTICS` that were read, and `concentration`, the part of all that was
    received which went to one key. NaN where there is no number.
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
        own |= {name: known[name] for name in QUERY_STATISTICS if name in known and name != "received"}
        numbers = {name: _means(table) for name, table in own.items()}
        if "received" in known:
            numbers["concentration"] = (known["received"] / known["received"].sum(axis=1, keepdims=True)).max(axis=1)
        for name, row in numbers.items():
            found.setdefault(name, []).append(row)
    # a layer may lack what others have
    return {name: table for name, table in found.items() if len(table) == len(reading.layers(kind))}


def _means(table: np.ndarray) -> np.ndarray:
    counted = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return np.where(counted, table, 0).sum(axis=1, dtype=np.float64) / counted.sum(axis=1)


def _entropy(weights: Float[np.ndarray, "head row key"]) -> Float[np.ndarray, "head row"]:
    return -(weights * np.log(np.maximum(weights, np.finfo(np.float32).tiny))).sum(axis=2)
