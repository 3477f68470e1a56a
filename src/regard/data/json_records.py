"""Records of JSON: an object on each line, or one list of them, read one by one."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from regard.data.columns import Columns
from regard.data.kinds import Task
from regard.data.lines import LONGEST_DOCUMENT, LONGEST_LINE, check_whole, read_lines, read_pieces
from regard.data.packing import display_name, file_suffix
from regard.errors import RegardError

BLANKS = re.compile(r"[ \t\n\r]*")
# characters that are read at a time, and those of the longest escape or word in JSON, doubled
PIECE = 1 << 16
LONGEST_TOKEN = 24
# how Hugging Face's sets of translations hold a pair: an object with a text for each language
TRANSLATION = "translation"
# the record of a line with nothing in it
BLANK = object()
EXAMPLES = {"pairs": '{"source": "one", "target": "un"}', "documents": '{"text": "Once upon a time"}'}
Names = list[str]


def read_json_lines(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The wanted texts of each line's record; a blank line is a record with nothing in it.

    Raises RegardError, with file and line, for what is no record or lacks a text.
    """
    yield from _texts(_of_lines(path, columns.task), columns)


def read_json(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The wanted texts of each record of a list, or, where the file is none, of each line.

    Raises RegardError, with file and line, for what is no record or lacks a text.
    """
    yield from _texts(_of_json(path, columns.task), columns)


def read_records(path: Path | str) -> Iterator[tuple[str, Any]]:
    """Each record as JSON has it, with its file and line. Raises RegardError for what is no JSON."""
    found = _of_json(path, "documents") if file_suffix(path) == ".json" else _of_lines(path, "documents")
    return ((where, record) for where, record in found if record is not BLANK)


def _texts(records: Iterator[tuple[str, Any]], columns: Columns) -> Iterator[tuple[str, ...]]:
    reader = RecordReader(columns)
    for where, record in records:
        yield columns.blank if record is BLANK else reader.texts(record, where)


def _of_lines(path: Path | str, task: Task) -> Iterator[tuple[str, Any]]:
    name = display_name(path)
    for number, line in enumerate(read_lines(path, task), 1):
        where = f"{name}:{number}"
        yield where, parsed_line(line, where, number, name) if line.strip() else BLANK


def _of_json(path: Path | str, task: Task) -> Iterator[tuple[str, Any]]:
    pieces = read_pieces(path)
    start = next((piece for piece in pieces if piece.strip()), "")
    pieces.close()  # pyright: ignore[reportAttributeAccessIssue]
    return _listed(path, task) if start.lstrip().startswith("[") else _of_lines(path, task)


class RecordReader:
    """Finds the wanted texts of records. The first decides their names, in whatever order later ones have them."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._names: Names | None = None

    def texts(self, record: Any, where: str) -> tuple[str, ...]:
        """The wanted texts of a record: an object, a list of texts, or a single one."""
        columns = self._columns
        if isinstance(record, str):
            record = [record]
        if isinstance(record, list):
            record = {str(number): value for number, value in enumerate(record, 1)}
        if not isinstance(record, dict):
            raise self._lacking(where)
        record = _unwrapped(record, columns)
        if self._names is None:
            self._names = self._chosen(record, where)
        # null is a blank text, what is not there a fault
        texts = tuple("" if name in record and record[name] is None else record.get(name) for name in self._names)
        if not all(isinstance(text, str) for text in texts):
            raise self._lacking(where)
        for text in texts:
            check_whole(text, where)
        return texts

    def _chosen(self, record: dict[str, Any], where: str) -> Names:
        # of what is a number or a list nothing can be learned
        present = [name for name, value in record.items() if isinstance(value, str) or value is None]
        if not present:
            lists = [name for name, value in record.items() if isinstance(value, list)]
            raise self._lacking(where, f"; save the list under {lists[0]!r} as a file of its own" if lists else "")
        unnamed = all(name.isdecimal() for name in present)
        places = self._columns.find(present, where, what="key", told=not unnamed)
        return [present[place] for place in places]

    def _lacking(self, where: str, remedy: str = "") -> RegardError:
        columns = self._columns
        named = self._names or [str(key or name) for name, key in zip(columns.names, columns.keys, strict=True)]
        wanted = " and ".join(f'"{name}"' if columns.task == "documents" else repr(name) for name in named)
        what = "a text" if len(named) == 1 else "texts"
        return RegardError(f"{where}: needs {what} under {wanted}, like {EXAMPLES[columns.task]}{remedy}")


def _unwrapped(record: dict[str, Any], columns: Columns) -> dict[str, Any]:
    inner = record.get(TRANSLATION)
    is_asked_for = any(key in record for key in columns.keys if key is not None)
    return inner if isinstance(inner, dict) and columns.task == "pairs" and not is_asked_for else record


def parsed_line(line: str, where: str, number: int, name: str) -> Any:
    """The record of a line, the `number`th of the file called `name`. Raises RegardError where it is no JSON."""
    try:
        return json.loads(line)
    # RecursionError: thousands of nested brackets; ValueError: a number of thousands of digits
    except (ValueError, RecursionError) as error:
        if (number == 1 and line.strip() in ("[", "{")) or (number == 1 and line.lstrip().startswith("[{")):
            remedy = "a list of objects belongs into a .json file, one that begins with ["
            raise RegardError(f"{name}: JSON over several lines; {remedy}") from None
        raise RegardError(f"{where}: not a JSON object ({error}); write one object on each line") from None


def _listed(path: Path | str, task: Task) -> Iterator[tuple[str, Any]]:
    """The values of a list of JSON, one by one, each with its file and line."""
    text = _Growing(read_pieces(path), display_name(path), LONGEST_LINE if task == "pairs" else LONGEST_DOCUMENT)
    text.expect("[")
    if text.next_is("]"):
        text.expect("]")
    else:
        while True:
            yield text.value()
            if text.next_is("]"):
                break
            text.expect(",")
        text.expect("]")
    text.expect_end()


class _Growing:
    """JSON that is read piece by piece; what was taken of it is let go."""

    def __init__(self, pieces: Iterator[str], name: str, longest: int) -> None:
        self._pieces = pieces
        self._name = name
        self._longest = longest
        self._decoder = json.JSONDecoder()
        self._text, self._at, self._line = "", 0, 1

    def next_is(self, mark: str) -> bool:
        self._skip_blanks()
        return self._text.startswith(mark, self._at)

    def expect(self, mark: str) -> None:
        if not self.next_is(mark):
            ended = self._at == len(self._text)
            what = "the list ends without its ]" if ended else f"{mark} is missing in the list of records"
            raise RegardError(
                f"{self._where()}: {what}; copy the file again, or write an object on each line of a .jsonl"
            )
        self._at += 1

    def expect_end(self) -> None:
        self._skip_blanks()
        if self._at < len(self._text):
            raise RegardError(f"{self._where()}: something follows the list of records; a .json file holds one list")

    def value(self) -> tuple[str, Any]:
        """The next value, and where it begins."""
        self._skip_blanks()
        where = self._where()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            # RecursionError: thousands of nested brackets; ValueError: a number of thousands of digits
            except (ValueError, RecursionError) as error:
                left = len(self._text) - self._at
                if left > self._longest or not _is_cut_off(error, self._text) or not self._grow(left):
                    raise RegardError(f"{where}: not a record of JSON ({error})") from None
                continue
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            return where, value

    def _where(self) -> str:
        return f"{self._name}:{self._line}"

    def _skip_blanks(self) -> None:
        while True:
            end = cast(re.Match, BLANKS.match(self._text, self._at)).end()
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            if end < len(self._text) or not self._grow(0):
                return

    def _grow(self, least: int) -> bool:
        """Read on, by at least so many characters; whether there was anything."""
        parts, size = [self._text[self._at :]], 0
        for piece in self._pieces:
            parts.append(piece)
            size += len(piece)
            if size > max(least, PIECE):
                break
        self._text, self._at = "".join(parts), 0
        return size > 0


def _is_cut_off(error: Exception, text: str) -> bool:
    """Whether a value may be none only because it goes on behind the text."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - LONGEST_TOKEN
