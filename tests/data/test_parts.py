"""What a recipe names as its data: files, sides, folders, patterns, archives and several corpora."""

import errno
import os
import shutil
import zipfile

import pytest

from regard.data.columns import PAIR, PAIR_NAMES, TEXT, Columns
from regard.data.corpus import Corpus
from regard.data.parts import map_paths, parts_of, paths_in, weighted
from regard.data.text import Text
from regard.errors import RegardError

FILES = {
    "a.en": "one\ntwo\n",
    "a.fr": "un\ndeux\n",
    "b.en": "three\n",
    "b.fr": "trois\n",
    "a.tsv": "one\tun\ntwo\tdeux\n",
    "b.tsv": "three\ttrois\n",
    "both.txt": "three\ttrois\n",
    "bars": "three ||| trois\n",
    "column.tsv": "one\ntwo\n",
    "c.jsonl": '{"en": "four", "fr": "quatre"}\n',
}
A, B = [("one", "un"), ("two", "deux")], [("three", "trois")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(data, source=None, target=None):
    return list(Corpus(name="x", splits={"train": data}, keys=(source, target)).pairs("train"))


def refusal(data, *keys, columns=PAIR):
    with pytest.raises(RegardError) as caught:
        parts_of(data, Columns(PAIR_NAMES, keys) if keys else columns)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        ("a.tsv", A),
        (["a.tsv"], A),
        (["a.en", "a.fr"], A),
        (["a.fr", "a.en"], [pair[::-1] for pair in A]),
        (["a.tsv", "b.tsv"], A + B),
        (["a.tsv", "both.txt"], A + B),
        (["a.tsv", "bars"], A + B),
        (["column.tsv", "a.fr"], A),
        ([["a.en", "a.fr"], ["b.en", "b.fr"]], A + B),
        ([["a.en", "a.fr"], "b.tsv"], A + B),
        (["a.tsv", "b.tsv", "bars"], A + B + B),
        ({"source": ["a.en", "b.en"], "target": ["a.fr", "b.fr"]}, A + B),
        ({"source": "a.en", "target": "a.fr"}, A),
        ({"files": ["a.en", "a.fr"]}, A),
        ([{"files": "a.tsv"}, {"files": "b.tsv", "weight": 3}], A + B),
        ("[ab].tsv", A + B),
        ([{"files": "a.tsv"}, {"files": "c.jsonl", "source_key": "fr", "target_key": "en"}], [*A, ("quatre", "four")]),
    ],
)
def test_files_are_read_as_the_sides_or_the_corpora_that_they_are(data, pairs):
    assert read(data) == pairs


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (["a.en", "a.tsv"], "a.tsv holds both sides, a.en only one"),
        (["a.en", "b.en"], "a.en and b.en are both named .en: several files of one side"),
        (["a.en", "a.fr", "b.en", "b.fr"], "a.en holds one side only, in a list of more than two files"),
        (["a.tsv", "b.tsv", "a.en"], "a.en holds one side only"),
        ({"source": "c.jsonl", "target": "a.fr"}, "c.jsonl: a file of one side has a sentence on each line"),
        ("none.tsv", "none.tsv: there is no such file; check the path"),
        ("a", "a: there is no such file; did you mean 'a.en'?"),
        ("https://example.org/a.tsv", "this is an address: download it and name the file"),
        ("b*.x", "no file has such a name; check the pattern"),
        (["a.tsv", "none.tsv"], "none.tsv: there is no such file"),
    ],
)
def test_what_stays_open_is_refused_with_the_spelling_that_decides(data, says):
    assert says in refusal(data)


def test_sides_of_several_files_are_aligned_file_by_file_where_there_are_as_many(folder):
    (folder / "joined.fr").write_text("un\ndeux\ntrois\n")
    assert read({"source": ["a.en", "b.en"], "target": ["joined.fr"]}) == A + B
    with pytest.raises(RegardError, match=r"a\.en has 2 lines but b\.fr has 1"):
        read({"source": ["a.en", "b.en"], "target": ["b.fr", "a.fr"]})


def test_a_prefix_stands_for_its_two_sides_where_the_keys_name_them(folder):
    assert read("a", "fr", "en") == [pair[::-1] for pair in A]
    for path in ("a.tsv", "b.en", "b.fr"):
        (folder / path).unlink()
    assert 'give both: ["a.en", "a.fr"]' in refusal("a")


