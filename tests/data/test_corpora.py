"""Corpora by name: made once, checked, made anew when spoilt."""

import json
import logging
import re
from pathlib import Path

import pytest

from regard.data import corpora
from regard.data.corpora import CORPORA, Corpus, cache_dir, get_corpus
from regard.data.formats import Pair, write_tsv
from regard.data.numbers import number_pairs, split_numbers
from regard.errors import RegardError


@pytest.fixture
def made(monkeypatch, tmp_path) -> list[Path]:
    """A corpus "tiny" in an empty cache; the list grows with every making."""
    calls = []

    def tiny(folder: Path) -> Corpus:
        calls.append(folder)
        for split in ("train", "dev", "test"):
            write_tsv(folder / f"{split}.tsv", [Pair(f"one {split}", "un")])
        splits = {split: (folder / f"{split}.tsv",) for split in ("train", "dev", "test")}
        return Corpus(name="tiny", splits=splits, source_language="en", licence="none", attribution="nobody")

    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CORPORA, "tiny", tiny)
    return calls


def test_a_corpus_is_made_once_and_then_reused(made):
    for _ in range(2):
        corpus = get_corpus("tiny")
        assert list(corpus.pairs("dev")) == [("one dev", "un")]
        assert (corpus.name, corpus.source_language, corpus.attribution) == ("tiny", "en", "nobody")
    assert len(made) == 1
    folder = cache_dir() / "corpora" / "tiny"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    facts = json.loads((folder / "corpus.json").read_text())
    assert facts["files"]["train.tsv"]["pairs"] == 1
    assert facts["files"]["train.tsv"]["size"] == len("one train\tun\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "dev.tsv").unlink(),
        lambda folder: (folder / "dev.tsv").write_text("two dev\tun\n"),
        lambda folder: (folder / "corpus.json").unlink(),
        lambda folder: (folder / "corpus.json").write_text("{"),
        lambda folder: (folder / "corpus.json").write_text("[]"),
    ],
)
def test_a_spoilt_corpus_is_made_anew_and_told(made, caplog, spoil):
    get_corpus("tiny")
    spoil(cache_dir() / "corpora" / "tiny")
    with caplog.at_level(logging.WARNING, "regard"):
        assert list(get_corpus("tiny").pairs("dev")) == [("one dev", "un")]
    assert "making it anew" in caplog.text
    assert len(made) == 2


def test_a_making_that_fails_leaves_nothing(made, monkeypatch):
    def fails(folder: Path) -> Corpus:
        (folder / "train.tsv").write_text("half")
        raise RegardError("no network")

    monkeypatch.setitem(CORPORA, "tiny", fails)
    with pytest.raises(RegardError, match="no network"):
        get_corpus("tiny")
    assert not list((cache_dir() / "corpora").iterdir())


def test_an_unknown_corpus_is_refused_with_the_nearest_name():
    with pytest.raises(RegardError, match="did you mean 'numbers-en-fr'"):
        get_corpus("numbers-en-de")


def test_the_cache_folder_is_the_users_unless_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("REGARD_CACHE")
    assert cache_dir().name == "regard"


def test_numbers_are_in_one_split_each_and_spread_over_lengths():
    splits = split_numbers()
    assert {split: len(numbers) for split, numbers in splits.items()} == {"train": 30_000, "dev": 500, "test": 1_500}
    assert len(set().union(*splits.values())) == 32_000
    assert all(0 <= number < 10**15 for numbers in splits.values() for number in numbers)
    assert set(range(100)) <= set(splits["train"])
    held_out = [number for split in ("dev", "test") for number in splits[split] if number < 1000]
    assert len(held_out) == 90
    assert min(held_out) >= 100
    assert splits == split_numbers()


def test_the_test_split_of_numbers_has_short_and_long_sentences():
    words = [len(pair.source.split()) for pair in number_pairs(split_numbers()["test"])]
    assert sum(count >= 20 for count in words) >= 250
    assert sum(count < 10 for count in words) >= 400


def test_numbers_are_spelt_as_the_languages_spell_them():
    assert list(number_pairs([0, 71, 1980])) == [
        ("zero", "zéro"),
        ("seventy-one", "soixante et onze"),
        ("one thousand, nine hundred and eighty", "mille neuf cent quatre-vingts"),
    ]


@pytest.mark.download
def test_the_bibles_are_downloaded_cleaned_and_split(monkeypatch, tmp_path):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path))
    corpus = corpora.get_corpus("bible-en-fr")
    splits = {split: list(corpus.pairs(split)) for split in ("train", "dev", "test")}
    assert 28_000 < len(splits["train"]) < 30_000
    assert all(1000 <= len(splits[split]) < 1050 for split in ("dev", "test"))
    sources = [{pair.source for pair in pairs} for pairs in splits.values()]
    assert sum(map(len, sources)) == len(set().union(*sources))
    everything = [pair for pairs in splits.values() for pair in pairs]
    assert (
        "The LORD is my shepherd; I shall not want.",
        "L'Éternel est mon berger: je ne manquerai de rien.",
    ) in everything
    assert not [pair for pair in everything if re.search(r"\d:\d", pair.target)]
    assert not list(tmp_path.rglob("*.whl")) + list(tmp_path.rglob("*.db"))
