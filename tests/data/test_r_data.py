"""R's values, from files built here by the format's own description (R internals, section 1.8)."""

import struct
import zlib

import pytest

from regard.data.austen import chapters
from regard.data.r_data import read_database, read_value
from regard.errors import RegardError

HEADER = b"X\n" + struct.pack(">iii", 2, 0x40201, 0x20300)
NIL = struct.pack(">i", 254)


def characters(text, encoding="utf-8"):
    data = text.encode(encoding)
    level = {"utf-8": 8, "latin-1": 4}[encoding]
    return struct.pack(">ii", 9 | level << 12, len(data)) + data


def strings(texts, encoding="utf-8"):
    return struct.pack(">ii", 16, len(texts)) + b"".join(characters(text, encoding) for text in texts)


def integers(*values):
    return struct.pack(f">ii{len(values)}i", 13, len(values), *values)


def named(values):
    """A list whose attribute "names" is a symbol's value in a linked list."""
    symbol = struct.pack(">i", 1) + characters("names")
    attributes = struct.pack(">i", 2 | 1 << 10) + symbol + strings(list(values)) + NIL
    return struct.pack(">ii", 19 | 1 << 9, len(values)) + b"".join(values.values()) + attributes


def test_texts_numbers_and_names_come_back():
    assert read_value(HEADER + strings(["one", "", "£ 四"])) == ["one", "", "£ 四"]
    assert read_value(HEADER + strings(["£"], "latin-1")) == ["£"]
    assert read_value(HEADER + integers(1, -2, 70_000)) == [1, -2, 70_000]
    assert read_value(HEADER + struct.pack(">iidd", 14, 2, 0.5, -3.0)) == [0.5, -3.0]
    assert read_value(HEADER + struct.pack(">ii", 16, 1) + struct.pack(">ii", 9, -1)) == [None]
    version_3 = b"X\n" + struct.pack(">iiii", 3, 0x40201, 0x30500, 5) + b"UTF-8"
    assert read_value(version_3 + named({"a": integers(1), "b": NIL})) == {"a": [1], "b": None}


def test_a_name_is_written_once_and_then_referred_to():
    first = named({"x": integers(1)})
    symbol = struct.pack(">i", 1) + characters("names")
    second = first.replace(symbol, struct.pack(">i", 1 << 8 | 255)).replace(b"x", b"y")
    both = struct.pack(">ii", 19, 2) + first + second
    assert read_value(HEADER + both) == [{"x": [1]}, {"y": [1]}]


def database(novels):
    values, places = b"", {}
    for name, lines in novels.items():
        plain = HEADER + strings(lines)
        entry = struct.pack(">i", len(plain)) + zlib.compress(plain)
        places[name] = integers(len(values), len(entry))
        values += entry
    return zlib.compress(HEADER + named({"variables": named(places)})), values


def test_a_database_gives_each_value_by_its_name():
    novels = {"one": ["a", "b"], "two": ["ü"] * 5}
    assert read_database(*database(novels)) == novels


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RDX3",
        HEADER,
        HEADER + strings(["one"])[:-1],
        HEADER + struct.pack(">ii", 16, 2**31 - 1),
        HEADER + struct.pack(">ii", 13, 2**31 - 1),
        HEADER + struct.pack(">ii", 13, -5),
        HEADER + struct.pack(">ii", 19, 1) * 1000,
        HEADER + struct.pack(">i", 3),
        b"X\n" + struct.pack(">iii", 4, 0, 0) + NIL,
    ],
    ids=["empty", "magic", "header", "cut", "strings bomb", "integers bomb", "negative", "nested", "code", "version"],
)
def test_what_is_broken_or_not_only_data_is_refused(data):
    with pytest.raises((ValueError, struct.error)):
        read_value(data)
    with pytest.raises(RegardError, match="not a database of R values"):
        read_database(zlib.compress(data), b"")


def test_a_value_that_unpacks_beyond_all_bounds_is_refused():
    with pytest.raises(RegardError, match="larger than"):
        read_database(zlib.compress(bytes(1 << 27)), b"")


def test_a_novel_is_its_chapters_and_nothing_around_them():
    lines = [
        *["EMMA", "", "By Jane Austen", "", "VOLUME I", "", "CHAPTER I", "", "", "One line", "and its  end.", ""],
        *["Another paragraph.", "", "VOLUME II", "", "Chapter 2", "", "It goes", "on.", "", "FINIS"],
    ]
    assert list(chapters(lines)) == [
        "CHAPTER I\n\nOne line and its end.\n\nAnother paragraph.\n",
        "Chapter 2\n\nIt goes on.\n",
    ]
