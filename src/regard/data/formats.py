"""Formats of text: sentence pairs, and documents, in the files that people keep them in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from regard.data.columnar import read_arrow, read_parquet
from regard.data.columns import PAIR, Columns
from regard.data.json_records import read_json, read_json_lines
from regard.data.lines import LONGEST_LINE, check_whole, read_lines, tell_once
from regard.data.packing import COMPRESSION_SUFFIXES, display_name, file_suffix
from regard.data.tables import BARS, read_table, tsv_lines
from regard.data.tmx import read_tmx
from regard.errors import RegardError

__all__ = [
    "COMPRESSION_SUFFIXES",
    "FORMATS",
    "LONGEST_LINE",
    "Pair",
    "check_whole",
    "display_name",
    "file_suffix",
    "read_all_pairs",
    "read_lines",
    "read_pairs",
    "tell_once",
    "write_tsv",
]

# the first lines of a file say whether both sides are on each
SAMPLE = 20


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str

    @property
    def is_blank(self) -> bool:
        """Whether a side has nothing to read."""
        return not (self.source.strip() and self.target.strip())


def read_pairs(paths: Sequence[Path | str], columns: Columns = PAIR) -> Iterator[Pair]:
    """The sentence pairs of one file with both sides, or of two files aligned line by line.

    One path is read by its suffix (FORMATS), as a table where it has none of these; "-" is tab-separated standard
    input. `columns` says where a file with names has its sides. Pairs with a blank side are dropped whole, and their
    number is logged.
    Raises RegardError as `read_lines` does, and where the two sides do not fit together.
    """
    return without_blanks(read_all_pairs(paths, columns), " and ".join(display_name(path) for path in paths))


def without_blanks(pairs: Iterable[Pair], name: str) -> Iterator[Pair]:
    """The pairs that have two sides; the number of the others is logged."""
    blank = 0
    for pair in pairs:
        if pair.is_blank:
            blank += 1
        else:
            yield pair
    if blank:
        tell_once("%s: pairs skipped because a side is blank: %d", name, blank)


def read_all_pairs(paths: Sequence[Path | str], columns: Columns = PAIR) -> Iterator[Pair]:
    """A pair for every record, as `read_pairs` reads them, blank ones too."""
    if len(paths) not in (1, 2):
        raise RegardError(f"a corpus is one file with both sides or two aligned files, not {len(paths)} files")
    if len(paths) == 2:
        return read_aligned([paths[0]], [paths[1]])
    read = FORMATS.get(file_suffix(paths[0]), read_table)
    return (Pair(*texts) for texts in read(paths[0], columns))


def read_aligned(sources: Sequence[Path | str], targets: Sequence[Path | str]) -> Iterator[Pair]:
    """The pairs of files of each side: line by line in each two, or in all together where their numbers differ."""
    if len(sources) == len(targets):
        return chain.from_iterable(map(_aligned, ([each] for each in sources), ([each] for each in targets)))
    return _aligned(sources, targets)


def holds_both_sides(path: Path | str) -> bool:
    """Whether a file has pairs: by its suffix, or because its first lines all have a tab or " ||| " in them.

    Raises RegardError as `read_lines` does.
    """
    suffix = file_suffix(path)
    if suffix in FORMATS and suffix != ".tsv":
        return True
    lines = list(islice((line for line in read_lines(path, "pairs") if line.strip()), SAMPLE))
    return bool(lines) and any(all(mark in line for line in lines) for mark in ("\t", BARS))


def write_tsv(path: Path, pairs: Iterable[Pair]) -> int:
    """Write one pair a line, source before tab before target; returns how many."""
    count = 0

    def counted() -> Iterator[Pair]:
        nonlocal count
        for pair in pairs:
            assert not any(mark in side for side in pair for mark in "\t\n"), pair
            count += 1
            yield pair

    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in tsv_lines(counted()))
    return count


def _aligned(sources: Sequence[Path | str], targets: Sequence[Path | str]) -> Iterator[Pair]:
    counts = [0, 0]
    lines = (chain.from_iterable(read_lines(path, "pairs") for path in side) for side in (sources, targets))
    for sides in zip_longest(*lines):
        counts = [count + (side is not None) for count, side in zip(counts, sides, strict=True)]
        if counts[0] == counts[1]:
            yield Pair(*sides)
    if counts[0] != counts[1]:
        names = [" and ".join(map(display_name, side)) for side in (sources, targets)]
        raise RegardError(
            f"{names[0]} has {counts[0]} lines but {names[1]} has {counts[1]}; "
            "line n of one must be the translation of line n of the other"
        )


FORMATS: dict[str, Callable[[Path | str, Columns], Iterator[tuple[str, ...]]]] = {
    ".tsv": read_table,
    ".csv": read_table,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".tmx": read_tmx,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
