"""Parquet and Arrow files, read batch by batch; pyarrow checks what they hold before any of it is used."""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from regard.data.columns import MESSAGES, Columns
from regard.data.json_records import TRANSLATION
from regard.data.lines import LONGEST_DOCUMENT, LONGEST_LINE
from regard.data.packing import BOMB_RATIO, BOMB_SIZE, file_suffix, on_disk
from regard.errors import RegardError

ROWS, FEW_ROWS = 1024, 64
# of the metadata of a Parquet file
LONGEST_METADATA = 1 << 26
MOST_ITEMS = 1 << 20
LIMITS: dict[str, Any] = {"thrift_string_size_limit": LONGEST_METADATA, "thrift_container_size_limit": MOST_ITEMS}


def read_parquet(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The wanted columns of each row; an empty cell is a blank text.

    Raises RegardError for a file that is damaged or unpacks to more than text does, and for columns of no text.
    """
    yield from _read(path, columns, _parquet)


def read_arrow(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The same of an Arrow file: of either format, or Feather."""
    yield from _read(path, columns, _arrow)


def column_names(path: Path | str) -> list[str]:
    """The names of all columns of a Parquet or Arrow file. Raises RegardError for a file that is damaged."""
    with _told(path) as stack:
        if file_suffix(path) != ".parquet":
            return _arrow_reader(path, stack).schema.names
        from pyarrow import parquet

        return stack.enter_context(parquet.ParquetFile(path, **LIMITS)).schema_arrow.names


def count_rows(path: Path | str) -> int:
    """How many rows a Parquet or Arrow file has. Raises RegardError for a file that is damaged."""
    with _told(path) as stack:
        if file_suffix(path) == ".parquet":
            from pyarrow import parquet

            return stack.enter_context(parquet.ParquetFile(path, **LIMITS)).metadata.num_rows
        return sum(batch.num_rows for batch in _arrow_batches(_arrow_reader(path, stack)))


def read_rows(path: Path | str, names: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet or Arrow file, with those of the named columns that it has.

    Raises RegardError for a file that is damaged, and for one that has none of the columns.
    """
    with _told(path) as stack:
        if file_suffix(path) == ".parquet":
            from pyarrow import parquet

            file = stack.enter_context(parquet.ParquetFile(path, pre_buffer=False, **LIMITS))
            present, wanted = file.schema_arrow.names, [name for name in file.schema_arrow.names if name in names]
            batches = file.iter_batches(batch_size=FEW_ROWS, columns=wanted, use_threads=False)
        else:
            reader = _arrow_reader(path, stack)
            present, wanted = reader.schema.names, [name for name in reader.schema.names if name in names]
            batches = (batch.select(wanted) for batch in _arrow_batches(reader))
        if not wanted:
            raise RegardError(
                f"{path}: has the columns {', '.join(present[:12])}; name the one with the text (--column)"
            )
        for batch in batches:
            batch.validate(full=True)
            for start in range(0, len(batch), FEW_ROWS):
                yield from batch.slice(start, FEW_ROWS).to_pylist()


@contextmanager
def _told(path: Path | str) -> Iterator[ExitStack]:
    """What goes wrong in pyarrow meanwhile is a RegardError."""
    try:
        import pyarrow as pa
    except ImportError:
        raise RegardError(f"{path}: Parquet and Arrow files need pyarrow: pip install 'regard[data]'") from None
    if on_disk(path) != path or str(path) == "-":
        raise RegardError(f"{path}: a Parquet or Arrow file is read from disk; unpack it and name the file")
    try:
        with ExitStack() as stack:
            yield stack
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file; check the path") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())[:200]
        raise RegardError(f"{path}: not a whole Parquet or Arrow file ({told}); copy it again") from None


def _read(path: Path | str, columns: Columns, opened: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    longest = LONGEST_LINE if columns.task == "pairs" else LONGEST_DOCUMENT
    row = size = 0
    with _told(path) as stack:
        most = max(BOMB_SIZE, BOMB_RATIO * Path(path).stat().st_size)
        names, batches = opened(path, columns, stack)
        for batch in batches:
            # what does not add up would be read from anywhere in memory
            batch.validate(full=True)
            for texts in zip(*(_cells(batch, name) for name in names), strict=True):
                row += 1
                lengths = [len(text or "") for text in texts]
                size += sum(lengths)
                if max(lengths) > longest:
                    raise RegardError(f"{path}: row {row} has a text of more than {longest} characters; split it")
                if size > most:
                    raise RegardError(
                        f"{path}: unpacks to more than {BOMB_RATIO} times its size, as no text does; if it is "
                        "meant, save it as JSON lines"
                    )
                yield tuple(text or "" for text in texts)


def _parquet(path: Path | str, columns: Columns, stack: ExitStack) -> tuple[list[str], Iterator[Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, **LIMITS) as file:
        names, fields = _chosen(file.schema_arrow, columns, str(path))
    # a text that is in the file once is in memory once, however many rows have it; of what is nested pyarrow cannot
    # do that
    shared = [name for name in names if name in fields and columns.names != MESSAGES]
    rows = ROWS if shared == names else FEW_ROWS
    file = stack.enter_context(parquet.ParquetFile(path, pre_buffer=False, read_dictionary=shared, **LIMITS))
    return names, file.iter_batches(batch_size=rows, columns=fields, use_threads=False)


def _arrow(path: Path | str, columns: Columns, stack: ExitStack) -> tuple[list[str], Iterator[Any]]:
    reader = _arrow_reader(path, stack)
    return _chosen(reader.schema, columns, str(path))[0], _arrow_batches(reader)


def _arrow_batches(reader: Any) -> Iterator[Any]:
    if not hasattr(reader, "num_record_batches"):
        return iter(reader)
    return (reader.get_batch(index) for index in range(reader.num_record_batches))


def _arrow_reader(path: Path | str, stack: ExitStack) -> Any:
    import pyarrow as pa

    source = stack.enter_context(pa.memory_map(str(path)))
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    return stack.enter_context(pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source))


def _chosen(schema: Any, columns: Columns, where: str) -> tuple[list[str], list[str]]:
    """The columns to read, where a dot leads into a struct, and the fields of the file that hold them."""
    import pyarrow as pa

    if len(set(schema.names)) < len(schema.names):
        raise RegardError(f"{where}: two of its columns have one name; rename them")
    present = []
    wanted = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    wanted = (pa.types.is_list, pa.types.is_large_list) if columns.names == MESSAGES else wanted
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if any(is_wanted(kind) for is_wanted in wanted):
            present.append(field.name)
        elif pa.types.is_struct(kind) and field.name == TRANSLATION and columns.task == "pairs":
            present += [f"{field.name}.{inner.name}" for inner in kind.fields]
    if not present:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:12])
        raise RegardError(f"{where}: has no column of text, but {kinds or 'none at all'}; save one as strings")
    prefix = f"{TRANSLATION}."
    shown = [name.removeprefix(prefix) for name in present]
    names = [present[place] for place in columns.find(shown if len(set(shown)) == len(shown) else present, where)]
    return names, list(dict.fromkeys(name.partition(".")[0] if name.startswith(prefix) else name for name in names))


def _cells(batch: Any, name: str) -> Iterator[str | None]:
    import pyarrow as pa

    if name in batch.schema.names:
        found = batch.column(name)
    else:
        outer, _, inner = name.partition(".")
        struct = batch.column(outer)
        # unlike field(), flatten() leaves what is null in the struct null
        found = struct.flatten()[struct.type.get_field_index(inner)]
    if pa.types.is_dictionary(found.type):
        # only those in use: the dictionary of a whole file may come with every batch
        used = found.indices.drop_null().unique()
        texts = dict(zip(used.to_pylist(), found.dictionary.take(used).to_pylist(), strict=True))
        yield from (None if index is None else texts[index] for index in found.indices.to_pylist())
        return
    is_nested = pa.types.is_nested(found.type)
    for start in range(0, len(found), FEW_ROWS if is_nested else ROWS):
        cells = found.slice(start, FEW_ROWS if is_nested else ROWS).to_pylist()
        yield from map(_as_json, cells) if is_nested else cells


def _as_json(messages: Any) -> str | None:
    """A list of messages; what is null in one is not there."""
    if messages is None:
        return None
    given = [{key: value for key, value in (message or {}).items() if value is not None} for message in messages]
    return json.dumps(given, ensure_ascii=False)
