"""The records of a job's files: a line of text, an object of JSON or a row of a table, each with its id."""

import glob
import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from regard.data.columnar import count_rows, read_rows
from regard.data.columns import TEXT
from regard.data.download import file_sha256
from regard.data.json_records import parsed_line, read_records
from regard.data.lines import check_whole, read_lines_and_errors
from regard.data.messages import check_messages
from regard.data.packing import file_suffix, on_disk, open_bytes
from regard.data.parts import parts_of
from regard.errors import RegardError

JSON_LINES, TABLES = (".jsonl", ".ndjson"), (".parquet", ".arrow", ".feather")
# whose lines are no records by themselves
REFUSED = (".tsv", ".csv", ".tmx")
ID = "id"
BLOCK = 1 << 20


class Record(NamedTuple):
    """One record: its place among all from 0, its id, and its texts by their names, or why it has none.

    The id is what the file says under `id`, else the file and the number of the line or row.
    """

    place: int
    id: str | int
    texts: dict[str, Any]
    error: str = ""


@final
@dataclass(frozen=True)
class Names:
    """Under which names a record has its texts: `main` is that of a plain line, `column` what a file calls it.

    Where no `column` is given and a record has none of `inputs`, its main text is also found under `text`.
    """

    main: str
    inputs: tuple[str, ...]
    others: tuple[str, ...] = ()
    column: str | None = None

    @property
    def wanted(self) -> set[str]:
        """All names that are looked for in a file."""
        return {ID, "text", *self.inputs, *self.others, *([self.column] if self.column else [])}

    def texts(self, found: Any) -> dict[str, Any]:
        """The texts of a record as its file has it. Raises RegardError where they are not there or no texts."""
        if isinstance(found, str):
            found = {self.main: found}
        if not isinstance(found, dict):
            raise RegardError("is no object with names, such as " + f'{{"id": 1, "{self.main}": "…"}}')
        if self.column is not None:
            found = {**found, self.main: found.get(self.column)}
        elif all(found.get(name) is None for name in self.inputs):
            found = {**found, self.main: found.get("text")}
        texts = {name: found[name] for name in (*self.inputs, *self.others) if found.get(name) is not None}
        if not texts.keys() & set(self.inputs):
            raise RegardError(f"has no text under {self.column or ' or '.join(self.inputs)!r}")
        for name, text in texts.items():
            if name == "messages":
                # a table has all keys in every message
                text = texts[name] = [_without_null(message) for message in text] if isinstance(text, list) else text
                check_messages(text, name)
                text = json.dumps(text, ensure_ascii=False)
            if not isinstance(text, str):
                raise RegardError(f"{name} is no text but {str(text)[:40]!r}")
            check_whole(text, name)
        return texts


class InputFile(NamedTuple):
    """A file of the input: its name as it was given, where it is, and how many records, bytes and which hash it has."""

    name: str
    path: str
    records: int
    bytes: int
    sha256: str


@final
@dataclass(frozen=True)
class Inputs:
    """The files of a job, whose records are numbered through all of them."""

    files: tuple[InputFile, ...]
    names: Names

    @property
    def records(self) -> int:
        return sum(file.records for file in self.files)

    def told(self) -> dict[str, Any]:
        """What a record of the work says of the input."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.name}\n{file.records}\n{file.sha256}\n".encode())
        sizes = {"records": self.records, "bytes": sum(file.bytes for file in self.files)}
        return {"files": len(self.files), **sizes, "sha256": digest.hexdigest(), "column": self.names.column}

    def read(self, first: int) -> Iterator[Record]:
        """The records from the `first` on. Raises RegardError where a file is not what it was."""
        place = 0
        for file in self.files:
            start, stop = max(0, first - place), file.records
            if start < stop:
                count = start
                for record in itertools.islice(read_file(file, self.names, place), start, stop):
                    count += 1
                    yield record
                if count < stop:
                    raise RegardError(f"{file.name} has {count} records, and had {stop} when the job was begun")
            place += stop


@final
class Reader:
    """Reads records in parts; one behind the last is read on from there, not from the start of its file."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._next, self._records = 0, None

    def read(self, first: int, count: int) -> Iterator[Record]:
        """`count` records from the `first` on. Raises RegardError where a file is not what it was."""
        records, self._records = self._records, None
        if records is None or first < self._next:
            self._next, records = first, self._inputs.read(first)
        skipped = first - self._next
        for record in itertools.islice(records, skipped, skipped + count):
            self._next = record.place + 1
            yield record
        # only where reading came to the end of the part
        self._records = records


