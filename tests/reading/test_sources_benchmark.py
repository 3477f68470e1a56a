"""The benchmark of sources: its own arithmetic."""

import numpy as np
import pytest
from benchmarks.pages import STYLES, facts, other_value
from benchmarks.source_ranking import contextcite, metrics, spearman
from benchmarks.source_verdicts import wilson

from regard.reading.segments import sentences


@pytest.mark.parametrize("style", STYLES)
def test_a_page_is_split_into_the_sentences_that_it_was_made_of(style: str) -> None:
    page = STYLES[style]("test", 30, 0)
    text = page.prompt.replace(page.question, "").strip()
    starts = sentences(text)
    assert [text[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)] == list(
        page.sentences
    )


def test_a_changed_page_differs_in_the_sentence_that_answers_alone() -> None:
    page = facts("test", 10)
    changed = page.changed(other_value(page))
    different = [number for number in range(10) if page.sentences[number] != changed.sentences[number]]
    assert different == [page.target]
    assert page.value not in changed.sentences[different[0]]


def test_contextcite_finds_the_passage_that_alone_counts_and_leaves_others_at_0() -> None:
    kept = (np.random.default_rng(0).random((64, 6)) < 0.5).astype(float)
    found = contextcite(kept, -20.0 + 8.0 * kept[:, 2], 4)
    assert found.argmin() == 2
    # the penalty takes a little of it
    assert -8.0 < found[2] < -7.5
    assert np.count_nonzero(found) == 1


def test_strengths_that_are_the_truth_of_a_sum_have_the_best_metrics() -> None:
    effects = np.array([-3.0, 0.5, -1.0])
    kept = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float)
    assert metrics(effects, effects, kept, kept @ -effects) == pytest.approx(
        {"first": 1.0, "share": 1.0, "spearman": 1.0, "lds": 1.0}
    )
    assert metrics(np.array([0.0, 0.0, -1.0]), effects, kept, kept @ -effects)["share"] == pytest.approx(1 / 3)


def test_equal_values_share_a_rank_and_no_spread_has_no_correlation() -> None:
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([5.0, 5.0, 9.0])) == pytest.approx(1.0)
    assert spearman(np.zeros(3), np.arange(3.0)) == 0.0


def test_a_rate_of_none_or_all_still_has_an_interval() -> None:
    # Wilson's limit for none of n: z² / (n + z²)
    assert wilson(0, 40) == pytest.approx((0.0, 1.96**2 / (40 + 1.96**2)))
    low, high = wilson(40, 40)
    assert (low, high) == pytest.approx((40 / (40 + 1.96**2), 1.0))
