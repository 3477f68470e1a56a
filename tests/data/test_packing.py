"""Archives and files of other programs: what is in them, what leads out of them, and what they are called."""

import gzip
import io
import pickle
import sqlite3
import sys
import tarfile
import zipfile

import pytest

from regard.data.corpus import Corpus
from regard.data.formats import read_lines, read_pairs
from regard.data.kinds import is_text, kind_of_bytes
from regard.data.packing import file_suffix, members
from regard.data.text import read_passages
from regard.errors import RegardError

TSV = b"one\tun\ntwo\tdeux\n"
PAIRS = [("one", "un"), ("two", "deux")]


def zipped(files, *, method=zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return archive.getvalue()


def file(tmp_path, data: bytes, name: str):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refusal(read, path) -> str:
    with pytest.raises(RegardError) as caught:
        list(read(path))
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_the_one_file_of_an_archive_is_read_by_its_own_name(tmp_path, method):
    files = {"README.txt": b"about", "__MACOSX/._a": b"\0", "deep/a.csv": b"source,target\none,un\ntwo,deux\n"}
    path = file(tmp_path, zipped(files, method=method), "a.zip")
    assert file_suffix(path) == ".csv"
    assert list(read_pairs([path])) == PAIRS


def test_one_file_of_several_is_read_by_its_place_in_the_archive(tmp_path):
    path = file(
        tmp_path, zipped({"a.en": b"one\ntwo\n", "a.fr": b"un\ndeux\n", "b.tsv.gz": gzip.compress(TSV)}), "a.zip"
    )
    assert list(read_pairs([path / "a.en", path / "a.fr"])) == PAIRS
    assert list(read_pairs([path / "b.tsv.gz"])) == PAIRS
    assert "there is no 'a.de' in it, but a.en, a.fr" in refusal(read_lines, path / "a.de")
    assert "a zip archive of 3 files (a.en, a.fr, b.tsv.gz); name one of them, as in" in refusal(read_lines, path)


@pytest.mark.parametrize("name", ["../a.tsv", "x/../../a.tsv", "/etc/a.tsv", "C:/a.tsv", "..\\a.tsv"])
def test_an_archive_that_names_a_file_outside_of_it_is_refused(tmp_path, name):
    path = file(tmp_path, zipped({name: TSV}), "a.zip")
    for read in (read_lines, members, lambda path: Corpus.from_files(path).pairs("train")):
        assert "a file outside of it; do not trust it" in refusal(read, path)


def test_archives_that_are_damaged_encrypted_or_empty_are_refused(tmp_path):
    data = zipped({"a.tsv": TSV * 1000})
    for cut in (10, len(data) // 2, len(data) - 5):
        assert "cut off or damaged" in refusal(read_lines, file(tmp_path, data[:cut], "cut.zip"))
    changed = bytearray(data)
    changed[60] ^= 0xFF
    assert "damaged" in refusal(read_lines, file(tmp_path, bytes(changed), "changed.zip"))
    locked = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + place] |= 1
    assert "a.tsv is encrypted" in refusal(read_lines, file(tmp_path, bytes(locked), "locked.zip"))
    assert "a zip archive of 0 files (none)" in refusal(read_lines, file(tmp_path, zipped({}), "empty.zip"))


def test_an_archive_within_archives_is_not_followed_forever(tmp_path):
    data = TSV
    for _ in range(9):
        data = gzip.compress(data)
    assert "packed more than 2 times over" in refusal(read_lines, file(tmp_path, data, "a.tsv.gz"))


def office(folder: str) -> bytes:
    return zipped({"[Content_Types].xml": b"<x/>", f"{folder}/document.xml": b"<x/>"})


def tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as opened:
        opened.addfile(tarfile.TarInfo("a.tsv"), io.BytesIO())
    return archive.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table pairs (source, target)")
    return connection.serialize()


# how files of other programs begin, what an error calls them, and its remedies for pairs and for plain text
OTHERS = {
    "a.docx": (office("word"), "a Word document", "as CSV", "as plain text"),
    "a.xlsx": (office("xl"), "a spreadsheet", "as CSV", "as CSV"),
    "a.pptx": (office("ppt"), "a presentation", "as CSV", "as plain text"),
    "a.epub": (zipped({"mimetype": b"", "META-INF/container.xml": b""}), "an e-book", "align", "pandoc"),
    "a.odt": (zipped({"mimetype": b"", "content.xml": b""}), "an OpenDocument file", "as CSV", "as plain text"),
    "a.pt": (zipped({"archive/data.pkl": b""}), "a Python pickle", "JSON lines", "JSON lines"),
    "a.npz": (zipped({"a.npy": b""}), "model weights", "the text itself", "the text itself"),
    "a.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "an old Word or Excel file", "as CSV", "plain text"),
    "a.rtf": (b"{\\rtf1\\ansi one}", "a Rich Text document", "as CSV", "as plain text"),
    "a.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF", "as CSV", "pdftotext"),
    "a.tar.gz": (tar(), "a tar archive", "tar xf", "tar xf"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 30, "an archive", "unpack", "unpack"),
    "a.tsv.lz4": (b"\x04\x22\x4d\x18" + b"\1" * 30, "compressed in a way", "decompress", "decompress"),
    "a.db": (database(), "an SQLite database", "source, target", "texts.csv"),
    "a.pkl": (pickle.dumps(PAIRS), "a Python pickle", "JSON lines", "JSON lines"),
    "a.pickle": (pickle.dumps(PAIRS, protocol=0), "a Python pickle", "JSON lines", "JSON lines"),
    "a.png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "a picture", "the text itself", "the text itself"),
    "a.mp4": (b"\0\0\0\x20ftypisom" + b"\0" * 30, "a video", "the text itself", "the text itself"),
    "a.bin": (b"PAR1" + b"\0" * 30, "a Parquet file", "end in .parquet", "end in .parquet"),
    "a.dat": (b"ARROW1\0\0" + b"\0" * 30, "an Arrow file", "end in .arrow", "end in .arrow"),
    "a.html": (b"<!DOCTYPE html>\n<p>one</p>\n", "HTML", "the text of the page", "the text of the page"),
    "a.xml": (b'<?xml version="1.0"?>\n<tmx version="1.4">', "a translation memory", "end in .tmx", "end in .tmx"),
    "a.xlf": (b'<?xml version="1.0"?>\n<xliff>', "an XLIFF file", "as TMX", "its text alone"),
}
# text to read, but no pairs
TABLES = {
    "a.po": (b'msgid "one"\nmsgstr "un"\n', "a gettext catalogue", "po2tmx"),
    "a.yaml": (b"one: un\n", "a YAML file", "JSON lines"),
    "a.sgm": (b'<srcset setid="a"><seg id="1">one</seg></srcset>\n', "XML or SGML", "without the tags"),
    "a.xml": (b"<corpus>\n<s>one</s>\n</corpus>\n", "XML or SGML", "without the tags"),
    "a.srt": (b"1\n00:00:01,000 --> 00:00:02,000\nOne.\n", "a file of subtitles", "TSV"),
    "a.txt": (b'{"source": "one", "target": "un"}\n', "JSON", "end in .jsonl"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_program_is_called_by_its_name_with_what_to_do_for_the_task(tmp_path, name):
    data, called, for_pairs, for_text = OTHERS[name]
    path = file(tmp_path, data, name)
    for remedy, read in ((for_pairs, lambda path: read_pairs([path])), (for_text, lambda path: read_passages([path]))):
        message = refusal(read, path)
        assert message.startswith(str(path))
        assert called in message
        assert remedy in message
    # whatever it is called
    assert called in refusal(read_lines, file(tmp_path, data, "lines"))


@pytest.mark.parametrize("name", TABLES)
def test_a_text_that_holds_no_table_of_pairs_is_called_by_its_name(tmp_path, name):
    data, called, remedy = TABLES[name]
    message = refusal(lambda path: read_pairs([path]), file(tmp_path, data, name))
    assert called in message
    assert remedy in message
    assert list(read_passages([tmp_path / name]))


@pytest.mark.parametrize("word", ["RIFF", "BZh", "PAR1", "ID3", "GGUF", "ftyp", "Rar", "LZIP", "OggS"])
def test_a_sentence_may_begin_as_a_file_of_another_program_does(tmp_path, word):
    line = f"{word} is what such a file begins with"
    assert is_text(line.encode())
    assert kind_of_bytes(line.encode()) is None
    assert list(read_lines(file(tmp_path, line.encode(), "a.en"))) == [line]


def test_a_first_sentence_about_tags_is_no_web_page(tmp_path):
    lines = ["<head> of the table", "<html> and <body>\tare tags", "<!-- is a comment"]
    for line in lines[:2]:
        assert list(read_lines(file(tmp_path, line.encode(), "a.en"))) == [line]
    for name, mark in (("a.tsv", b"\t"), ("a.txt", b"\t"), ("a.txt", b" ||| ")):
        path = file(tmp_path, b"<head> of the table" + mark + b"en t\xc3\xaate\n", name)
        assert list(read_pairs([path])) == [("<head> of the table", "en tête")]


def test_without_the_packages_for_them_files_are_refused_with_the_extra_that_brings_them(tmp_path, monkeypatch):
    for module, name, data in (
        ("zstandard", "a.tsv.zst", b"\x28\xb5\x2f\xfd" + b"\0" * 9),
        ("pyarrow", "a.parquet", b""),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        path = file(tmp_path, data, name)
        assert "pip install 'regard[data]'" in refusal(lambda path: read_pairs([path]), path)