def find_files(given: Sequence[str]) -> list[str]:
    """The files that are meant: those named, those in folders, those of patterns, in a fixed order.

    Raises RegardError where one is not there, and for formats whose lines are no records.
    """
    found = [str(file) for name in given for part in parts_of(name, TEXT) for file in part.files]
    for file in found:
        if file_suffix(file) in REFUSED:
            raise RegardError(f"{file}: a job reads plain text, JSON and Parquet; save the column with the text as one")
    places: dict[str, str] = {}
    for file in found:
        if (real := os.path.realpath(file)) in places:
            raise RegardError(f"{file} and {places[real]} are one file; name it once")
        places[real] = file
    return found


def is_many(given: Sequence[str]) -> bool:
    """Whether several files are meant: by their number, a pattern, or a folder."""
    return len(given) != 1 or os.path.isdir(given[0]) or (glob.has_magic(given[0]) and not os.path.exists(given[0]))


def measured(name: str) -> InputFile:
    """Count a file's records and hash it. Raises RegardError for what cannot be read."""
    path = os.path.abspath(name)
    whole = Path(on_disk(path))
    return InputFile(name, path, _count(path), whole.stat().st_size, file_sha256(whole))


def repeated_id(inputs: Inputs) -> str | None:
    """An id that two records have, or None; of each only 64 bits of a hash are kept meanwhile."""
    seen = array("Q", (_hash(record.id) for record in inputs.read(0)))
    hashes, counts = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
    twice = set(hashes[counts > 1].tolist())
    return next((str(record.id) for record in inputs.read(0) if _hash(record.id) in twice), None) if twice else None


def _hash(id: str | int) -> int:
    return int.from_bytes(hashlib.sha256(str(id).encode()).digest()[:8])


def read_file(file: InputFile, names: Names, first: int = 0) -> Iterator[Record]:
    """The records of one file, of which the first has the place `first`.

    Raises RegardError for what is wrong with the file as a whole.
    """
    for number, found in enumerate(_raw(file, names)):
        own = f"{file.name}:{number + 1}"
        if isinstance(found, RegardError):
            yield Record(first + number, own, {}, str(found).replace(file.path, file.name))
            continue
        id = own
        try:
            given = _id_of(found)
            id = own if given is None else given
            yield Record(first + number, id, names.texts(found))
        except RegardError as error:
            yield Record(first + number, id, {}, str(error))


def _without_null(message: Any) -> Any:
    return {key: value for key, value in message.items() if value is not None} if isinstance(message, dict) else message


def _id_of(found: Any) -> str | int | None:
    """The id that a record gives itself. Raises RegardError where that is no text and no number."""
    id = found.get(ID) if isinstance(found, dict) else None
    if id is None:
        return None
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise RegardError(f"{ID} is no text and no whole number but {str(id)[:40]!r}")
    if isinstance(id, str):
        check_whole(id, ID)
    return id


def _raw(file: InputFile, names: Names) -> Iterator[Any]:
    """Each record as the file has it, or the error in its place."""
    suffix = file_suffix(file.path)
    if suffix in TABLES:
        yield from read_rows(file.path, names.wanted)
    elif suffix == ".json":
        yield from (record for _, record in read_records(file.path))
    else:
        for number, line in enumerate(read_lines_and_errors(file.path), 1):
            if suffix not in JSON_LINES or isinstance(line, RegardError):
                yield line
                continue
            try:
                yield parsed_line(line, f"{file.name}:{number}", number, file.name)
            except RegardError as error:
                yield error


def _count(path: str) -> int:
    suffix = file_suffix(path)
    if suffix in TABLES:
        return count_rows(path)
    if suffix == ".json":
        return sum(1 for _ in read_records(path))
    lines, last = 0, b"\n"
    with open_bytes(path, "documents") as file:
        while data := file.read(BLOCK):
            lines += data.count(b"\n")
            last = data[-1:]
    return lines + (last != b"\n")
