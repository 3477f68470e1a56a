"""A user's own files as a corpus."""

import errno
import io
import itertools
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.corpus import Corpus, pair_hash
from regard.data.formats import Pair
from regard.errors import RegardError

SPLITS = ("train", "dev", "test")


def table(path, count: int):
    path.write_text("".join(f"source {n}\ttarget {n}\n" for n in range(count)), encoding="utf-8")
    return path


def sizes(corpus) -> list[int]:
    return [sum(1 for _ in corpus.pairs(split)) for split in SPLITS]


@pytest.mark.parametrize(("count", "held_out"), [(3, 1), (19, 1), (40, 2), (1999, 99), (20_000, 1000), (25_000, 1000)])
def test_five_percent_or_a_thousand_pairs_are_held_out(tmp_path, count, held_out):
    corpus = Corpus.from_files(table(tmp_path / "a.tsv", count))
    assert sizes(corpus) == [count - 2 * held_out, held_out, held_out]


def test_no_pair_is_in_two_splits_and_none_is_lost(tmp_path):
    path = table(tmp_path / "a.tsv", 200)
    path.write_text(path.read_text() * 3)
    corpus = Corpus.from_files(path)
    splits = [list(corpus.pairs(split)) for split in SPLITS]
    assert sum(map(len, splits)) == 600
    for one, other in itertools.combinations(splits, 2):
        assert not set(one) & set(other)


def test_a_pair_keeps_its_split_when_the_lines_are_shuffled(tmp_path):
    path = table(tmp_path / "a.tsv", 100)
    before = Corpus.from_files(path)
    expected = {split: set(before.pairs(split)) for split in SPLITS}
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    after = Corpus.from_files([path])
    assert {split: set(after.pairs(split)) for split in SPLITS} == expected


def test_files_that_are_given_are_whole_splits(tmp_path):
    train, dev = table(tmp_path / "a.tsv", 40), table(tmp_path / "d.tsv", 7)
    source, target = tmp_path / "t.en", tmp_path / "t.fr"
    source.write_text("one\ntwo\n")
    target.write_text("un\ndeux\n")
    assert sizes(Corpus.from_files(str(train), dev, [source, str(target)])) == [40, 7, 2]
    assert sizes(Corpus.from_files(train, dev=dev)) == [38, 7, 2]


def test_standard_input_can_be_read_again_and_again_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = table(tmp_path / "a.tsv", 30).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    corpus = Corpus.from_files("-")
    assert sizes(corpus) == sizes(corpus) == [28, 1, 1]
    del corpus
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\tun\n")))
    with pytest.raises(RegardError, match="standard input: 1 different source sentences"):
        Corpus.from_files("-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\tun\ntwo\n")))
    with pytest.raises(RegardError, match=r"^standard input:2: 1 column where two are needed"):
        Corpus.from_files("-")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]
    with pytest.raises(RegardError, match="one file of a corpus only"):
        Corpus.from_files("-", "-")


def test_standard_input_that_finds_no_room_leaves_nothing_and_is_told_with_the_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\tun\n")))
    begun = []

    def fails(source, file):
        begun.extend(path.name for path in tmp_path.iterdir())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fails)
    with pytest.raises(RegardError, match=f"temporary folder {tmp_path}: No space left on device; free some space"):
        Corpus.from_files("-")
    assert [name.startswith("standard-input-") for name in begun] == [True]
    assert list(tmp_path.iterdir()) == []


def test_the_ranges_of_an_earlier_corpus_keep_every_pair_in_its_split_when_the_file_grows(tmp_path):
    path = table(tmp_path / "a.tsv", 100)
    before = Corpus.from_files(path)
    expected = {split: set(before.pairs(split)) for split in SPLITS}
    table(path, 1000)
    after = Corpus.from_files(path, hashes=before.hashes)
    found = {split: set(after.pairs(split)) for split in SPLITS}
    assert sum(map(len, found.values())) == 1000
    assert all(expected[split] <= found[split] for split in SPLITS)
    with pytest.raises(RegardError, match="it is not recorded which pairs are dev"):
        Corpus.from_files(path, hashes={})


def test_too_few_different_pairs_are_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("one\tun\n" * 50 + "two\tdeux\n")
    with pytest.raises(RegardError, match="2 different source sentences"):
        Corpus.from_files(path)
    assert sizes(Corpus.from_files(path, dev=path, test=path)) == [51, 51, 51]


def test_an_unknown_split_is_refused_before_anything_is_read():
    with pytest.raises(RegardError, match="did you mean 'test'"):
        Corpus(name="x", splits={"train": (Path("none"),), "test": (Path("none"),)}).pairs("tests")


def test_copies_of_a_source_that_are_trivially_changed_are_in_one_split(tmp_path):
    path = tmp_path / "a.tsv"
    lines = [
        line
        for n in range(200)
        for line in (f"The word {n}.\tle {n}", f"THE  WORD, {n}\tlà {n}", f"« the word {n} »\tx")
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    splits = [{re.findall(r"\d+", pair.source)[0] for pair in Corpus.from_files(path).pairs(split)} for split in SPLITS]
    assert all(not one & other for one, other in itertools.combinations(splits, 2))
    assert sum(map(len, splits)) == 200


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", categories=("L", "Nd")), max_size=4), max_size=30))
def test_sources_of_other_letters_or_digits_have_other_hashes(sources):
    # NFKC and casefold make some letters the same, as they should
    plain = {unicodedata.normalize("NFKC", source).casefold() for source in sources if source}
    kept = {"".join(filter(str.isalnum, source)) or source for source in plain}
    assert len({pair_hash(Pair(source, "x")) for source in sources if source}) == len(kept)


def test_the_target_and_what_is_no_letter_or_digit_leave_the_hash_alone():
    assert pair_hash(Pair("Don't  stop_1!", "a")) == pair_hash(Pair("dont\u00a0STOP １", "b"))
    assert pair_hash(Pair("stop 1", "a")) != pair_hash(Pair("stop 2", "a"))


def test_sources_without_letters_differ_by_what_they_have():
    assert len({pair_hash(Pair(source, "a")) for source in ("?!", "…", "🙂", "🙁")}) == 4
