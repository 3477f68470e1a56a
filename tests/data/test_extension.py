"""A tokenizer that is extended is what it was, with what training it longer would have added."""

import random

import pytest

from regard.data.extension import extended
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

WORDS = ["lower", "lowest", "newer", "newest", "wider", "widest", "slow", "slower", "slowest", "猫が座る", "ποταμός"]


@pytest.fixture(scope="module")
def lines():
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, weights=range(1, len(WORDS) + 1), k=8)) for _ in range(300)]


def test_bpe_that_is_continued_on_its_own_text_is_bpe_that_was_trained_longer(lines):
    short = Tokenizer.train(lines, kind="bpe", vocab_size=270)
    long = Tokenizer.train(lines, kind="bpe", vocab_size=300)
    found = extended(short, lines, vocab_size=300)
    assert len(long) == 300
    assert found.pieces == long.pieces
    assert [found.encode(line) for line in lines] == [long.encode(line) for line in lines]


@pytest.mark.parametrize("kind", ["word", "character"])
def test_words_and_characters_come_behind_those_that_there_are(lines, kind):
    known = Tokenizer.train(lines[:5], kind=kind, vocab_size=8)
    found = extended(known, lines, vocab_size=500)
    assert found.pieces[:8] == known.pieces
    assert found.decode(found.encode(lines[9])) == lines[9]
    assert known.decode(known.encode(lines[9])) != lines[9]


def test_an_extended_tokenizer_is_saved_and_loaded(lines, tmp_path):
    found = extended(Tokenizer.train(lines, kind="bpe", vocab_size=270), lines, vocab_size=290)
    found.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(lines[0]) == found.encode(lines[0])
    assert found.decode(found.encode("<s> other text")) == "<s> other text"


def test_no_room_is_said(lines):
    with pytest.raises(RegardError, match="vocab_size 270 leaves no room beyond the 270 tokens"):
        extended(Tokenizer.train(lines, kind="bpe", vocab_size=270), lines, vocab_size=270)
