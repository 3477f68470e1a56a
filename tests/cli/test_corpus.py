"""`regard corpus`: what there is, where it lies, what it looks like."""

import json
from pathlib import Path

import pytest

from regard.data.corpora import CORPORA, NamedCorpus
from regard.data.formats import Pair, write_tsv
from regard.data.links import Links, write_links

PAIRS = [Pair(f"line {n}", f"第{n}行\x1b[31m") for n in range(1, 31)]


def write(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        write_tsv(folder / f"{split}.tsv", PAIRS)
    write_links(folder / "test.links", [Links(*[frozenset({(0, 2), (1, 0)})] * 2)] * len(PAIRS))


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))
    facts = NamedCorpus(
        about="Tiny lines.",
        source_language="en",
        target_language="zh",
        licence="CC0-1.0",
        attribution="By nobody.",
        write=write,
    )
    monkeypatch.setitem(CORPORA, "tiny", facts)


def test_the_list_says_what_is_there_and_under_which_licence(cli):
    before = cli("corpus", "list")
    assert before.code == 0
    (line,) = (line for line in before.out.splitlines() if line.startswith("tiny"))
    assert "not here yet" in line
    assert "CC0-1.0" in line
    cli("corpus", "get", "tiny")
    found = {each["name"]: each for each in json.loads(cli("corpus", "list", "--json").out)}
    assert list(found) == list(CORPORA)
    assert found["tiny"]["pairs"] == {"train": 30, "dev": 30, "test": 30}
    assert found["greek-en"]["pairs"] is None


def test_get_tells_files_on_stdout_and_the_licence_on_stderr(cli, tmp_path):
    done = cli("corpus", "get", "tiny")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [(split, count, Path(path).name) for split, count, path in rows] == [
        ("train", "30", "train.tsv"),
        ("dev", "30", "dev.tsv"),
        ("test", "30", "test.tsv"),
        ("test", "30", "test.links"),
    ]
    assert all(Path(path).exists() for _, _, path in rows)
    assert "CC0-1.0" in done.err
    assert "By nobody." in done.err


def test_get_copies_into_a_new_folder_and_never_over_another(cli, tmp_path):
    done = cli("corpus", "get", "tiny", "--to", tmp_path / "copy")
    assert done.code == 0
    assert str(tmp_path / "copy" / "test.links") in done.out
    assert "By nobody." in (tmp_path / "copy" / "LICENCE.txt").read_text()
    again = cli("corpus", "get", "tiny", "--to", tmp_path / "copy")
    assert again.code == 1
    assert "nothing is overwritten" in again.err


def test_show_prints_pairs_over_the_whole_split_with_links_lengths_and_licence(cli):
    done = cli("corpus", "show", "tiny", "--count", 3)
    assert done.code == 0
    assert [n for n in range(1, 31) if f"line {n} " in done.out] == [1, 11, 21]
    assert "line = 行" in done.out
    assert "characters" in done.out
    assert "Licence: CC0-1.0. By nobody." in done.out
    assert "\x1b" not in done.out
    assert " = " not in cli("corpus", "show", "tiny", "--split", "dev").out


def test_show_gives_the_same_as_json(cli):
    found = json.loads(cli("corpus", "show", "tiny", "--count", 100, "--json").out)
    assert [(each["source"], each["target"]) for each in found["examples"]] == PAIRS
    assert found["examples"][6]["line"] == 7
    assert found["examples"][6]["links"] == "0-2 1-0"
    assert found["splits"]["dev"]["source"] == {"unit": "words", "median": 2.0, "longest": 2}
    assert found["splits"]["dev"]["target"]["unit"] == "characters"


def test_an_unknown_corpus_is_refused_with_the_nearest_name(cli):
    for verb in ("get", "show"):
        done = cli("corpus", verb, "bible-en-dee")
        assert done.code == 1
        assert "did you mean 'bible-en-de'" in done.err
