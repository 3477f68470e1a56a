"""Reading text: what is accepted, what is told, what is refused."""

import bz2
import collections
import csv
import gzip
import io
import itertools
import json
import logging
import lzma
import tracemalloc
import zipfile
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data import formats, packing
from regard.data.formats import LONGEST_LINE, Pair, read_lines, read_pairs
from regard.data.text import read_passages
from regard.errors import RegardError

ODD_LINES = ["a\u2028b", "c\u0085d", "e\vf\x0cg\x1ch", "", "<|endoftext|> <s>", "👩‍👩‍👧", "שלום עולם", "\u0301", "中文"]


def file(tmp_path, data: bytes, name="text.txt"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refusal(paths) -> str:
    with pytest.raises(RegardError) as caught:
        list(read_pairs(paths))
    return str(caught.value)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\r\0\ufeff<")), min_size=1))
def test_lines_are_split_at_newlines_only(tmp_path_factory, lines):
    path = file(tmp_path_factory.mktemp("lines"), "".join(f"{line}\n" for line in lines).encode())
    assert list(read_lines(path)) == lines


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").compress(data)


PACKED = [gzip.compress, lzma.compress, bz2.compress, zstd]


@pytest.mark.parametrize("pack", [bytes, *PACKED])
def test_odd_characters_and_empty_lines_stay_in_place_in_every_packing(tmp_path, pack):
    # the suffix says nothing: the first bytes do
    assert list(read_lines(file(tmp_path, pack("\n".join(ODD_LINES).encode())))) == ODD_LINES


def test_standard_input_is_read_as_a_file_is(monkeypatch):
    for data in (b"one\tun\n", gzip.compress(b"one\tun\n")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert list(read_pairs(["-"])) == [Pair("one", "un")]


def test_a_byte_order_mark_and_carriage_returns_are_removed_and_told_once(tmp_path, caplog):
    source = file(tmp_path, b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n", "a.en")
    target = file(tmp_path, b"un\ndeux\ntrois", "a.fr")
    assert list(read_pairs([source, target])) == [("one", "un"), ("two", "deux"), ("three", "trois")]
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 2
    assert all(str(source) in message for message in messages)
    assert "byte order mark" in messages[0]
    assert "carriage return" in messages[1]


def test_a_carriage_return_at_the_end_of_a_single_line_or_within_one_of_several_is_no_fault(tmp_path):
    assert list(read_lines(file(tmp_path, b"one\r"))) == ["one"]
    assert list(read_lines(file(tmp_path, b"one\rtwo\nthree"))) == ["one\rtwo", "three"]


def test_a_pair_with_a_blank_side_is_dropped_whole_and_counted(tmp_path, caplog):
    source = file(tmp_path, b"one\n\nthree\n \n", "a.en")
    target = file(tmp_path, b"un\ndeux\n\n\xe3\x80\x80\n", "a.fr")
    assert list(read_pairs([source, target])) == [("one", "un")]
    assert "blank: 3" in caplog.text
    tsv = file(tmp_path, b"one\tun\n\n\tdeux\nfour\tquatre\n", "a.tsv")
    assert list(read_pairs([tsv])) == [("one", "un"), ("four", "quatre")]
    assert "blank: 2" in caplog.text


def test_json_lines_hold_source_and_target_or_two_languages_in_the_first_lines_order(tmp_path):
    plain = [{"source": "a\u2028b", "target": "ü", "id": 3}, {"target": "y", "source": "x"}]
    nested = [{"translation": {"en": "one", "fr": "un"}}, {"translation": {"fr": "deux", "en": "two"}}]
    for ensure_ascii in (True, False):
        data = "\n".join(json.dumps(record, ensure_ascii=ensure_ascii) for record in plain).encode()
        assert list(read_pairs([file(tmp_path, gzip.compress(data), "a.jsonl.gz")])) == [("a\u2028b", "ü"), ("x", "y")]
    data = "\n".join(map(json.dumps, nested)).encode()
    assert list(read_pairs([file(tmp_path, data, "b.jsonl")])) == [("one", "un"), ("two", "deux")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b"[1]", "'source' and 'target'"),
        (b'{"source": "a"}', "'source' and 'target'"),
        (b'{"source": "a", "target": 3}', "'source' and 'target'"),
        (b'{"translation": {"en": "a"}}', "two languages"),
        (b'{"source": "a", "target": "\\ud800"}', "surrogate"),
    ],
)
def test_a_bad_json_line_is_refused_with_its_number(tmp_path, line, says):
    message = refusal([file(tmp_path, b'{"source": "a", "target": "b"}\n\n' + line, "a.jsonl")])
    assert ("a.jsonl:3:" in message and says in message) or (b"translation" in line and "a.jsonl:3:" in message)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"one\rtwo\r", "carriage returns alone"),
        (b"\xef\xbb\xbfone\rtwo", "carriage returns alone"),
        ("one\nun".encode("utf-16"), "UTF-16"),
        ("one\run".encode("utf-16"), "UTF-16"),
        ("one\nun".encode("utf-16-be"), "UTF-16"),
        ("one\nun".encode("utf-16-le"), "UTF-16"),
        (b"one\nca\xe9\n", ":2: not UTF-8 at byte 6"),
        (b"\xef\xbb\xbfca\xe9\n", ":1: not UTF-8 at byte"),
        (b"one\r\nt\0wo\n", ":2: NUL at byte 6"),
        (b"\n  <!DOCTYPE HTML>\n<p>one</p>", "HTML"),
        (b"<HTML lang=en>", "HTML"),
        (b'<?xml version="1.0"?>\n<page>', "XML"),
        (b'<?xml version="1.0"?>\n<tmx version="1.4">', "translation memory"),
        (b'<?xml version="1.0"?>\n<xliff>', "XLIFF"),
        (
            "é\n".encode() + "é\n".encode("latin-1"),
            ":2: not UTF-8 at byte 3; lines before it are UTF-8: the file holds two",
        ),
        (
            "é\n".encode() + "é\n".encode("utf-16"),
            ":2: NUL at byte 6; UTF-16 begins here: the file holds two encodings",
        ),
        (b"<!-- saved from a page -->\n<p>one</p>", "HTML"),
        (gzip.compress(b"one\n")[:-8] + b"\0" * 8, "damaged"),
        (b"\x1f\x8b\x08" + b"?" * 30, "damaged"),
        (b"\xfd7zXZ\x00" + b"?" * 30, "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_what_is_not_text_is_refused(tmp_path, data, says):
    path = file(tmp_path, data)
    with pytest.raises(RegardError) as caught:
        list(read_lines(path))
    assert str(caught.value).startswith(str(path))
    assert says in str(caught.value)


@pytest.mark.parametrize("pack", PACKED)
def test_a_compressed_file_that_is_cut_off_or_damaged_anywhere_is_refused_and_never_read_short(tmp_path, pack):
    lines = [f"line {number} {number * number % 977}" for number in range(2000)]
    data = pack("\n".join(lines).encode())
    for cut in (20, len(data) // 3, len(data) - 1):
        path = file(tmp_path, data[:cut])
        with pytest.raises(RegardError, match="cut off or damaged"):
            list(read_lines(path))
    if pack is not zstd:
        path = file(tmp_path, data[: len(data) // 2] + b"????????" + data[len(data) // 2 + 8 :])
        with pytest.raises(RegardError, match="cut off or damaged"):
            list(read_lines(path))


@pytest.mark.parametrize("pack", PACKED)
def test_several_compressed_files_one_behind_the_other_are_one_text(tmp_path, pack):
    assert list(read_lines(file(tmp_path, pack(b"one\n") + pack(b"two\n")))) == ["one", "two"]


def zipped(data):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", data)
    return packed.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, zstd, zipped])
def test_a_decompression_bomb_is_refused_before_its_lines_are_read(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(packing, "SUSPICIOUS", 1 << 16)
    monkeypatch.setattr(packing, "BOMB_SIZE", 1 << 21)
    lines = read_lines(file(tmp_path, pack(b"\n" * (1 << 23))))
    read = itertools.count()
    with pytest.raises(RegardError, match="unpacks to more than 200 times its size"):
        collections.deque(zip(lines, read, strict=False), maxlen=0)
    assert next(read) < packing.BOMB_SIZE
    # as much of a text that repeats itself is read
    assert sum(1 for _ in read_lines(file(tmp_path, pack(b"one\n" * (1 << 18))))) == 1 << 18


def test_the_byte_that_is_named_is_the_one_that_breaks_the_codec(tmp_path):
    data = "line\r\n中文\n".encode() + "héé".encode("latin-1")
    with pytest.raises(UnicodeDecodeError) as expected:
        data.decode()
    with pytest.raises(RegardError, match=f":3: not UTF-8 at byte {expected.value.start};"):
        list(read_lines(file(tmp_path, data)))


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "no such file" in refusal([tmp_path / "none.tsv"])
    assert "folder" in refusal([tmp_path])
    assert "3 files" in refusal(["a", "b", "c"])


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_endless_line_is_refused_without_being_held_in_memory(tmp_path, pack):
    path = file(tmp_path, pack(b"x" * (40 * LONGEST_LINE)))
    tracemalloc.start()
    try:
        with pytest.raises(RegardError, match=f":1: the line is longer than {LONGEST_LINE} bytes"):
            list(read_lines(path))
        assert tracemalloc.get_traced_memory()[1] < 8 * LONGEST_LINE
    finally:
        tracemalloc.stop()


def test_the_longest_line_is_still_read(tmp_path):
    longest = "x" * LONGEST_LINE
    assert list(read_lines(file(tmp_path, f"{longest}\n{longest}".encode()))) == [longest, longest]


@pytest.mark.parametrize("longer", [0, 1])
def test_unequal_files_are_refused_with_both_counts(tmp_path, longer):
    names = ["a.en", "a.fr"]
    paths = [file(tmp_path, b"one\n" * (7 if side == longer else 3), names[side]) for side in (0, 1)]
    message = refusal(paths)
    assert f"a.en has {3 if longer else 7} lines" in message
    assert f"a.fr has {7 if longer else 3};" in message


def test_a_table_must_have_two_columns(tmp_path):
    assert "a.tsv:2: 1 column where two are needed" in refusal([file(tmp_path, b"one\tun\ntwo\n", "a.tsv")])
    assert "a.txt:1: 3 columns" in refusal([file(tmp_path, b"one\tun\tein\n", "a.txt")])


def of_csv(pairs, delimiter=",") -> bytes:
    rows = io.StringIO()
    csv.writer(rows, delimiter=delimiter).writerows([("source", "target"), *pairs])
    return rows.getvalue().encode()


def records(pairs) -> list[dict[str, str]]:
    return [dict(zip(SIDES, pair, strict=True)) for pair in pairs]


def of_tmx(pairs) -> bytes:
    tmx = ElementTree.Element("tmx", version="1.4")
    ElementTree.SubElement(tmx, "header", srclang="en")
    body = ElementTree.SubElement(tmx, "body")
    for pair in pairs:
        unit = ElementTree.SubElement(body, "tu")
        for language, text in zip(("en", "fr"), pair, strict=True):
            variant = ElementTree.SubElement(unit, "tuv", {"xml:lang": language})
            ElementTree.SubElement(variant, "seg").text = text
    return ElementTree.tostring(tmx, encoding="utf-8")


def of_arrow(pairs, write) -> bytes:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({side: pa.array([pair[place] for pair in pairs], pa.string()) for place, side in enumerate(SIDES)})
    sink = pa.BufferOutputStream()
    write(table, sink)
    return sink.getvalue().to_pybytes()


def parquet(table, sink):
    pytest.importorskip("pyarrow.parquet").write_table(table, sink, row_group_size=7)


def arrow_stream(table, sink):
    with pytest.importorskip("pyarrow").ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def feather(table, sink):
    pytest.importorskip("pyarrow.feather").write_feather(table, sink)


SIDES = ("source", "target")
# what other programs write of pairs, and which characters their format cannot hold
WRITERS = {
    ".tsv": (lambda pairs: "".join(f"{source}\t{target}\n" for source, target in pairs).encode(), '\t\n"'),
    ".csv": (of_csv, ""),
    ".jsonl": (lambda pairs: "\n".join(map(json.dumps, records(pairs))).encode(), ""),
    ".ndjson": (lambda pairs: "\n".join(map(json.dumps, records(pairs))).encode(), ""),
    ".json": (lambda pairs: json.dumps(records(pairs), indent=2).encode(), ""),
    ".tmx": (of_tmx, "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF]))),
    ".parquet": (lambda pairs: of_arrow(pairs, parquet), ""),
    ".arrow": (lambda pairs: of_arrow(pairs, arrow_stream), ""),
    ".feather": (lambda pairs: of_arrow(pairs, feather), ""),
}
LETTERS = st.characters(codec="utf-8", exclude_characters="\0\r\ufeff")
TEXTS = st.text(LETTERS, min_size=1, max_size=30).filter(str.strip)


def test_every_format_has_a_writer_to_be_tested_against():
    assert set(WRITERS) == set(formats.FORMATS)


@pytest.mark.parametrize("suffix", formats.FORMATS)
@given(data=st.data())
def test_every_format_gives_the_pairs_that_another_program_wrote(tmp_path_factory, suffix, data):
    write, cannot = WRITERS[suffix]
    sides = TEXTS.map(lambda text: "".join(letter for letter in text if letter not in cannot)).filter(str.strip)
    pairs = data.draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=20))
    path = file(tmp_path_factory.mktemp("written"), write([("first one", "le premier"), *pairs]), f"a{suffix}")
    assert list(read_pairs([path])) == [("first one", "le premier"), *pairs]


def zipped(data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.tsv", data)
    return archive.getvalue()


def message_of(read) -> str:
    """What a refusal says; nothing of a file that is read."""
    try:
        collections.deque(read(), maxlen=0)
    except RegardError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("suffix", [*formats.FORMATS, "", ".tsv.gz", ".tsv.bz2", ".tsv.xz", ".tsv.zst", ".zip"])
@given(data=st.data())
def test_whatever_bytes_a_file_has_it_is_read_or_refused(tmp_path_factory, suffix, data):
    pairs = [(f"source {number}", f"cible « {number} »") for number in range(12)]
    written = WRITERS.get(suffix, WRITERS[".tsv"])[0](pairs)
    packs = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd, ".zip": zipped}
    written = packs.get(suffix.removeprefix(".tsv"), bytes)(written)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(written)))
        cut = data.draw(st.integers(0, 9))
        written = written[:place] + data.draw(st.binary(max_size=9)) + written[place + cut :]
    path = file(tmp_path_factory.mktemp("any"), written[: data.draw(st.integers(0, len(written)))], f"a{suffix}")
    for read in (lambda: read_pairs([path]), lambda: read_passages([path])):
        message = message_of(read)
        assert not message or str(path) in message


@pytest.mark.parametrize("suffix", formats.FORMATS)
def test_every_format_streams(tmp_path, suffix, monkeypatch):
    write, _ = WRITERS[suffix]
    pairs = [(f"source {number}", f"cible {number}") for number in range(3000)]
    path = file(tmp_path, write(pairs), f"a{suffix}")
    many = path.stat().st_size
    read = 0
    opened = io.open

    class Counting(io.FileIO):
        def readinto(self, buffer):
            nonlocal read
            count = super().readinto(buffer)
            read += count or 0
            return count

    monkeypatch.setattr("builtins.open", lambda name, mode="r", **more: io.BufferedReader(Counting(name)))
    found = read_pairs([path])
    assert next(found) == pairs[0]
    monkeypatch.setattr("builtins.open", opened)
    # pyarrow opens its files itself
    assert read < many
    assert list(found) == pairs[1:]
