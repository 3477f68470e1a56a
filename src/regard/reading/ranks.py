"""Whether two measures put the same things first, such as weights and effects."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.tables import Tables


def rank_correlation(first: Float[np.ndarray, " value"], second: Float[np.ndarray, " value"]) -> float:
    """Spearman's ρ, ties at their mean rank; NaN where all values of a side are equal. Spearman 1904."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    scale = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float(ranks[0] @ ranks[1] / scale) if scale else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[place]


def agreement(reading: Tables, rows: Sequence[int], kind: str) -> dict[str, float]:
    """What `Reading.agreement` gives: ρ between measures of single tokens and their effects, the mean over rows."""
    measures: dict[str, list[float]] = {}
    for row in rows:
        if row < 2:
            raise RegardError(f"row {row} sees {row + 1} tokens, too few to be ranked")
        lost = -reading.effects(row, ((token, token + 1) for token in range(row + 1)))
        place = reading.rows(kind).index(row)
        tables = {"weights": [reading.weights(kind, layer)[:, place] for layer in reading.layers(kind)]}
        for name in ("value_norm", "output_norm"):
            found = [reading.statistics.get((kind, layer), {}).get(name) for layer in reading.layers(kind)]
            tables |= {name: [table[:, place] for table in found if table is not None]}
        for name, table in tables.items():
            if table:
                ranked = np.concatenate(table).mean(axis=0)[: row + 1]
                measures.setdefault(name, []).append(rank_correlation(ranked, lost))
    return {name: float(np.nanmean(values)) for name, values in measures.items()}
