"""Text files as lines: UTF-8, read one by one, and refused where they are no text."""

import functools
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from regard.data.kinds import HEAD, Task, kind_of_line, refused
from regard.data.packing import display_name, open_bytes
from regard.errors import RegardError

LONGEST_LINE = 1 << 20
# of a document that is one line: a book, or a table's cell with one
LONGEST_DOCUMENT = 1 << 26
# of a plain text: where a line is longer it is read in parts
LONGEST_PIECE = 1 << 14
BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

logger = logging.getLogger("regard")


@functools.cache
def tell_once(message: str, *details: object) -> None:
    """Log a warning, once in a program: files are read several times over."""
    logger.warning(message, *details)


def read_lines(path: Path | str, task: Task = "lines", *, stream: io.BufferedIOBase | None = None) -> Iterator[str]:
    r"""The lines of a UTF-8 text file, split at "\n" only; "-" is standard input, compressed files are unpacked.

    Where there is a `stream`, it is read, and the path is but its name.
    What is no text is refused with a remedy for this `task`. A line of a document may be LONGEST_DOCUMENT bytes long,
    any other LONGEST_LINE.
    Raises RegardError for what is not text: no file, nothing in it, another encoding, NUL bytes, HTML, a document of
    another program, a broken archive, a line that is too long; and for carriage returns in place of newlines.
    """
    longest = LONGEST_DOCUMENT if task == "documents" else LONGEST_LINE
    return (text.removesuffix("\n") for text in _read(path, task, longest, cut=False, given=stream))


def read_lines_and_errors(path: Path | str) -> Iterator[str | RegardError]:
    """The lines of a text file as `read_lines` gives those of documents, with the error in place of a bad one.

    Raises RegardError for what is wrong with the file as a whole, and for a line that is too long.
    """
    errors: list[RegardError] = []
    for text in _read(path, "documents", LONGEST_DOCUMENT, cut=False, bad=errors.append):
        yield errors.pop() if errors else text.removesuffix("\n")


def read_pieces(path: Path | str) -> Iterator[str]:
    r"""A plain text in pieces: its lines, each with its "\n", and those longer than LONGEST_PIECE bytes in parts.

    Raises RegardError as `read_lines` does, but for no length of a line.
    """
    return _read(path, "documents", LONGEST_PIECE, cut=True)


def _read(
    path: Path | str,
    task: Task,
    longest: int,
    *,
    cut: bool,
    given: io.BufferedIOBase | None = None,
    bad: Callable[[RegardError], object] | None = None,
) -> Iterator[str]:
    name = display_name(path)
    return_told = False
    number, offset = 1, 0
    at_start = True
    decoder = _Decoder(name)
    with open_bytes(path, task, stream=given) as stream:
        for raw in _raw_lines(stream, name, longest, cut=cut):
            line = raw.removesuffix(b"\n")
            end = "\n" if len(line) < len(raw) else ""
            if not offset and line.startswith(BOM):
                tell_once("%s: byte order mark dropped", name)
                line = line.removeprefix(BOM)
                if raw == BOM:
                    raise empty(name)
            if line.endswith(b"\r") and not (cut and not end):
                line = line.removesuffix(b"\r")
                if not return_told:
                    tell_once("%s:%d: carriage return at the end of lines removed, here and below", name, number)
                    return_told = True
            try:
                text = decoder.decoded(line, number, offset)
            except RegardError as error:
                if bad is None:
                    raise
                # an empty line stands in its place
                bad(error)
                text = ""
            if number == 1 and "\r" in text and not end:
                raise RegardError(f"{name}: its lines end in carriage returns alone; save it with newlines (LF)")
            if at_start and text.strip():
                at_start = False
                # what follows in a stream may be long in coming
                kind = kind_of_line(text, b"" if given is not None else stream.peek(HEAD)[:HEAD])
                if kind is not None:
                    raise refused(f"{name}:{number}", kind, task)
            yield text + end
            offset += len(raw)
            number += len(end)


def check_whole(text: str, where: str) -> None:
    """Raise RegardError for a text that JSON's escapes left with half a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RegardError(f"{where}: half a surrogate pair at character {error.start} of {text[:40]!a}") from None


def empty(name: str) -> RegardError:
    """The error for a file with nothing in it."""
    return RegardError(f"{name}: the file is empty; it needs a sentence on each line")


def _raw_lines(stream: io.BufferedReader, name: str, longest: int, *, cut: bool) -> Iterator[bytes]:
    number, rest, is_empty = 0, b"", True
    while raw := stream.readline(longest + 1):
        raw, rest = rest + raw, b""
        is_empty = False
        number += 1
        if len(raw.removesuffix(b"\n")) > longest:
            if not cut:
                raise RegardError(
                    f"{name}:{number}: the line is longer than {longest} bytes; put one sentence on each line"
                )
            if not raw.endswith(b"\n"):
                number -= 1
                raw, rest = _cut_between_characters(raw)
        yield raw
    if rest:
        yield rest
    if is_empty:
        raise empty(name)


def _cut_between_characters(raw: bytes) -> tuple[bytes, bytes]:
    """The bytes up to where their last character begins, or the carriage return that may belong to a newline."""
    end = len(raw) - 1
    while end > len(raw) - 4 and raw[end] & 0xC0 == 0x80:
        end -= 1
    return raw[:end], raw[end:]


class _Decoder:
    """Decodes line after line, and remembers whether UTF-8 was proved by a character beyond ASCII."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_utf8 = False

    def decoded(self, line: bytes, number: int, offset: int) -> str:
        if line.isascii() and 0 not in line:
            return line.decode("ascii")
        name = self._name
        if number == 1 and (line.startswith(UTF16_BOMS) or _alternates_with_nul(line)):
            raise RegardError(f"{name}: the file looks like UTF-16; save it as UTF-8")
        if (nul := line.find(0)) >= 0:
            mixed = number > 1 and (line.startswith(UTF16_BOMS) or _alternates_with_nul(line))
            what = (
                "UTF-16 begins here: the file holds two encodings; save its parts as UTF-8 and join them again"
                if mixed
                else "this is not plain text, save it as UTF-8"
            )
            raise RegardError(f"{name}:{number}: NUL at byte {offset + nul}; {what}")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            place = offset + error.start
            remedy = (
                "lines before it are UTF-8: the file holds two encodings; save its parts as UTF-8 and join them again"
                if self._is_utf8
                else "save the file as UTF-8"
            )
            raise RegardError(f"{name}:{number}: not UTF-8 at byte {place}; {remedy}") from None
        self._is_utf8 = True
        return text


def _alternates_with_nul(line: bytes) -> bool:
    # a UTF-16 file may be read from its odd byte: its newline is two bytes long
    half = len(line) // 2
    return half > 0 and max(line[::2].count(0), line[1::2].count(0)) >= half
