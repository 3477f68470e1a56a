"""Parquet and Arrow files, read batch by batch; pyarrow checks what they hold before any of it is used."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from regard.data.columns import Columns
from regard.data.json_records import TRANSLATION
from regard.data.lines import LONGEST_DOCUMENT, LONGEST_LINE
from regard.data.packing import BOMB_RATIO, BOMB_SIZE, on_disk
from regard.errors import RegardError

ROWS, FEW_ROWS = 1024, 64
# of the metadata of a Parquet file
LONGEST_METADATA = 1 << 26
MOST_ITEMS = 1 << 20


def read_parquet(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The wanted columns of each row; an empty cell is a blank text.

    Raises RegardError for a file that is damaged or unpacks to more than text does, and for columns of no text.
    """
    yield from _read(path, columns, _parquet)


def read_arrow(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The same of an Arrow file: of either format, or Feather."""
    yield from _read(path, columns, _arrow)


def _read(path: Path | str, columns: Columns, opened: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    try:
        import pyarrow as pa
    except ImportError:
        raise RegardError(f"{path}: Parquet and Arrow files need pyarrow: pip install 'regard[data]'") from None
    if on_disk(path) != path or str(path) == "-":
        raise RegardError(f"{path}: a Parquet or Arrow file is read from disk; unpack it and name the file")
    longest = LONGEST_LINE if columns.task == "pairs" else LONGEST_DOCUMENT
    row = size = 0
    try:
        most = max(BOMB_SIZE, BOMB_RATIO * Path(path).stat().st_size)
        with ExitStack() as stack:
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
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file; check the path") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())[:200]
        raise RegardError(f"{path}: not a whole Parquet or Arrow file ({told}); copy it again") from None


def _parquet(path: Path | str, columns: Columns, stack: ExitStack) -> tuple[list[str], Iterator[Any]]:
    from pyarrow import parquet

    limits: dict[str, Any] = {"thrift_string_size_limit": LONGEST_METADATA, "thrift_container_size_limit": MOST_ITEMS}
    with parquet.ParquetFile(path, **limits) as file:
        names, fields = _chosen(file.schema_arrow, columns, str(path))
    # a text that is in the file once is in memory once, however many rows have it; of structs pyarrow cannot do that
    shared = [name for name in names if name in fields]
    rows = ROWS if shared == names else FEW_ROWS
    file = stack.enter_context(parquet.ParquetFile(path, pre_buffer=False, read_dictionary=shared, **limits))
    return names, file.iter_batches(batch_size=rows, columns=fields, use_threads=False)


def _arrow(path: Path | str, columns: Columns, stack: ExitStack) -> tuple[list[str], Iterator[Any]]:
    import pyarrow as pa

    source = stack.enter_context(pa.memory_map(str(path)))
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if not is_file:
        reader = stack.enter_context(pa.ipc.open_stream(source))
        return _chosen(reader.schema, columns, str(path))[0], iter(reader)
    reader = stack.enter_context(pa.ipc.open_file(source))
    batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    return _chosen(reader.schema, columns, str(path))[0], batches


def _chosen(schema: Any, columns: Columns, where: str) -> tuple[list[str], list[str]]:
    """The columns to read, where a dot leads into a struct, and the fields of the file that hold them."""
    import pyarrow as pa

    if len(set(schema.names)) < len(schema.names):
        raise RegardError(f"{where}: two of its columns have one name; rename them")
    present = []
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
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
    for start in range(0, len(found), ROWS):
        yield from found.slice(start, ROWS).to_pylist()
