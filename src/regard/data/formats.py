"""Parallel text in the formats people keep it in, read line by line and refused where it would misalign."""

import functools
import gzip
import io
import json
import logging
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from regard.errors import RegardError

LONGEST_LINE = 1 << 20
BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
MARKUP_STARTS = ("<!doctype", "<html", "<head", "<body", "<?xml", "<!--")
COMPRESSIONS: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open}
COMPRESSION_SUFFIXES = (".gz", ".xz")

logger = logging.getLogger("regard")


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str

    @property
    def is_blank(self) -> bool:
        """Whether a side has nothing to read."""
        return not (self.source.strip() and self.target.strip())


def read_lines(path: Path | str, *, stream: io.BufferedIOBase | None = None) -> Iterator[str]:
    r"""The lines of a UTF-8 text file, split at "\n" only; "-" is standard input, gzip and xz are unpacked.

    Where there is a `stream`, it is read, and the path is but its name.

    Raises RegardError for what is not text: no file, nothing in it, another encoding, NUL bytes, HTML, a broken
    archive, a line longer than LONGEST_LINE bytes; and for carriage returns in place of newlines.
    """
    name = display_name(path)
    return_told = False
    offset = 0
    at_start = True
    with _reading(path, name, stream) as data:
        for number, raw in enumerate(_raw_lines(data, name), 1):
            line = raw.removesuffix(b"\n")
            if number == 1 and line.startswith(BOM):
                tell_once("%s: byte order mark dropped", name)
                line = line.removeprefix(BOM)
                if raw == BOM:
                    raise _empty(name)
            if line.endswith(b"\r"):
                line = line.removesuffix(b"\r")
                if not return_told:
                    tell_once("%s:%d: carriage return at the end of lines removed, here and below", name, number)
                    return_told = True
            text = _decoded(line, name, number, offset)
            if number == 1 and "\r" in text and not raw.endswith(b"\n"):
                raise RegardError(f"{name}: its lines end in carriage returns alone; save it with newlines (LF)")
            if at_start and text.strip():
                at_start = False
                if text.lstrip()[:20].lower().startswith(MARKUP_STARTS):
                    raise RegardError(
                        f"{name}:{number}: this is HTML or XML, not plain text; save the text of the page alone"
                    )
            yield text
            offset += len(raw)


def read_pairs(paths: Sequence[Path | str]) -> Iterator[Pair]:
    """The sentence pairs of one file with both sides, or of two files aligned line by line.

    One path is read by its suffix (FORMATS), as tab-separated where it has none of these; "-" is tab-separated
    standard input. Pairs with a blank side are dropped whole, and their number is logged.
    Raises RegardError as `read_lines` does, and where the two sides do not fit together.
    """
    blank = 0
    for pair in read_all_pairs(paths):
        if pair.is_blank:
            blank += 1
        else:
            yield pair
    if blank:
        names = " and ".join(display_name(path) for path in paths)
        tell_once("%s: pairs skipped because a side is blank: %d", names, blank)


def read_all_pairs(paths: Sequence[Path | str]) -> Iterator[Pair]:
    """A pair for every line, as `read_pairs` reads them, blank ones too."""
    if len(paths) not in (1, 2):
        raise RegardError(f"a corpus is one file with both sides or two aligned files, not {len(paths)} files")
    return _read_aligned(*paths) if len(paths) == 2 else FORMATS.get(file_suffix(paths[0]), _read_tsv)(paths[0])


@functools.cache
def tell_once(message: str, *details: object) -> None:
    """Log a warning, once in a program: files are read several times over."""
    logger.warning(message, *details)


