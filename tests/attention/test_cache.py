"""Selecting from a cache keeps, for each hypothesis, its own past and its own sentence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.cache import Cache, Past
from regard.attention.multi_head import Memory


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


@st.composite
def walks(draw):
    """The size of a batch, and for each step which sentences stay and from which beams their hypotheses go on."""
    batch_size = left = draw(st.integers(1, 4))
    width, steps = 1, []
    for _ in range(draw(st.integers(1, 40))):
        sentences = (
            sorted(draw(st.sets(st.integers(0, left - 1), min_size=1))) if draw(st.booleans()) else [*range(left)]
        )
        wider = draw(st.integers(1, 4))
        beams = [draw(st.lists(st.integers(0, width - 1), min_size=wider, max_size=wider)) for _ in sentences]
        steps.append((sentences, beams))
        left, width = len(sentences), wider
    return batch_size, steps


@given(walks())
def test_a_past_shows_each_hypothesis_what_it_descends_from_and_nothing_else(walk):
    """Held against lists of which each hypothesis has its own."""
    batch_size, steps = walk
    past = Past(batch_size, device=torch.device("cpu"))
    pasts = [[[]] for _ in range(batch_size)]
    number = 0
    for sentences, beams in steps:
        past.begin_step()
        shape = len(pasts), len(pasts[0])
        new = number + torch.arange(shape[0] * shape[1]).reshape(shape)
        number += new.numel()
        for hypotheses, names in zip(pasts, new.tolist(), strict=True):
            for hypothesis, name in zip(hypotheses, names, strict=True):
                hypothesis.append(name)
        for layer in range(2):
            # two heads of three numbers, told apart from one another
            key = 100 * new[:, None, :, None] + 10 * torch.arange(2)[:, None, None] + torch.arange(3)
            memory, mask = past.recall(layer, Memory(key=key, value=-key - layer))
            live = mask.any(dim=1)[:, None].expand(-1, 2, -1)
            assert torch.equal(memory.value[live], -memory.key[live] - layer)
            for row, hypotheses in enumerate(pasts):
                for beam, hypothesis in enumerate(hypotheses):
                    for head in range(2):
                        seen = memory.key[row, head][mask[row, beam]].tolist()
                        assert sorted(seen) == [[100 * name + 10 * head + i for i in range(3)] for name in hypothesis]
        past.select(torch.tensor(sentences), torch.tensor(beams))
        pasts = [[list(pasts[sentence][beam]) for beam in row] for sentence, row in zip(sentences, beams, strict=True)]


def test_a_past_forgets_what_no_hypothesis_descends_from():
    past = Past(1, device=torch.device("cpu"))
    for step in range(100):
        past.begin_step()
        part = torch.zeros(1, 1, 1 if step == 0 else 4, 2)
        memory, _ = past.recall(0, Memory(key=part, value=part))
        # all go on from the first
        past.select(torch.tensor([0]), torch.zeros(1, 4, dtype=torch.int64))
    # 100 steps, and what eight steps of four beams have left since room was made last
    assert memory.key.shape[2] <= 100 + 8 * 4
