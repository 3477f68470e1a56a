"""Length-bucketed batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.bucketing import batches
from regard.errors import RegardError

LENGTHS = st.lists(st.tuples(st.integers(2, 40), st.integers(2, 40)), min_size=1, max_size=200)


def columns(rows):
    return tuple(np.array(rows).T)


@given(LENGTHS, st.integers(40, 300), st.integers(0, 5))
def test_every_pair_is_in_one_batch_and_no_batch_is_too_large(rows, batch_tokens, epoch):
    source, target = columns(rows)
    made = batches(source, target, batch_tokens=batch_tokens, seed=1, epoch=epoch)
    assert sorted(np.concatenate(made)) == list(range(len(rows)))
    for batch in made:
        assert len(batch) * max(source[batch].max(), target[batch].max()) <= batch_tokens


def test_no_batch_has_room_for_the_next_row():
    source = target = np.full(100, 7)
    sizes = sorted(map(len, batches(source, target, batch_tokens=64, seed=0, epoch=0)))
    # 64 tokens hold nine rows of seven; 100 rows are eleven such batches and one row
    assert sizes == [1, *[9] * 11]


def test_order_and_composition_depend_on_seed_and_epoch_alone():
    source, target = np.random.default_rng(0).integers(2, 30, (2, 500))

    def made(**options):
        return [tuple(batch) for batch in batches(source, target, batch_tokens=200, **options)]

    first = made(seed=1, epoch=1)
    np.random.seed(5)
    assert first == made(seed=1, epoch=1)
    for other in (made(seed=1, epoch=2), made(seed=2, epoch=1)):
        assert first != other
        assert set(map(frozenset, first)) != set(map(frozenset, other))


def test_pairs_of_like_length_meet_and_the_batches_come_in_no_order():
    target = np.random.default_rng(0).integers(2, 60, 5000)
    made = batches(target, target, batch_tokens=600, seed=3, epoch=0)
    padded = sum(len(batch) * target[batch].max() for batch in made)
    assert target.sum() / padded > 0.95
    longest = [target[batch].max() for batch in made]
    assert longest != sorted(longest)
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3


def test_a_pair_larger_than_a_batch_is_refused_by_its_index():
    with pytest.raises(RegardError, match="pair 1 has 50 tokens, more than a batch of 32"):
        batches(np.array([5, 50]), np.array([5, 6]), batch_tokens=32, seed=0, epoch=0)


def test_nothing_makes_no_batches():
    assert batches(np.array([], dtype=int), np.array([], dtype=int), batch_tokens=32, seed=0, epoch=0) == []
