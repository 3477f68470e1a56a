"""Selecting from a cache keeps, for each hypothesis, its own past and its own sentence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.cache import Cache


def labelled(batch_size, num_beams):
    """A cache whose numbers say of which sentence and which beam they are."""
    names = torch.cartesian_prod(torch.arange(batch_size), torch.arange(num_beams))
    return Cache(
        source=[torch.arange(batch_size), torch.arange(batch_size)[:, None, None].expand(-1, 2, 3)],
        hypotheses=[names, names[:, None].repeat(1, 4, 1)],
        batch_size=batch_size,
    )


@st.composite
def selections(draw):
    batch_size, num_beams = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    sentences = sorted(draw(st.sets(st.integers(0, batch_size - 1))))
    width = draw(st.integers(1, 5))
    beams = [draw(st.lists(st.integers(0, num_beams - 1), min_size=width, max_size=width)) for _ in sentences]
    return batch_size, num_beams, sentences, torch.tensor(beams, dtype=torch.int64).reshape(len(sentences), width)


@given(selections())
def test_every_hypothesis_keeps_its_own_past_and_sentence(selection):
    batch_size, num_beams, sentences, beams = selection
    cache = labelled(batch_size, num_beams)
    cache.select(torch.tensor(sentences, dtype=torch.int64), beams)
    expected = [[sentence, beam] for sentence, row in zip(sentences, beams.tolist(), strict=True) for beam in row]
    assert cache.hypotheses[0].tolist() == expected
    assert cache.hypotheses[1].tolist() == [[pair] * 4 for pair in expected]
    assert cache.source[0].tolist() == sentences
    assert cache.source[1].tolist() == [[[sentence] * 3] * 2 for sentence in sentences]
    assert cache.batch_size == len(sentences)


def test_a_second_selection_counts_from_the_first():
    cache = labelled(3, 2)
    cache.select(torch.tensor([0, 2]), torch.tensor([[1, 1, 0], [0, 1, 1]]))
    cache.select(torch.tensor([1]), torch.tensor([[2, 0]]))
    assert cache.hypotheses[0].tolist() == [[2, 1], [2, 0]]
    assert cache.source[0].tolist() == [2]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_while_every_sentence_goes_on_no_copy_is_made_of_its_source(num_beams):
    cache = labelled(2, num_beams)
    before = cache.source[0].data_ptr()
    cache.select(torch.arange(2), torch.zeros(2, 4, dtype=torch.int64))
    assert cache.source[0].data_ptr() == before