def write_tsv(path: Path, pairs: Iterable[Pair]) -> int:
    """Write one pair a line, source before tab before target; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            assert not any(mark in side for side in pair for mark in "\t\n"), pair
            file.write(f"{pair.source}\t{pair.target}\n")
            count += 1
    return count


def display_name(path: Path | str) -> str:
    """How errors name a path."""
    return "standard input" if str(path) == "-" else str(path)


@contextmanager
def _reading(path: Path | str, name: str, stream: io.BufferedIOBase | None) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked, with every way in which that can fail said as a RegardError."""
    try:
        if stream is not None or str(path) == "-":
            yield _unpacked(stream or sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                yield _unpacked(file)
    except FileNotFoundError:
        raise RegardError(f"{name}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise RegardError(f"{name}: this is a folder; name a file in it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise RegardError(f"{name}: the compressed file is cut off or damaged ({error}); copy it again") from None
    except OSError as error:
        raise RegardError(f"{name}: cannot be read: {error.strerror or error}") from None


def _unpacked(stream: Any) -> BinaryIO:
    buffered = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    head = buffered.peek(6)
    for magic, unpack in COMPRESSIONS.items():
        if head.startswith(magic):
            return unpack(buffered)
    return buffered


def _raw_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    number = 0
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw.removesuffix(b"\n")) > LONGEST_LINE:
            raise RegardError(
                f"{name}:{number}: the line is longer than {LONGEST_LINE} bytes; put one sentence on each line"
            )
        yield raw
    if not number:
        raise _empty(name)


def _empty(name: str) -> RegardError:
    return RegardError(f"{name}: the file is empty; it needs a sentence on each line")


def _decoded(line: bytes, name: str, number: int, offset: int) -> str:
    if number == 1 and (line.startswith(UTF16_BOMS) or _alternates_with_nul(line)):
        raise RegardError(f"{name}: the file looks like UTF-16; save it as UTF-8")
    if (nul := line.find(0)) >= 0:
        raise RegardError(f"{name}:{number}: NUL at byte {offset + nul}; this is not plain text, save it as UTF-8")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        place = offset + error.start
        raise RegardError(f"{name}:{number}: not UTF-8 at byte {place}; save the file as UTF-8") from None


def _alternates_with_nul(line: bytes) -> bool:
    # a UTF-16 file may be read from its odd byte: its newline is two bytes long
    half = len(line) // 2
    return half > 0 and max(line[::2].count(0), line[1::2].count(0)) >= half


def _read_aligned(source: Path | str, target: Path | str) -> Iterator[Pair]:
    counts = [0, 0]
    for sides in zip_longest(read_lines(source), read_lines(target)):
        counts = [count + (side is not None) for count, side in zip(counts, sides, strict=True)]
        if counts[0] == counts[1]:
            yield Pair(*sides)
    if counts[0] != counts[1]:
        raise RegardError(
            f"{display_name(source)} has {counts[0]} lines but {display_name(target)} has {counts[1]}; "
            "line n of one must be the translation of line n of the other"
        )


def _read_tsv(path: Path | str) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        columns = line.split("\t")
        if not line.strip():
            columns = ["", ""]
        if len(columns) != 2:
            raise RegardError(
                f"{display_name(path)}:{number}: {len(columns)} columns where two are needed: source, tab, target "
                "(or give two files, one for each side)"
            )
        yield Pair(*columns)


def _read_jsonl(path: Path | str) -> Iterator[Pair]:
    keys: tuple[str, ...] = ()
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            yield Pair("", "")
            continue
        where = f"{display_name(path)}:{number}"
        record = parse_json_line(line, where)
        if isinstance(record, dict) and isinstance(record.get("translation"), dict):
            record = record["translation"]
            # the first line says which language comes first, however later ones are ordered
            keys = keys or tuple(record)
        else:
            keys = ("source", "target")
        yield _pair_of(record, keys, where)


def _pair_of(record: object, keys: tuple[str, ...], where: str) -> Pair:
    sides = [record.get(key) for key in keys] if isinstance(record, dict) else []
    texts = [side for side in sides if isinstance(side, str)]
    if len(sides) != 2 or len(texts) != 2:
        wanted = " and ".join(repr(key) for key in keys) if len(keys) == 2 else "two languages"
        raise RegardError(f'{where}: needs texts under {wanted}, like {{"source": "one", "target": "un"}}')
    for text in texts:
        check_whole(text, where)
    return Pair(*texts)


def parse_json_line(line: str, where: str) -> object:
    """What a line of a .jsonl file holds. Raises RegardError where it is no JSON."""
    try:
        return json.loads(line)
    # RecursionError: thousands of nested brackets
    except (json.JSONDecodeError, RecursionError) as error:
        raise RegardError(f"{where}: not a JSON object ({error}); write one object on each line") from None


def check_whole(text: str, where: str) -> None:
    """Raise RegardError for a text that JSON's escapes left with half a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RegardError(f"{where}: half a surrogate pair at character {error.start} of {text[:40]!a}") from None


def file_suffix(path: Path | str) -> str:
    """The ending of a file's name that tells its format, small and without that of a compression."""
    name = Path(path).name.lower()
    for suffix in COMPRESSION_SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(name).suffix


FORMATS: dict[str, Callable[[Path | str], Iterator[Pair]]] = {
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
}
