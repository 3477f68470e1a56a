"""The paired bootstrap finds a difference where there is one, as sacrebleu's tests do, and none where there is none."""

import logging
import math
import random

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from regard.errors import RegardError
from regard.evaluation.quality import evaluate_translations
from regard.evaluation.significance import paired_bootstrap

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", ",", "house", "quickly", "was", "very", "old", ".", "red", "42"]


def systems(count, *shares):
    """References, and for each share of words changed a system's translations."""
    rng = random.Random(7)
    references = [rng.choices(WORDS, k=rng.randint(4, 14)) for _ in range(count)]
    changed = [
        [[rng.choice(WORDS) if rng.random() < share else word for word in words] for words in references]
        for share in shares
    ]
    return [[" ".join(words) for words in each] for each in (references, *changed)]


def test_differences_are_those_of_the_scores_and_lie_in_their_intervals():
    references, worse, better = systems(60, 0.4, 0.2)
    found = paired_bootstrap(worse, better, references)
    scores = [evaluate_translations(references, each, references, num_resamples=2) for each in (worse, better)]
    for metric, difference in found.items():
        before, after = (getattr(score, metric) for score in scores)
        assert difference.difference == pytest.approx(after - before)
        assert difference.low <= difference.difference <= difference.high
    mirrored = paired_bootstrap(better, worse, references)
    for metric, difference in found.items():
        assert mirrored[metric].difference == pytest.approx(-difference.difference)
        assert mirrored[metric].p_value == difference.p_value


@pytest.mark.parametrize("shares", [(0.3, 0.31), (0.3, 0.27), (0.3, 0.2)], ids=str)
def test_p_values_are_near_those_of_sacrebleus_approximate_randomisation(shares, caplog):
    """Another two-sided test of the same hypothesis."""
    references, baseline, other = systems(150, *shares)
    with caplog.at_level(logging.ERROR, "sacrebleu"):
        _, scores = PairedTest(
            [("baseline", baseline), ("other", other)],
            {"bleu": BLEU(references=[references]), "chrf": CHRF(references=[references])},
            references=None,
            test_type="ar",
            n_samples=1000,
        )()
    found = paired_bootstrap(baseline, other, references)
    for metric, name in (("bleu", "BLEU"), ("chrf", "chrF2")):
        theirs = scores[name][1].p_value
        assert found[metric].p_value == pytest.approx(theirs, abs=0.05)


def test_the_p_value_of_exact_matches_is_that_of_a_normal_deviate():
    """Sentences that one system alone has right, of 400: the standard error of their difference is known."""
    references = [f"sentence {index}" for index in range(400)]
    for wins, losses in ((30, 20), (30, 10), (24, 20)):
        ours = [text if index < wins else "" for index, text in enumerate(references)]
        baseline = [text if wins <= index < wins + losses else "" for index, text in enumerate(references)]
        (exact,) = (paired_bootstrap(baseline, ours, references, num_resamples=4000)["exact"],)
        mean = (wins - losses) / 400
        error = math.sqrt((wins + losses) / 400 - mean**2) / 20
        assert exact.difference == pytest.approx(mean)
        assert exact.p_value == pytest.approx(math.erfc(abs(mean) / error / math.sqrt(2)), abs=0.04)


def test_a_system_does_not_differ_from_itself():
    references, own = systems(40, 0.3)
    for difference in paired_bootstrap(own, own, references).values():
        assert (difference.difference, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)


def test_lists_that_do_not_belong_together_are_told():
    with pytest.raises(RegardError, match="2 baseline translations, 1 translations, 2 references"):
        paired_bootstrap(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(RegardError, match="no sentences to evaluate"):
        paired_bootstrap([], [], [])
