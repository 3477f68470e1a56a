import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch

from regard.data.hmm_alignment import HMM, stem

PAIRS = [([0, 1], [0, 1, 2]), ([1, 2, 0], [2, 0]), ([2], [3]), ([0, 2], [3, 0, 0])]


def enumerated(pairs, *, null, prior, model_1, hmm):
    """Expectation maximisation over every alignment there is: a state is a place and whether the word comes from it."""
    table = defaultdict(lambda: 1.0)
    jumps = defaultdict(lambda: 1.0)

    def posteriors(source, target):
        """Each alignment as [(place, is real)], with its share."""
        states = list(itertools.product(range(len(source)), (True, False)))
        weighed = {}
        for alignment in itertools.product(states, repeat=len(target)):
            chance, before = 1.0, -1
            for step, (place, real) in enumerate(alignment):
                # at the start the null word remembers any place, by the jump to it
                moves = real or step == 0
                if moves:
                    chance *= jumps[place - before] / sum(jumps[k - before] for k in range(len(source)))
                elif place != before:
                    chance = 0.0
                chance *= (1 - null) * table[source[place], target[step]] if real else null * table[None, target[step]]
                before = place
            weighed[alignment] = chance
        total = sum(weighed.values())
        return {alignment: chance / total for alignment, chance in weighed.items()}

    seen = {(word, other) for source, target in pairs for word in [None, *source] for other in target}
    for iteration in range(model_1 + hmm):
        counts, moved = defaultdict(float), defaultdict(float)
        for source, target in pairs:
            for alignment, share in posteriors(source, target).items():
                before = -1
                for step, (place, real) in enumerate(alignment):
                    counts[source[place] if real else None, target[step]] += share
                    if real:
                        moved[place - before] += share
                    before = place
        for word, other in seen:
            total = sum(counts[word, each] + prior for one, each in seen if one == word)
            count = counts[word, other] + prior
            table[word, other] = (
                count / total
                if not prior
                else float(torch.tensor([total, count], dtype=torch.float64).digamma().diff().exp())
            )
        if iteration >= model_1:
            jumps = defaultdict(float, {jump: count / sum(moved.values()) for jump, count in moved.items()})
    found = []
    for source, target in pairs:
        links = np.zeros((len(target), len(source)))
        for alignment, share in posteriors(source, target).items():
            for step, (place, real) in enumerate(alignment):
                links[step, place] += share * real
        found.append(links)
    return found


@pytest.mark.parametrize("prior", [0.0, 0.01])
@pytest.mark.parametrize(("model_1", "hmm"), [(0, 1), (2, 0), (2, 3)])
def test_posteriors_are_those_of_all_alignments_counted_one_by_one(model_1, hmm, prior):
    model = HMM.learn(PAIRS, model_1_iterations=model_1, hmm_iterations=hmm, null=0.2, prior=prior)
    expected = enumerated(PAIRS, null=0.2, prior=prior, model_1=model_1, hmm=hmm)
    for found, wanted in zip(model.posteriors(PAIRS), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-12)


def test_a_pair_has_the_same_posteriors_alone_and_in_a_batch():
    model = HMM.learn(PAIRS)
    for pair, together in zip(PAIRS, model.posteriors(PAIRS), strict=True):
        np.testing.assert_allclose(model.posteriors([pair])[0], together, rtol=1e-9)


def test_words_that_were_never_seen_and_empty_sides_get_numbers_all_the_same():
    model = HMM.learn([*PAIRS, ([], [1]), ([1], [])])
    unseen, no_source, no_target = model.posteriors([([7, 0], [9, 0]), ([], [1]), ([1], [])])
    assert unseen.shape == (2, 2)
    assert np.isfinite(unseen).all()
    assert no_source.shape == (1, 0)
    assert no_target.shape == (0, 1)
    assert HMM.learn([]).posteriors([([0], [0])])[0].shape == (1, 1)


@pytest.mark.parametrize(
    ("word", "expected"), [("Λόγου,", "λογο"), ("λόγον", "λογο"), ("God’s", "gods"), ("—", "—"), ("上帝", "上帝")]
)
def test_inflected_forms_have_one_stem(word, expected):
    assert stem(word) == expected