def test_a_folder_or_an_archive_of_sides_is_paired_by_the_endings_that_the_keys_name(folder):
    (folder / "opus").mkdir()
    with zipfile.ZipFile("opus.zip", "w") as archive:
        for name in ("a.en", "a.fr", "b.en", "b.fr"):
            (folder / "opus" / name).write_text(FILES[name])
            archive.write(name)
        archive.writestr("README", "about")
    (folder / "opus" / "LICENSE").write_text("free")
    (folder / "opus" / ".hidden").write_bytes(b"\0")
    (folder / "zips").mkdir()
    shutil.copy("opus.zip", "zips")
    for data in ("opus", "opus/", "opus.zip", "zips"):
        assert read(data, "en", "fr") == A + B
        assert "what of" in refusal(data)
        assert "(here en, fr): data.source_key = …" in refusal(data)
        assert "what of" in refusal(data, "en", "de")
    assert read(["opus.zip/b.en", "opus.zip/b.fr"]) == B


def test_what_lies_beside_the_two_sides_of_a_corpus_is_left_out_and_told(folder, caplog):
    (folder / "opus").mkdir()
    for name, text in {"x.en-fr.en": "one\n", "x.en-fr.fr": "un\n", "x.en-fr.xml": "<?xml version='1.0'?>"}.items():
        (folder / "opus" / name).write_text(text)
    assert read("opus", "en", "fr") == [("one", "un")]
    assert "opus/x.en-fr.xml: left out are all but .en and .fr" in caplog.text
    assert "what of opus/x.en-fr.en, opus/x.en-fr.fr, opus/x.en-fr.xml is source" in refusal("opus")


def test_a_folder_of_tables_is_as_many_corpora_and_of_texts_as_many_documents(folder):
    (folder / "books" / "deep").mkdir(parents=True)
    for name in ("a.tsv", "deep/b.tsv"):
        (folder / "books" / name).write_text(FILES[name.split("/")[-1]])
    assert sorted(read("books")) == sorted(A + B)
    text = Text(name="x", splits={"train": ["a.en", "b.en"]})
    assert list(text.documents("train")) == ["one\ntwo\n", "three\n"]
    assert [part.files for part in parts_of("*.en", TEXT)] == [("a.en",), ("b.en",)]


def test_a_folder_with_what_cannot_be_read_is_refused_by_the_name_of_that(folder):
    (folder / "books").mkdir()
    assert "there is no file in this folder" in refusal("books", columns=TEXT)
    (folder / "books" / "a.txt").write_text("one\n")
    (folder / "books" / "link.txt").symlink_to("nowhere")
    assert "books/link.txt: a link to nothing" in refusal("books", columns=TEXT)
    (folder / "books" / "link.txt").unlink()
    os.mkfifo(folder / "books" / "pipe")
    assert "books/pipe: no regular file" in refusal("books", columns=TEXT)
    assert "can be read only once" in refusal("books/pipe", columns=TEXT)
    (folder / "books" / "pipe").unlink()
    (folder / "books" / "cover.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(RegardError, match=r"cover\.png: this is a picture"):
        list(Text(name="x", splits={"train": "books"}).passages("train"))


def test_a_folder_that_may_not_be_entered_is_refused_by_its_name(folder, monkeypatch):
    (folder / "books" / "locked").mkdir(parents=True)
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    # root may enter every folder
    monkeypatch.setattr(os, "scandir", denied)
    assert "books/locked: cannot be read: Permission denied" in refusal("books", columns=TEXT)


def test_what_save_to_disk_wrote_is_its_data_alone(folder):
    pa = pytest.importorskip("pyarrow")
    (folder / "saved").mkdir()
    table = pa.table({"source": ["one"], "target": ["un"]})
    with pa.ipc.new_stream("saved/data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("state.json", "dataset_info.json"):
        (folder / "saved" / name).write_text("{}")
    assert read("saved") == [("one", "un")]


def test_corpora_of_one_weight_are_one():
    assert weighted("a.tsv") == [(1.0, "a.tsv")]
    assert weighted(["a.en", "a.fr"]) == [(1.0, ["a.en", "a.fr"])]
    assert weighted(["a.tsv", {"files": "b.tsv", "weight": 2}, ["a.en", "a.fr"]]) == [
        (1.0, [{"files": "a.tsv"}, {"files": ["a.en", "a.fr"]}]),
        (2.0, [{"files": "b.tsv", "weight": 2}]),
    ]
    assert weighted({"files": "b.tsv", "weight": 2}) == [(2.0, [{"files": "b.tsv", "weight": 2}])]


def test_paths_are_found_and_changed_wherever_they_stand():
    data = ["a", ["b", "c"], {"files": "d", "weight": 2, "source_key": "e"}, {"source": ["f"], "target": "g"}]
    assert paths_in(data) == list("abcdfg")
    assert map_paths(data, str.upper) == [
        "A",
        ["B", "C"],
        {"files": "D", "weight": 2, "source_key": "e"},
        {"source": ["F"], "target": "G"},
    ]
