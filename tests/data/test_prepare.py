"""Token ids on disk."""

import errno

import numpy as np
import pytest

from regard.data import prepare as module
from regard.data.batch import BOS, EOS, OWN_FRAMES, PAD
from regard.data.formats import Pair
from regard.data.prepare import TokenizedCorpus, prepare
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

PAIRS = [Pair("one two", "un deux"), Pair("three", "trois et un"), Pair("two", "deux"), Pair("one", "un " * 30)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([side for pair in PAIRS for side in pair], kind="word", vocab_size=100)


@pytest.mark.parametrize("chunk", [1, 2, 4096])
def test_what_is_read_back_is_what_was_encoded(tmp_path, tokenizer, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    made = prepare(iter(PAIRS), tokenizer, tmp_path / "made", max_length=40)
    for corpus in (made, TokenizedCorpus.open(tmp_path / "made")):
        assert len(corpus) == len(PAIRS)
        for index, pair in enumerate(PAIRS):
            assert [tokenizer.decode(side.tolist()) for side in corpus[index]] == [pair.source, pair.target]
        assert corpus.source_lengths.tolist() == [len(tokenizer.encode(pair.source)) + 1 for pair in PAIRS]
        assert corpus.target_lengths.tolist() == [len(tokenizer.encode(pair.target)) + 2 for pair in PAIRS]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_batch_has_the_special_tokens_and_the_lengths_that_were_promised(tmp_path, tokenizer):
    corpus = prepare(PAIRS, tokenizer, tmp_path / "made", max_length=40)
    batch = corpus.batch(np.array([2, 0]))
    assert batch.source.tolist() == [
        [*tokenizer.encode("two"), EOS, PAD],
        [*tokenizer.encode("one two"), EOS],
    ]
    assert batch.target.tolist()[1] == [BOS, *tokenizer.encode("un deux"), EOS]
    assert batch.source_lengths.tolist() == corpus.source_lengths[[2, 0]].tolist()
    assert batch.target_lengths.tolist() == corpus.target_lengths[[2, 0]].tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_the_parts_of_a_batch_have_all_of_it_once_and_about_as_much_work_each(tmp_path, tokenizer, size, count):
    lengths = np.random.default_rng(size).integers(1, 30, size=size)
    pairs = [Pair("one " * length, "un " * 20) for length in lengths]
    corpus = prepare(pairs, tokenizer, tmp_path / "made", max_length=40)
    parts = corpus.parts(np.arange(size), count)
    assert len(parts) == count
    joined = np.concatenate(parts)
    assert sorted(joined) == list(range(size))
    assert (np.diff(lengths[joined]) >= 0).all()
    # the process that leads always has something to do
    assert len(parts[0])
    work = corpus.source_lengths + module.TARGET_WORK * corpus.target_lengths
    shares = [work[part].sum() for part in parts]
    # no cut is further than a row from where it should be
    assert max(shares) <= work.sum() / count + work.max()


def test_pairs_over_the_length_are_skipped_counted_and_told(tmp_path, tokenizer, caplog):
    # "un deux" is two tokens, with BOS and EOS four; "trois et un" is five, "un " * 30 more
    corpus = prepare(PAIRS, tokenizer, tmp_path / "made", max_length=4)
    assert [len(corpus), corpus.skipped] == [2, 2]
    assert tokenizer.decode(corpus[1][0].tolist()) == "two"
    assert "more than 4 tokens: 2" in caplog.text


def test_nothing_left_is_refused_and_leaves_nothing(tmp_path, tokenizer):
    with pytest.raises(RegardError, match="no sentence pair is left of dev of mine: 4 have more than 2 tokens"):
        prepare(PAIRS, tokenizer, tmp_path / "made", max_length=2, name="dev of mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_ids_take_two_bytes_where_they_fit(tmp_path, size, dtype):
    class Vocabulary:
        frames, unknown = OWN_FRAMES, None

        @property
        def target(self):
            return self

        def __len__(self):
            return size

        def encode_batch(self, texts):
            return [[size - 1] for _ in texts]

    corpus = prepare([Pair("a", "b")], Vocabulary(), tmp_path / "made", max_length=9)  # pyright: ignore[reportArgumentType]
    assert corpus[0][0].dtype == dtype
    assert corpus[0][1].tolist() == [size - 1]


def test_a_full_disk_is_told_and_the_older_corpus_stays(tmp_path, tokenizer, monkeypatch):
    prepare(PAIRS[:1], tokenizer, tmp_path / "made", max_length=40)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(RegardError, match="No space left on device"):
            prepare(PAIRS, tokenizer, tmp_path / "made", max_length=40)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert len(TokenizedCorpus.open(tmp_path / "made")) == 1
    assert len(prepare(PAIRS, tokenizer, tmp_path / "made", max_length=40)) == len(PAIRS)
    assert len(TokenizedCorpus.open(tmp_path / "made")) == len(PAIRS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "target_ids.npy").unlink(),
        lambda folder: (folder / "source_ids.npy").write_bytes(b""),
        lambda folder: (folder / "source_ids.npy").write_bytes((folder / "source_ids.npy").read_bytes()[:-2]),
        lambda folder: (folder / "source_offsets.npy").write_bytes((folder / "target_offsets.npy").read_bytes()),
        lambda folder: np.save(folder / "source_ids.npy", np.array([{}]), allow_pickle=True),
        lambda folder: (folder / "tokenized.json").write_text("[]"),
    ],
)
def test_a_spoilt_folder_is_refused(tmp_path, tokenizer, spoil):
    prepare(PAIRS, tokenizer, tmp_path / "made", max_length=40)
    spoil(tmp_path / "made")
    with pytest.raises(RegardError, match="prepare it again"):
        TokenizedCorpus.open(tmp_path / "made")


def test_an_index_outside_the_corpus_is_refused(tmp_path, tokenizer):
    corpus = prepare(PAIRS, tokenizer, tmp_path / "made", max_length=40)
    with pytest.raises(IndexError, match="pair 4 of 4"):
        corpus[4]
