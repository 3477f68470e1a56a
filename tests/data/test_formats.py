"""Reading text: what is accepted, what is told, what is refused."""

import gzip
import io
import json
import logging
import lzma
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data import formats
from regard.data.formats import LONGEST_LINE, Pair, read_lines, read_pairs
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


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
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
        (b'<?xml version="1.0"?>\n<tmx>', "XML"),
        (b"<!-- saved from a page -->\n<p>one</p>", "HTML"),
        (gzip.compress(b"one\n" * 9999)[:-12], "damaged"),
        (lzma.compress(b"one\n" * 9999)[:-12], "damaged"),
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
    assert "a.tsv:2: 1 columns" in refusal([file(tmp_path, b"one\tun\ntwo\n", "a.tsv")])
    assert "a.txt:1: 3 columns" in refusal([file(tmp_path, b"one\tun\tein\n", "a.txt")])


@pytest.mark.parametrize("suffix", formats.FORMATS)
def test_every_format_streams(tmp_path, suffix):
    line = {".tsv": b"one\tun\n", ".jsonl": b'{"source": "one", "target": "un"}\n'}[suffix]
    # the last line is broken, but the first pairs are here before it is met
    pairs = read_pairs([file(tmp_path, line * 1000 + b"\xff\n", f"a{suffix}")])
    assert next(pairs) == ("one", "un")
    with pytest.raises(RegardError, match=":1001: not UTF-8"):
        list(pairs)
