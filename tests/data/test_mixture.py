"""Corpora with weights: how often each comes, and that nothing else changes."""

import itertools
from collections import Counter

import numpy as np
import pytest

from regard.data.formats import Pair
from regard.data.mixture import Mixture
from regard.data.packed import PackedText, pack
from regard.data.prepare import prepare
from regard.data.text import Passage
from regard.data.tokenizer import Tokenizer

SIZES = (40, 100)
TOKENIZER = Tokenizer.train([" ".join(f"w{n}" for n in range(sum(SIZES)))], kind="word", vocab_size=1000)


@pytest.fixture
def pairs(tmp_path):
    """Two corpora, of which every pair has a word of its own."""
    words = iter(range(sum(SIZES)))
    return [
        prepare([Pair(f"w{next(words)}", "w1") for _ in range(size)], TOKENIZER, tmp_path / str(size), max_length=9)
        for size in SIZES
    ]


@pytest.fixture
def texts(tmp_path):
    words = iter(range(sum(SIZES)))
    opened = []
    for size in SIZES:
        pack([Passage(" ".join(f"w{next(words)}" for _ in range(size)), True)], TOKENIZER, tmp_path / f"t{size}")
        opened.append(PackedText.open(tmp_path / f"t{size}", context=4))
    return opened


def drawn(mixture, epoch, batch_tokens=12):
    """How often each word of a source came in an epoch, by the number of its corpus."""
    counts = [Counter(), Counter()]
    for rows in mixture.order(batch_tokens=batch_tokens, seed=1, epoch=epoch):
        for row in mixture.batch(rows).source.tolist():
            word = int(TOKENIZER.decode(row[:1]).strip()[1:])
            counts[word >= SIZES[0]][word] += 1
    return counts


@pytest.mark.parametrize(("weights", "times"), [((1.0, 1.0), (1, 1)), ((3.0, 1.0), (3, 1)), ((1.0, 2.0), (1, 2))])
def test_a_corpus_of_weight_n_comes_n_times_in_an_epoch(pairs, weights, times):
    mixture = Mixture(pairs, weights)
    for epoch in range(2):
        for counts, size, often in zip(drawn(mixture, epoch), SIZES, times, strict=True):
            assert set(counts.values()) == {often}
            assert len(counts) == size


def test_a_corpus_of_weight_a_half_comes_by_halves_that_differ_and_epochs_have_one_length(pairs):
    mixture = Mixture(pairs, (0.5, 1.5))
    epochs = [drawn(mixture, epoch) for epoch in range(8)]
    for first, second in epochs:
        assert sum(first.values()) == pytest.approx(SIZES[0] / 2, abs=4)
        assert sum(second.values()) == pytest.approx(SIZES[1] * 1.5, abs=4)
    assert len({frozenset(first) for first, _ in epochs}) > 1
    assert len(sum((first for first, _ in epochs), Counter())) == SIZES[0]
    lengths = {len(mixture.order(batch_tokens=12, seed=1, epoch=epoch)) for epoch in range(8)}
    assert len(lengths) == 1


def test_the_order_depends_on_seed_and_epoch_alone_and_mixes_the_corpora(pairs):
    mixture = Mixture(pairs, (2.0, 1.0))
    orders = [mixture.order(batch_tokens=12, seed=1, epoch=0) for _ in range(2)]
    assert all(np.array_equal(*rows) for rows in zip(*orders, strict=True))
    other = mixture.order(batch_tokens=12, seed=2, epoch=0)
    assert not all(np.array_equal(*rows) for rows in zip(orders[0], other, strict=True))
    corpora = [int(rows[0] >= SIZES[0]) for rows in orders[0]]
    assert sum(one != two for one, two in itertools.pairwise(corpora)) > 3


@pytest.mark.parametrize("count", [1, 3])
def test_the_parts_of_a_batch_hold_its_rows_once_each(pairs, texts, count):
    for mixture in (Mixture(pairs, (2.0, 1.0)), Mixture(texts, (2.0, 1.0))):
        for rows in mixture.order(batch_tokens=12, seed=1, epoch=0):
            parts = mixture.parts(rows, count)
            assert len(parts) == count
            assert sorted(np.concatenate(parts)) == sorted(rows)


def test_windows_of_a_text_of_weight_2_come_twice(texts):
    mixture = Mixture(texts, (2.0, 1.0))
    counts = [Counter(), Counter()]
    for rows in mixture.order(batch_tokens=4, seed=1, epoch=3):
        for word in TOKENIZER.decode(mixture.batch(rows).tokens.flatten().tolist()).split():
            number = int(word[1:])
            counts[number >= SIZES[0]][number] += 1
    # a window more or less begins with the end of the document
    assert sum(counts[0].values()) == pytest.approx(2 * SIZES[0], abs=2)
    assert sum(counts[1].values()) == pytest.approx(SIZES[1], abs=1)
    assert max(counts[0].values()) == 2
    assert max(counts[1].values()) == 1
    assert mixture.sizes["tokens"] == sum(SIZES) + 2
    assert mixture.sizes["documents"] == 2


def test_sizes_are_those_of_all_corpora(pairs):
    assert Mixture(pairs, (2.0, 1.0)).sizes == {"pairs": 140, "pairs_skipped": 0, "longest_source": 2}
    assert len(Mixture(pairs, (2.0, 1.0))) == 140
