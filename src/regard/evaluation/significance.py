"""Whether one system translates better than another, or chance alone may have made it look so.

Paired bootstrap resampling: Koehn 2004, "Statistical significance tests for machine translation evaluation", section 4.
The test is two-sided, as in Efron and Tibshirani 1993, "An introduction to the bootstrap", section 16.4: how often
resampled differences lie as far from the measured one as that lies from zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regard.evaluation.bootstrap import ends, figure, resampled
from regard.evaluation.counts import tokenizer_for
from regard.evaluation.quality import METRICS, check_lists, scores_of, sentence_counts


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a score lies above the baseline's, with the ends of its 95 % interval, and its p-value.

    BLEU and chrF in points, `exact` as a share. The p-value is how probable so large a difference, in either direction,
    would be of systems that are equally good. All are None where the score of either is undefined.
    """

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


def paired_bootstrap(
    baseline: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """How two systems' translations of the same sentences differ, by metric: bleu, chrf and exact.

    Both are scored on the same resamples. Raises RegardError for lists that are empty or of unequal length.
    """
    check_lists({"baseline translations": baseline, "translations": hypotheses, "references": references})
    tokenizer = tokenizer_for(references)
    counts = [sentence_counts(each, references, tokenizer=tokenizer) for each in (baseline, hypotheses)]
    both, count = np.hstack(counts), len(references)

    def differences(sums: np.ndarray) -> np.ndarray:
        before, after = np.hsplit(sums, 2)
        return scores_of(after, count) - scores_of(before, count)

    (measured,) = differences(both.sum(axis=0, keepdims=True))
    found = differences(resampled(both, num_resamples=num_resamples, seed=[seed]))
    low, high = ends(found)
    # the measured one counts as one more, so that no difference is certain; rounding is no difference
    as_far = (np.abs(found - measured) >= np.abs(measured) - 1e-9).sum(axis=0)
    defined = np.isfinite(found).sum(axis=0)
    p_values = np.where(np.isfinite(measured), (as_far + 1) / (defined + 1), np.nan)
    low, high = (np.where(np.isfinite(measured), end, np.nan) for end in (low, high))
    found = zip(*(map(figure, map(float, each)) for each in (measured, low, high, p_values)), strict=True)
    return {
        name: Difference(difference=difference, low=first, high=last, p_value=p_value)
        for name, (difference, first, last, p_value) in zip(METRICS, found, strict=True)
    }
