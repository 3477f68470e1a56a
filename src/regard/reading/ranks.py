"""Whether two measures put the same things first."""

import numpy as np
from jaxtyping import Float


def rank_correlation(first: Float[np.ndarray, " value"], second: Float[np.ndarray, " value"]) -> float:
    """Spearman's ρ, ties at their mean rank; NaN where all values of a side are equal. Spearman 1904."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    scale = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float(ranks[0] @ ranks[1] / scale) if scale else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[place]
