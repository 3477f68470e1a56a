"""Corpora by name: made once, checked, made anew when spoilt."""

import itertools
import json
import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from regard.data import corpora
from regard.data.corpora import CORPORA, NamedCorpus, cache_dir, cached_sizes, copy_corpus, get_corpus
from regard.data.formats import Pair, write_tsv
from regard.data.links import Links, write_links
from regard.data.near_duplicates import letters
from regard.data.numbers import number_pairs, split_numbers
from regard.data.text import Text, write_documents
from regard.data.words import split_words
from regard.errors import RegardError

LINKS = Links(sure=frozenset({(0, 0)}), possible=frozenset({(0, 0)}))


def named(write) -> NamedCorpus:
    return NamedCorpus(
        about="Tiny.", source_language="en", target_language="fr", licence="none", attribution="nobody", write=write
    )


@pytest.fixture
def made(monkeypatch, tmp_path) -> list[Path]:
    """A corpus "tiny" in an empty cache; the list grows with every making."""
    calls = []

    def tiny(folder: Path) -> None:
        calls.append(folder)
        for split in ("train", "dev", "test"):
            write_tsv(folder / f"{split}.tsv", [Pair(f"one {split}", "un")])
        write_links(folder / "test.links", [LINKS])

    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CORPORA, "tiny", named(tiny))
    return calls


def test_a_corpus_is_made_once_and_then_reused(made):
    for _ in range(2):
        corpus = get_corpus("tiny")
        assert list(corpus.pairs("dev")) == [("one dev", "un")]
        assert list(corpus.gold("test")) == [(("one test", "un"), LINKS)]
        assert list(corpus.links) == ["test"]
        assert (corpus.name, corpus.source_language, corpus.attribution) == ("tiny", "en", "nobody")
    assert len(made) == 1
    folder = cache_dir() / "corpora" / "tiny"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    facts = json.loads((folder / "corpus.json").read_text())
    assert facts["files"]["train.tsv"]["pairs"] == 1
    assert facts["files"]["train.tsv"]["size"] == len("one train\tun\n")


def test_plain_text_is_made_and_kept_likewise(made, monkeypatch, tmp_path):
    def write(folder: Path) -> None:
        for split in ("train", "dev", "test"):
            write_documents(folder / f"{split}.jsonl", [f"A {split} text.", "Another."])

    monkeypatch.setitem(CORPORA, "tiny", replace(named(write), target_language=None))
    for _ in range(2):
        text = get_corpus("tiny")
        assert isinstance(text, Text)
        assert list(text.documents("dev")) == ["A dev text.", "Another."]
    assert cached_sizes("tiny") == {"train": 2, "dev": 2, "test": 2}
    assert [path.suffix for path in copy_corpus(text, tmp_path / "copy")] == [".txt", *[".jsonl"] * 3]


def test_a_corpus_that_an_older_version_made_is_made_anew(made, monkeypatch, caplog):
    get_corpus("tiny")
    monkeypatch.setattr(corpora, "VERSION", corpora.VERSION + 1)
    assert cached_sizes("tiny") is None
    with caplog.at_level(logging.WARNING, "regard"):
        get_corpus("tiny")
    assert "making it anew" in caplog.text
    assert len(made) == 2
    assert cached_sizes("tiny") == {"train": 1, "dev": 1, "test": 1}


def test_a_copy_has_the_splits_the_links_and_the_licence(made, tmp_path):
    files = copy_corpus(get_corpus("tiny"), tmp_path / "a" / "copy")
    assert [path.name for path in files] == ["LICENCE.txt", "dev.tsv", "test.links", "test.tsv", "train.tsv"]
    assert files[0].read_text().splitlines() == ["tiny", "Tiny.", "Licence: none", "nobody"]
    assert files[2].read_text() == "0-0\n"
    assert files[4].read_text() == "one train\tun\n"


