"""Every token of a text is learnt and asked for once a round, and no batch has any padding."""

import numpy as np
import pytest

from regard.data.batch import EOS, IGNORED
from regard.data.packed import Facts, PackedText, pack
from regard.data.text import Passage
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

PASSAGES = [Passage("one two\n", True), Passage("three\n", False), Passage("four é", True)]
CONTEXT = 4


@pytest.fixture
def tokenizer():
    return Tokenizer.train([passage.text for passage in PASSAGES], kind="character", vocab_size=50)


def packed(ids, **settings):
    return PackedText(np.asarray(ids, dtype=np.uint16), Facts(1, 1, 0), context=CONTEXT, **settings)


def test_documents_stand_one_after_the_other_with_a_mark_before_each(tokenizer, tmp_path):
    pack(PASSAGES, tokenizer, tmp_path / "ids")
    text = PackedText.open(tmp_path / "ids", context=CONTEXT)
    first, second = "one two\nthree\n", "four é"
    wanted = [EOS, *tokenizer.encode(first), EOS, *tokenizer.encode(second)]
    assert len(text) == len(wanted)
    batch = text.batch(np.array([0, CONTEXT]))
    assert batch.tokens.tolist() == [wanted[:CONTEXT], wanted[CONTEXT : 2 * CONTEXT]]
    assert batch.labels.tolist() == [wanted[1 : CONTEXT + 1], wanted[CONTEXT + 1 : 2 * CONTEXT + 1]]
    assert text.facts == Facts(documents=2, bytes=len((first + second).encode()), unknown=0)


def test_characters_that_are_not_in_the_vocabulary_are_counted(tokenizer, tmp_path):
    pack([Passage("one ☃☃", True)], tokenizer, tmp_path / "ids")
    assert PackedText.open(tmp_path / "ids", context=CONTEXT).facts.unknown == 2


@pytest.mark.parametrize("size", [13, 16, 17])
def test_in_order_every_token_is_asked_for_once(size):
    ids = np.arange(10, 10 + size)
    text = packed(ids)
    labels = np.concatenate(
        [text.batch(starts, once=True).labels.numpy().ravel() for starts in text.in_order(batch_tokens=8)]
    )
    assert labels[labels != IGNORED].tolist() == [*ids[1:], ids[0]]
    counts = [text.batch(starts, once=True).label_count for starts in text.in_order(batch_tokens=8)]
    assert sum(counts) == size


@pytest.mark.parametrize(("size", "count", "expected"), [(5, 2, [3, 2]), (2, 3, [1, 1, 0]), (4, 1, [4])])
def test_the_parts_of_a_batch_have_all_of_it_once_in_equal_numbers(size, count, expected):
    starts = np.arange(0, 4 * size, 4)
    parts = packed(np.arange(10, 30)).parts(starts, count)
    assert [len(part) for part in parts] == expected
    assert np.concatenate(parts).tolist() == starts.tolist()


@pytest.mark.parametrize("size", [16, 18])
def test_an_epoch_learns_every_token_once_but_for_less_than_a_window(size):
    text = packed(np.arange(10, 10 + size))
    for epoch in range(3):
        order = text.order(batch_tokens=8, seed=1, epoch=epoch)
        batches = [text.batch(starts) for starts in order]
        assert all(batch.tokens.shape == (2, CONTEXT) and batch.label_count == 8 for batch in batches)
        tokens = np.concatenate([batch.tokens.numpy().ravel() for batch in batches])
        assert len(set(tokens)) == len(tokens) == size // CONTEXT * CONTEXT
        for batch in batches:
            follows = batch.labels.numpy() - batch.tokens.numpy()
            assert set(follows.ravel()) <= {1, 1 - size}


def test_an_epoch_depends_on_seed_and_number_alone():
    text = packed(np.arange(100))
    drawn = [np.concatenate(text.order(batch_tokens=8, seed=seed, epoch=epoch)).tolist()
             for seed, epoch in ((1, 0), (1, 0), (2, 0), (1, 1))]  # fmt: skip
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[0] != drawn[3]


def test_documents_are_numbered_only_where_asked():
    ids = [EOS, 5, 6, EOS, 7, 8, 9, 10]
    assert packed(ids).batch(np.array([0])).documents is None
    batch = packed(ids, documents=EOS).batch(np.array([0, 2]))
    assert batch.documents.tolist() == [[1, 1, 1, 2], [0, 1, 1, 1]]


def test_too_little_text_and_broken_files_are_refused(tokenizer, tmp_path):
    with pytest.raises(RegardError, match=r"3 tokens, which do not fill one window of 4; lower model\.max_length"):
        packed([1, 2, 3])
    with pytest.raises(RegardError, match="there is no text"):
        pack([], tokenizer, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    pack(PASSAGES, tokenizer, tmp_path / "ids")
    (tmp_path / "ids" / "packed.json").write_text("{}")
    with pytest.raises(RegardError, match="not a packed text"):
        PackedText.open(tmp_path / "ids", context=CONTEXT)
