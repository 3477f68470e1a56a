"""BPE dropout: other tokens of the same text, drawn as its paper says, the same for the same seed and key."""

from collections import Counter
from math import sqrt

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from regard.data.batch import SPECIAL_TOKENS
from regard.data.dropout import BPEDropout
from regard.data.formats import Pair
from regard.data.prepare import tokenize
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

LINES = ["The quick brown fox's tail, twice.", "ein zwei drei vier fünf", "敏捷的棕色狐狸 ระบบ", "a1b2 c  d"] * 9
TEXTS = st.lists(st.sampled_from([*LINES, " ", "  fox", "'s", "🦊", "é", "\n", "▁", "<s>", "zwölf 12"])).map("".join)


@pytest.fixture(scope="module")
def bpe():
    return Tokenizer.train(LINES, kind="bpe", vocab_size=420, form="NFC")


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    """A tokenizer as SentencePiece's, that sees whole sentences, some bytes of which have tokens."""
    letters = sorted({letter for line in LINES for letter in line.replace(" ", "▁")})
    merges = [("▁", "f"), ("▁f", "o"), ("▁fo", "x"), ("e", "i"), ("ei", "n"), ("▁", "▁"), ("i", "n"), ("狐", "狸")]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    made = tokenizers.Tokenizer(
        models.BPE({token: id for id, token in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    path = tmp_path_factory.mktemp("spaced") / "tokenizer.json"
    made.save(str(path))
    return Tokenizer.take_over(path)


@pytest.mark.parametrize("kind", ["bpe", "spaced"])
@given(text=TEXTS)
def test_without_dropout_every_text_has_its_own_tokens_and_with_it_others_of_the_same_text(kind, bpe, spaced, text):
    tokenizer = {"bpe": bpe, "spaced": spaced}[kind]
    ids = tokenizer.encode(text)
    assert BPEDropout(tokenizer, 0.0, seed=1)(ids, "key") == ids
    other = BPEDropout(tokenizer, 0.5, seed=1)(ids, "key")
    assert tokenizer.decode(other) == tokenizer.decode(ids)
    assert len(other) >= len(ids)
    assert not {*range(len(SPECIAL_TOKENS))} & {*other}


def test_tokens_are_drawn_with_the_probabilities_of_the_paper(tmp_path):
    # abc is ab and c, and ab is a and b: with merges kept at 1 - p each, the first must be kept before the second
    tokens = [*pre_tokenizers.ByteLevel.alphabet(), "ab", "abc"]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", "b"), ("ab", "c")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.take_over(tmp_path / "tokenizer.json")
    p, draws = 0.3, 4000
    dropout = BPEDropout(tokenizer, p, seed=5)
    ids = tokenizer.encode("abc")
    found = Counter(len(dropout(ids, key)) for key in range(draws))
    for count, share in {1: (1 - p) ** 2, 2: (1 - p) * p, 3: p}.items():
        assert found[count] / draws == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / draws))
    assert [dropout(ids, key) for key in range(9)] == [BPEDropout(tokenizer, p, seed=5)(ids, key) for key in range(9)]
    assert [dropout(ids, key) for key in range(9)] != [BPEDropout(tokenizer, p, seed=6)(ids, key) for key in range(9)]


def test_batches_of_a_training_alone_have_other_tokens_each_epoch_where_they_have_room(bpe):
    pairs = [Pair(LINES[0], LINES[1]), Pair(LINES[2], LINES[3])]
    plain, _ = tokenize(pairs, bpe, max_length=64)
    made = plain.with_dropout(BPEDropout(bpe, 0.5, seed=1), max_length=64)
    canonical = plain.batch([0, 1])
    assert made.batch([0, 1]).source.equal(canonical.source)
    first, again, second = (made.batch([0, 1], epoch=epoch) for epoch in (0, 0, 1))
    assert first.source.equal(again.source)
    assert first.target.equal(again.target)
    assert not first.source.equal(second.source)
    # a pair has the same tokens in whichever batch
    (alone,) = made.batch([1], epoch=0).source.tolist()
    assert [id for id in first.source[1].tolist() if id] == alone
    for batch in (first, second):
        assert [bpe.decode(row) for row in batch.source.tolist()] == [pair.source for pair in pairs]
    longest = int(plain.source_lengths.max())
    narrow = plain.with_dropout(BPEDropout(bpe, 0.9, seed=1), max_length=longest).batch([0, 1], epoch=0)
    assert narrow.source.shape[1] <= longest


def test_a_tokenizer_without_merges_takes_no_dropout():
    word = Tokenizer.train(LINES, kind="word", vocab_size=50)
    with pytest.raises(RegardError, match="bpe_dropout needs a tokenizer of kind bpe, not word"):
        BPEDropout(word, 0.1, seed=1)