def test_a_copy_overwrites_nothing(made, tmp_path):
    corpus = get_corpus("tiny")
    (tmp_path / "empty").mkdir()
    copy_corpus(corpus, tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for place in (tmp_path / "empty", tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(RegardError, match="nothing is overwritten; name a new folder"):
            copy_corpus(corpus, place)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "dev.tsv").unlink(),
        lambda folder: (folder / "dev.tsv").write_text("two dev\tun\n"),
        lambda folder: (folder / "test.links").write_text("0-1\n"),
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


def test_a_making_that_fails_leaves_nothing_and_is_begun_anew(made, monkeypatch):
    whole = CORPORA["tiny"]

    def fails(folder: Path) -> None:
        (folder / "train.tsv").write_text("half")
        raise RegardError("no network")

    monkeypatch.setitem(CORPORA, "tiny", named(fails))
    with pytest.raises(RegardError, match="no network"):
        get_corpus("tiny")
    assert not list((cache_dir() / "corpora").iterdir())
    monkeypatch.setitem(CORPORA, "tiny", whole)
    assert list(get_corpus("tiny").pairs("train")) == [("one train", "un")]


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_says_what_it_is_and_what_its_licence_asks(name):
    about = CORPORA[name]
    assert about.licence
    assert about.attribution
    languages = filter(None, (about.source_language, about.target_language))
    assert name.endswith("-".join(languages)) or name in ("greek-en", "austen")
    assert "CC BY 4.0" in about.attribution or not name.startswith(("bible", "greek"))


def test_an_unknown_corpus_is_refused_with_the_nearest_name():
    with pytest.raises(RegardError, match="did you mean 'numbers-en-fr'"):
        get_corpus("numbers-en-frr")


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


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real corpus by its name, with all its splits."""
    folder = tmp_path_factory.mktemp("real")

    def get(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REGARD_CACHE", str(folder))
            corpus = get_corpus(name)
        # no download is left
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".tsv", ".links", ".json"}
        return corpus, {split: list(corpus.pairs(split)) for split in ("train", "dev", "test")}

    return get


# pairs in all splits, and a pair that is in one of them; numbers of other hands: about 31,000 verses, 7,919 verses with
# links, and 34,009, 35,210 and 23,653 paragraphs before any filter
REAL = {
    "bible-en-fr": (
        (29_500, 31_000),
        "The LORD is my shepherd; I shall not want.",
        "L'Éternel est mon berger: je ne manquerai de rien.",
    ),
    "bible-en-de": (
        (29_500, 31_000),
        "The LORD is my shepherd; I shall not want.",
        "Jehova ist mein Hirte, mir wird nichts mangeln.",
    ),
    "greek-en": ((7_500, 7_919), "ἐδάκρυσεν ὁ Ἰησοῦς", "Jesus wept."),
    "libreoffice-en-fr": (
        (32_000, 34_009),
        "Promote level",
        "Hausser d'un niveau",
    ),
    "libreoffice-en-de": (
        (33_500, 35_210),
        "Specifies that your notes are also displayed.",
        "Ihre Notizen werden ebenfalls angezeigt.",
    ),
    "libreoffice-en-zh": ((22_500, 24_700), "To print a query or table:", "要打印一个查询或一个表："),
}


@pytest.mark.download
@pytest.mark.parametrize("name", REAL)
def test_real_corpora_are_downloaded_cleaned_and_split(real, name):
    (least, most), source, target = REAL[name]
    _, splits = real(name)
    assert least < sum(map(len, splits.values())) < most
    assert len(splits["dev"]) == len(splits["test"]) == 1000
    everything = [pair for pairs in splits.values() for pair in pairs]
    assert (source, target) in everything
    assert not [pair for pair in everything for side in pair if side != " ".join(side.split()) or not letters(side)]
    assert all(len({pair.source for pair in splits[split]}) == 1000 for split in ("dev", "test"))


@pytest.mark.download
@pytest.mark.parametrize("name", REAL)
def test_splits_of_real_corpora_share_no_near_duplicates(real, name):
    _, splits = real(name)
    # not by the search that made them: by the word triples that texts share
    for side in (0, 1):
        texts = {split: {letters(pair[side]) for pair in pairs} for split, pairs in splits.items()}
        assert all(not one & other for one, other in itertools.combinations(texts.values(), 2))
        sizes, holders = {}, {}
        for text in {pair[side] for pair in splits["train"]}:
            sizes[text] = len(triples(text))
            for triple in triples(text):
                holders.setdefault(triple, []).append(text)
        for pair in splits["dev"] + splits["test"]:
            wanted = triples(pair[side])
            shared = Counter(itertools.chain.from_iterable(holders.get(triple, ()) for triple in wanted))
            assert not [text for text, count in shared.items() if count >= 0.8 * (len(wanted) + sizes[text] - count)]


def triples(text: str) -> frozenset[tuple[str, ...]]:
    words = [letters(word) for word in split_words(text) if letters(word)]
    return frozenset(zip(words, words[1:], words[2:], strict=False))


@pytest.mark.download
def test_verses_lose_their_markers(real):
    for name in ("bible-en-fr", "bible-en-de"):
        _, splits = real(name)
        assert not [pair for pairs in splits.values() for pair in pairs if re.search(r"\d:\d|MISSING", pair.target)]


@pytest.mark.download
def test_gold_links_join_greek_and_english_words(real):
    corpus, splits = real("greek-en")
    assert set(corpus.links) == set(splits)
    gold = {pair: links for split in splits for pair, links in corpus.gold(split)}
    assert sum(len(links.sure) for links in gold.values()) > 180_000
    (links,) = (links for pair, links in gold.items() if pair.target == "Jesus wept.")
    # ἐδάκρυσεν wept, Ἰησοῦς Jesus; the article stands for nothing
    assert {(0, 1), (2, 0)} <= links.sure <= {(0, 1), (2, 0), (1, 0)}
    names = {"Ἰησοῦς": "Jesus", "Πέτρος": "Peter", "Παῦλος": "Paul"}
    found = [
        any(names[word] in split_words(pair.target)[j] for i, j in links.sure if i == index)
        for pair, links in gold.items()
        for index, word in enumerate(split_words(pair.source))
        if word in names and any(i == index for i, _ in links.sure)
    ]
    assert len(found) > 300
    assert sum(found) > 0.9 * len(found)
