"""An interval says how far a score would move had the test set held other sentences of its kind.

Koehn 2004, "Statistical significance tests for machine translation evaluation", section 3.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95


def intervals(
    counts: Float[np.ndarray, "sentence count"],
    score: Callable[[Float[np.ndarray, "resample count"]], Float[np.ndarray, "resample metric"]],
    *,
    num_resamples: int,
    seed: int | Sequence[int],
) -> tuple[Float[np.ndarray, " metric"], Float[np.ndarray, " metric"]]:
    """The 2.5th and 97.5th percentile of each metric over sentences drawn again with replacement.

    `score` turns the counts summed over each resample into metrics. The same seed draws the same
    sentences, so two models scored on one test set are compared on the same resamples. A resample on which a metric is
    undefined, NaN, has no part in its interval.
    """
    return ends(score(resampled(counts, num_resamples=num_resamples, seed=seed)))


def resampled(
    counts: Float[np.ndarray, "sentence count"], *, num_resamples: int, seed: int | Sequence[int]
) -> Float[np.ndarray, "resample count"]:
    """The counts summed over each resample of the sentences."""
    rng = np.random.default_rng(seed)
    num_sentences = len(counts)
    sums = np.empty((num_resamples, counts.shape[1]))
    for resample in sums:
        drawn = rng.integers(num_sentences, size=num_sentences)
        resample[:] = np.bincount(drawn, minlength=num_sentences) @ counts
    return sums


def ends(
    values: Float[np.ndarray, "resample metric"],
) -> tuple[Float[np.ndarray, " metric"], Float[np.ndarray, " metric"]]:
    """The 2.5th and 97.5th percentile of each metric."""
    outside = 100 * (1 - CONFIDENCE) / 2
    # a metric that no resample defines has no interval either, and numpy would warn
    undefined = np.isnan(values).all(axis=0)
    low, high = np.nanpercentile(np.where(undefined, 0.0, values), [outside, 100 - outside], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def figure(value: float) -> float | None:
    """A score as users hold it: None where it is undefined."""
    return None if math.isnan(value) else float(value)
