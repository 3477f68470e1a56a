"""How good translations are, overall and by source length, each figure with its interval.

By length because that is where a fixed-size hidden state fails: Bahdanau, Cho and Bengio 2015,
figure 2.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from regard.data.words import counts_characters, length
from regard.errors import RegardError
from regard.evaluation.alignment import ChosenHead, HeadScores
from regard.evaluation.bootstrap import figure, intervals
from regard.evaluation.counts import bleu, bleu_counts, chrf, chrf_counts, signature, tokenizer_for

# columns of a sentence's counts; what follows is chrF's
EXACT, BLEU_COLUMNS, FIRST_CHRF_COLUMN = 0, slice(1, 12), 12
METRICS = ("bleu", "chrf", "exact")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a set of sentences, each with the ends of its 95 % bootstrap interval.

    BLEU and chrF go from 0 to 100; `exact` is the share of translations equal to their reference. BLEU is None where it
    is undefined: where no sentence, written or expected, has the four tokens that it needs.
    Where every sentence fares alike the interval has no width, however few they are: read it
    beside `count`. `perplexity` is per target token, or None where no log-probabilities were given.
    """

    count: int
    bleu: float | None
    bleu_low: float | None
    bleu_high: float | None
    chrf: float
    chrf_low: float
    chrf_high: float
    exact: float
    exact_low: float
    exact_high: float
    perplexity: float | None


@dataclass(frozen=True, kw_only=True)
class LengthBin(Scores):
    """Scores of the sentences whose source has `low` to `high` words or characters, both included."""

    low: int
    high: int

    def to_json(self) -> dict:
        values = dataclasses.asdict(self)
        return {"from": values.pop("low"), "to": values.pop("high"), **values}


@dataclass(frozen=True, kw_only=True)
class Quality(Scores):
    """Scores of a whole test set and of its parts by source length; empty parts are left out.

    `length_unit` is `words`, or `characters` where the sources are written without spaces. `aer` and what stands beside
    it are those of `AlignmentQuality`, or None where there are no gold links or the model has no attention.
    """

    signature: str
    length_unit: str
    by_length: list[LengthBin]
    aer: float | None = None
    aer_low: float | None = None
    aer_high: float | None = None
    aer_precision: float | None = None
    aer_recall: float | None = None
    aer_head: ChosenHead | None = None
    aer_by_head: list[HeadScores] | None = None

    def to_json(self) -> dict:
        return {**dataclasses.asdict(self), "by_length": [part.to_json() for part in self.by_length]}


def evaluate_translations(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    log_probs: Sequence[float] | None = None,
    token_counts: Sequence[int] | None = None,
    bin_size: int = 5,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Quality:
    """Score translations against one reference each.

    `log_probs` holds each reference's natural log-probability under the model, `token_counts` its
    number of tokens, both with the end of sentence. The same seed gives the same intervals.
    Raises RegardError for lists that are empty or of unequal length, and for figures out of range.
    """
    check_lists({"sources": sources, "hypotheses": hypotheses, "references": references})
    _check_at_least_one({"bin_size": bin_size, "num_resamples": num_resamples})
    tokens = _tokens(log_probs, token_counts, count=len(sources))
    tokenizer = tokenizer_for(references)
    counts = sentence_counts(hypotheses, references, tokenizer=tokenizer)
    characters = counts_characters(sources)
    bins = np.array([math.ceil(length(source, characters) / bin_size) for source in sources])
    by_length = []
    for index in np.unique(bins):
        chosen, high = bins == index, int(index) * bin_size
        part = None if tokens is None else tokens[chosen]
        # a seed of its own keeps a part's interval the same whatever other parts there are
        scores = _scores(counts[chosen], part, num_resamples=num_resamples, seed=[seed, high])
        # an empty source has a part to itself, from 0 to 0
        by_length.append(LengthBin(low=max(high - bin_size + 1, 0), high=high, **scores))
    return Quality(
        signature=signature(references, tokenizer=tokenizer),
        length_unit="characters" if characters else "words",
        by_length=by_length,
        **_scores(counts, tokens, num_resamples=num_resamples, seed=[seed]),
    )


def sentence_counts(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenizer: str
) -> Float[np.ndarray, "sentence count"]:
    """What the scores of any set of these sentences follow from, by `scores_of` of its sums."""
    is_exact = [
        hypothesis.strip() == reference.strip() for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    return np.column_stack(
        [is_exact, bleu_counts(hypotheses, references, tokenizer=tokenizer), chrf_counts(hypotheses, references)]
    )


def scores_of(sums: Float[np.ndarray, "set count"], num_sentences: int) -> Float[np.ndarray, "set 3"]:
    """BLEU, chrF and the share of exact matches, the METRICS, of sets of `num_sentences` each."""
    exact = sums[:, EXACT] / num_sentences
    return np.column_stack([bleu(sums[:, BLEU_COLUMNS]), chrf(sums[:, FIRST_CHRF_COLUMN:]), exact])


def _scores(
    counts: Float[np.ndarray, "sentence count"],
    tokens: Float[np.ndarray, "sentence 2"] | None,
    *,
    num_resamples: int,
    seed: Sequence[int],
) -> dict:
    num_sentences = len(counts)
    score = partial(scores_of, num_sentences=num_sentences)
    (values,) = score(counts.sum(axis=0, keepdims=True))
    low, high = intervals(counts, score, num_resamples=num_resamples, seed=seed)
    scores: dict = {"count": num_sentences, "perplexity": None if tokens is None else _perplexity(tokens)}
    for index, name in enumerate(METRICS):
        ends = {name: values[index], f"{name}_low": low[index], f"{name}_high": high[index]}
        scores |= {key: figure(value) for key, value in ends.items()}
    return scores


def _perplexity(tokens: Float[np.ndarray, "sentence 2"]) -> float:
    log_prob, count = tokens.sum(axis=0)
    try:
        return math.exp(-log_prob / count)
    except OverflowError:
        raise RegardError(
            f"log_probs average {log_prob / count:.4g} a token, too unlikely to state as a perplexity; "
            "they should be natural logarithms"
        ) from None


def check_lists(lists: dict[str, Sequence[str]]) -> None:
    """Raises RegardError for lists that are empty or of unequal length."""
    sizes = {name: len(values) for name, values in lists.items()}
    told = ", ".join(f"{size} {name}" for name, size in sizes.items())
    if len(set(sizes.values())) > 1:
        raise RegardError(f"there are {told}; give one hypothesis and one reference for each source")
    if not all(sizes.values()):
        raise RegardError("there are no sentences to evaluate; give at least one")


def _check_at_least_one(numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise RegardError(f"{name} must be at least 1, not {number}")


def _tokens(
    log_probs: Sequence[float] | None, token_counts: Sequence[int] | None, *, count: int
) -> Float[np.ndarray, "sentence 2"] | None:
    if log_probs is None and token_counts is None:
        return None
    if log_probs is None or token_counts is None:
        raise RegardError("perplexity needs both log_probs and token_counts; give both or neither")
    for name, values in (("log_probs", log_probs), ("token_counts", token_counts)):
        if len(values) != count:
            raise RegardError(f"there are {len(values)} {name} for {count} sentences; give one for each")
    for index, (log_prob, num_tokens) in enumerate(zip(log_probs, token_counts, strict=True)):
        if not math.isfinite(log_prob):
            raise RegardError(f"log_probs[{index}] is {log_prob}; it must be a finite number")
        if num_tokens < 1:
            raise RegardError(f"token_counts[{index}] is {num_tokens}; the end of sentence alone makes it at least 1")
    return np.column_stack([log_probs, token_counts]).astype(float)
