"""A shard: the rows of some records that follow one another, in a file of its own that appears whole or not at all."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from regard.data.download import file_sha256
from regard.errors import RegardError
from regard.files import new_file
from regard.jobs.columns import COLUMNS, JSON
from regard.jobs.records import Inputs, Reader, Record
from regard.jobs.work import Job, Row
from regard.reading.atlas import Atlas
from regard.reading.tally import Tally

ON_ERROR = ("stop", "skip")


class Shard(NamedTuple):
    """The number of a shard, the place of its first record, and how many records it has."""

    number: int
    first: int
    records: int


class Written(NamedTuple):
    """What is known of a shard that was written: its counts, of rows whose source was cut too, and its hash.

    `sources` is a hash of its records' ids and texts.
    """

    number: int
    file: str
    first: int
    records: int
    errors: int
    first_error: str
    shortened: int
    bytes: int
    sha256: str
    sources: str


def shards_of(records: int, size: int) -> list[Shard]:
    """The shards of a number of records, with `size` in each but for the last."""
    return [Shard(number, first, min(size, records - first)) for number, first in enumerate(range(0, records, size))]


@final
class ShardWriter:
    """Writes shards of a job into a folder: what each worker is, in whatever process."""

    def __init__(self, job: Job, inputs: Inputs, folder: Path, *, format: str, on_error: str) -> None:
        self.job = job
        self.folder = folder
        self.format = format
        self.on_error = on_error
        self._reader = Reader(inputs)

    def __call__(self, shard: Shard) -> Written:
        """Write one shard. Raises RegardError for a bad record, unless they are skipped, and for a full disk."""
        path = self.folder / name_of(shard.number, self.format)
        errors, first_error, shortened, count = 0, "", 0, 0
        sources = hashlib.sha256()
        with new_file(path) as partial, WRITERS[self.format](partial, COLUMNS.get(self.job.verb, {})) as write:
            for batch in self._batches(shard):
                rows = self.job(batch)
                for record, row in zip(batch, rows, strict=True):
                    if "error" in row:
                        told = _told(record, row["error"])
                        if self.on_error == "stop":
                            raise RegardError(f"{told}; --on-error skip goes on without such records")
                        errors, first_error = errors + 1, first_error or told
                    shortened += "shortened" in row
                    sources.update(f"{json.dumps([record.id, record.texts], ensure_ascii=False)}\n".encode())
                write(rows)
                count += len(rows)
        assert count == shard.records, (count, shard)
        return Written(
            number=shard.number,
            file=path.name,
            first=shard.first,
            records=count,
            errors=errors,
            first_error=first_error,
            shortened=shortened,
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
            sources=sources.hexdigest(),
        )

    def _batches(self, shard: Shard) -> Iterator[Sequence[Record]]:
        records = self._reader.read(shard.first, shard.records)
        while batch := list(itertools.islice(records, self.job.work.together)):
            yield batch


def name_of(number: int, format: str) -> str:
    """The name of a shard's file."""
    return f"shard-{number:06}.{format}"


def is_whole(written: Written, folder: Path) -> bool:
    """Whether a shard's file is there as it was written."""
    path = folder / written.file
    return path.is_file() and path.stat().st_size == written.bytes and file_sha256(path) == written.sha256


def _told(record: Record, error: str) -> str:
    """An error with the record's id, which it may begin with."""
    return error if error.startswith(f"{record.id} has ") else f"{record.id}: {error}"


@contextlib.contextmanager
def _json_lines(path: Path, columns: Mapping[str, Any]) -> Iterator[Callable[[Sequence[Row]], None]]:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda rows: file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


@contextlib.contextmanager
def _parquet(path: Path, columns: Mapping[str, Any]) -> Iterator[Callable[[Sequence[Row]], None]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise RegardError("Parquet needs pyarrow: pip install 'regard[data]'; or leave out --format") from None
    schema = pa.schema([(name, _arrow_type(pa, kind)) for name, kind in columns.items()])
    # names that are JSON keep their text
    as_text = {name for name, kind in columns.items() if kind == JSON}

    def plain(row: Row) -> Row:
        texts = {name: json.dumps(row[name], ensure_ascii=False) for name in as_text & row.keys()}
        return {**row, **texts, "id": str(row["id"])}

    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist([plain(row) for row in rows], schema=schema))


def _arrow_type(pa: Any, kind: Any) -> Any:
    if isinstance(kind, list):
        return pa.list_(_arrow_type(pa, kind[0]))
    if isinstance(kind, Mapping):
        return pa.struct([(name, _arrow_type(pa, inner)) for name, inner in kind.items()])
    return {str: pa.string(), JSON: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}[kind]


@contextlib.contextmanager
def _tally(path: Path, columns: Mapping[str, Any]) -> Iterator[Callable[[Sequence[Row]], None]]:
    """The counts of an atlas, to which each row adds."""
    tally, maker = None, None

    def write(rows: Sequence[Row]) -> None:
        nonlocal tally, maker
        for row in rows:
            if "error" not in row:
                maker = row["of"]
                tally = maker.add(tally, row["measured"])

    yield write
    (Atlas("", "", Tally([], []), {}) if maker is None else maker.atlas(tally)).save(path)


WRITERS = {"jsonl": _json_lines, "parquet": _parquet, "safetensors": _tally}
