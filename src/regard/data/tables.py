"""Tables of texts: CSV, TSV, Anki's export, and lines with " ||| " between the sides.

CSV is RFC 4180. A TSV line is a record, whatever quotes it has; its fields lose their quotes where these are CSV's.
"""

import csv
import html
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from regard.data.columns import PAIR, Columns, column_number
from regard.data.kinds import kind_of_table, refused
from regard.data.languages import is_language
from regard.data.lines import LONGEST_DOCUMENT, LONGEST_LINE, read_lines, tell_once
from regard.data.packing import display_name, file_suffix
from regard.errors import RegardError

BARS = " ||| "
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", BARS: '" ||| "'}
# lines by which separator and header are found
SAMPLE = 50
# names of columns that are no languages
COLUMN_NAMES = (
    "source target src tgt trg text sentence sentences translation translations original input output id key lang "
    "language label split"
)
LONGEST_NAME = 40
# Tatoeba's sentences as Anki decks have them: who wrote them, under which licence
ATTRIBUTION = re.compile(r"CC[- ]BY|CC0|attribution", re.IGNORECASE)
# how Anki's own export begins
DIRECTIVE = re.compile(r"#(separator|html|columns|[a-z ]+ column|notetype|deck|tags|if matches):(.*)")

ANKI_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "colon": ":", "space": " "}
# how Excel is told what parts the columns
EXCEL_SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
BREAK = re.compile(r"</?(br|p|div|li|hr|tr|td)\b[^<>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


class Row(NamedTuple):
    """A record and the line on which it begins."""

    number: int
    cells: list[str]


def read_table(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The wanted texts of each row; a blank line is a record with nothing in it.

    The first row is a header where the names of columns that were given are in it or where it names languages or
    sides; the log says so. Without names a table must have as many columns as are wanted; of Anki's three the last,
    an attribution, is left out.
    Raises RegardError, with file and line, for another number of columns and for quotes that never close.
    """
    name = display_name(path)
    table = _opened(path, columns)
    blank, first = _first(table.rows)
    yield from (columns.blank for _ in blank)
    if first is None:
        return
    rows = table.rows
    where = f"{name}:{first.number}"
    header = first.cells if table.has_header or is_header(first.cells, columns) else None
    width = len(first.cells)
    if header is not None:
        _check_named(header, columns, where)
        places = columns.find(header, where, told=False)
        tell_once("%s: the first line names the columns; %s", where, columns.told(header, places))
    else:
        rows = chain([first], rows)
        places = _unnamed(first.cells, columns, where, table.separator)
        _tell_suspect(first, table.sample, name)
    for row in rows:
        if not any(map(str.strip, row.cells)):
            yield columns.blank
            continue
        if len(row.cells) != width:
            raise _wrong_width(f"{name}:{row.number}", row.cells, width, columns, table.separator)
        if width > len(places) and header is None and not any(columns.keys):
            _check_left_out(row, len(places), f"{name}:{row.number}", columns, table.separator)
        yield tuple(table.clean(row.cells[place]) for place in places)


def is_header(cells: Sequence[str], columns: Columns) -> bool:
    """Whether a first row names columns: those that were asked for, or languages and sides."""
    if columns.named:
        return True
    lowered = {cell.strip().lower() for cell in cells}
    if len(lowered) < len(cells) or any(len(cell) > LONGEST_NAME for cell in cells):
        return False
    if len(columns.names) == 1:
        return columns.names[0] in lowered
    return sum(is_language(name) or name in COLUMN_NAMES.split() for name in lowered) >= 2


def tsv_lines(records: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Lines of a TSV from which `read_table` gives just these records.

    They are the texts with tabs between them, but for what would be taken for a header or for the quotes of CSV.
    """
    for number, record in enumerate(records):
        if not number and (is_header(record, PAIR) or all(map(_is_quoted, record))):
            yield "\t".join(PAIR.names)
        yield "\t".join(_quoted(text) if _is_quoted(text) and '"' in text[1:-1] else text for text in record)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class _Table(NamedTuple):
    rows: Iterator[Row]
    separator: str
    has_header: bool
    # rows behind the first, to compare it with
    sample: list[list[str]]
    clean: Callable[[str], str]


def _opened(path: Path | str, columns: Columns) -> _Table:
    name, suffix = display_name(path), file_suffix(path)
    lines = enumerate(read_lines(path, columns.task), 1)
    facts, lines = _anki_facts(lines)
    head = list(islice(lines, SAMPLE))
    filled = [(number, line) for number, line in head if line.strip()]
    first = filled[0][1] if filled else ""
    if suffix not in (".csv", ".tsv") and not facts:
        kind = kind_of_table(first, suffix)
        if kind is not None:
            raise refused(name, kind, columns.task)
    lines = chain(head, lines)
    if suffix == ".csv" or facts:
        given = facts.get("separator", "").strip()
        separator = ANKI_SEPARATORS.get(given.lower(), given) if given else _separator(filled, columns, name)
        if len(separator) != 1 or separator == '"':
            raise RegardError(f"{name}:1: {separator!r} cannot part columns; save it with tabs between them, as .tsv")
        rows = _csv_rows(lines, separator, name, columns)
    else:
        is_barred = suffix != ".tsv" and "\t" not in first and BARS.strip() in first.split(" ")
        separator = BARS if is_barred else "\t"
        all_quoted = separator in first and all(map(_is_quoted, first.split(separator)))
        rows = _split_rows(lines, separator, name, all_quoted=all_quoted)
    sample = [line.split(separator) for _, line in filled[1:]]
    clean = _without_markup if facts.get("html", "").strip() == "true" else str
    if clean is _without_markup:
        tell_once("%s: Anki's HTML is removed from its fields", name)
    if "columns" in facts:
        rows = chain([Row(1, facts["columns"].split(separator))], rows)
    if facts:
        rows = (Row(row.number, _without(row.cells, facts)) for row in rows)
    return _Table(rows, separator, "columns" in facts, sample, clean)


def _anki_facts(lines: Iterator[tuple[int, str]]) -> tuple[dict[str, str], Iterator[tuple[int, str]]]:
    """The directives at the head of Anki's own export, or of a CSV for Excel, and the lines behind them."""
    facts: dict[str, str] = {}
    for number, line in lines:
        if not facts and (excel := EXCEL_SEPARATOR.fullmatch(line)):
            return {"separator": excel[1]}, lines
        directive = DIRECTIVE.fullmatch(line)
        begins = directive is not None and directive[1] == "separator" and "\t" not in line
        if directive is None or not (facts or begins):
            return facts, chain([(number, line)], lines)
        facts[directive[1]] = directive[2]
    return facts, lines


def _without(cells: list[str], facts: dict[str, str]) -> list[str]:
    """The fields of a note: without its tags, deck and so on, whose columns the directives number."""
    numbers = {column_number(value.strip()) for key, value in facts.items() if key.endswith(" column")}
    return [cell for number, cell in enumerate(cells, 1) if number not in numbers]


def _without_markup(cell: str) -> str:
    return " ".join(html.unescape(TAG.sub("", BREAK.sub(" ", cell))).split())


def _csv_rows(lines: Iterator[tuple[int, str]], separator: str, name: str, columns: Columns) -> Iterator[Row]:
    begun = size = 0
    longest = LONGEST_LINE if columns.task == "pairs" else LONGEST_DOCUMENT

    def feed() -> Iterator[str]:
        nonlocal begun, size
        for number, line in lines:
            begun = begun or number
            size += len(line) + 1
            if size > longest:
                raise RegardError(f"{name}:{begun}: a quote that opens here does not close within {longest} characters")
            yield line + "\n"

    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_DOCUMENT))
    reader = csv.reader(feed(), delimiter=separator, strict=True)
    while True:
        begun = size = 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            never = "unexpected end" in str(error)
            what = "a quote that opens here never closes" if never else f"not CSV ({error})"
            raise RegardError(
                f'{name}:{begun}: {what}; a quote within quotes is written "", and a file whose quotes are text '
                "is a TSV: let its name end in .tsv, with tabs between the columns"
            ) from None
        if cells is None:
            return
        yield Row(begun, cells)


def _split_rows(lines: Iterator[tuple[int, str]], separator: str, name: str, *, all_quoted: bool) -> Iterator[Row]:
    if all_quoted:
        tell_once("%s: its fields are in quotes, which are removed", name)
    for number, line in lines:
        cells = line.split(separator) if line.strip() else []
        if '"' in line and separator == "\t":
            for place, cell in enumerate(cells):
                # what nobody writes by hand: a doubled quote between quotes
                if _is_quoted(cell) and (all_quoted or '"' in cell[1:-1]):
                    if not all_quoted:
                        tell_once("%s:%d: quotes of CSV around a field removed, here and below", name, number)
                    cells[place] = cell[1:-1].replace('""', '"')
        yield Row(number, cells)


def _separator(filled: list[tuple[int, str]], columns: Columns, name: str) -> str:
    """What parts the columns of a CSV: that by which its first rows have all as many, and as many as are wanted."""
    widths: dict[str, set[int]] = {}
    rows: dict[str, list[list[str]]] = {}
    for separator in ",;\t":
        reader = csv.reader((line + "\n" for _, line in filled), delimiter=separator)
        try:
            rows[separator] = [row for row in reader if row]
        except csv.Error:
            continue
        # a quoted field may go on behind the sample
        whole = rows[separator][:-1] if len(filled) >= SAMPLE - 1 else rows[separator]
        widths[separator] = set(map(len, whole or rows[separator]))
    fit = [separator for separator, found in widths.items() if len(found) == 1 and min(found) > 1]
    wanted = [separator for separator in fit if widths[separator] == {len(columns.names)}]
    headed = [separator for separator in fit if _has_header(rows[separator][0], columns)]
    for chosen in (headed, fit, wanted):
        if len(chosen) == 1:
            return chosen[0]
    if len(fit) > 1:
        names = " or by ".join(SEPARATORS[separator] for separator in fit)
        raise RegardError(f"{name}: its columns may be parted by {names}; save it with tabs between them, as .tsv")
    return ","


def _has_header(cells: list[str], columns: Columns) -> bool:
    return columns.named <= set(cells) if columns.named else is_header(cells, columns)


def _first(rows: Iterator[Row]) -> tuple[list[Row], Row | None]:
    """The blank rows at the start, and the first one with anything in it."""
    blank = []
    for row in rows:
        if any(map(str.strip, row.cells)):
            return blank, row
        blank.append(row)
    return blank, None


def _is_quoted(cell: str) -> bool:
    """Whether it is a field of CSV in quotes: those within are all doubled."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def _check_named(header: list[str], columns: Columns, where: str) -> None:
    if columns.named.isdisjoint(header) and columns.named and not is_header(header, PAIR):
        names = " and ".join(map(repr, sorted(columns.named)))
        raise RegardError(
            f"{where}: the first line does not name {names}; if its columns have no names, give their numbers, for one "
            'of several files as in { files = "a.tsv", source_key = 1, target_key = 2 }'
        )


def _unnamed(cells: list[str], columns: Columns, where: str, separator: str) -> tuple[int, ...]:
    numbers = [column_number(key) for key in columns.keys if key is not None]
    if numbers:
        present = [str(number) for number in range(1, len(cells) + 1)]
        return columns.find(present, where, told=False)
    wanted = len(columns.names)
    if len(cells) < wanted:
        raise _wrong_width(where, cells, wanted, columns, separator)
    if len(cells) > wanted:
        _check_left_out(Row(0, cells), wanted, where, columns, separator)
        tell_once("%s: its last column, an attribution or nothing, is left out", where)
    return tuple(range(wanted))


def _check_left_out(row: Row, wanted: int, where: str, columns: Columns, separator: str) -> None:
    if len(row.cells) > wanted + 1 or (row.cells[-1].strip() and not ATTRIBUTION.search(row.cells[-1])):
        raise _wrong_width(where, row.cells, wanted, columns, separator)


def _wrong_width(where: str, cells: list[str], width: int, columns: Columns, separator: str) -> RegardError:
    count, mark = len(cells), SEPARATORS.get(separator, repr(separator))
    if columns.task == "documents":
        return RegardError(
            f"{where}: {count} columns, parted by {mark}, where one text is wanted; say which column it is: "
            f"{columns.settings([1])}, or let the name end in .txt to learn the lines as they are"
        )
    if width != 2 or columns.names != PAIR.names:
        return RegardError(f"{where}: {count} columns, parted by {mark}, where the first row has {width}")
    if count > 2:
        remedy = f"say which two by their numbers, such as {columns.settings([1, 2])}"
    elif separator == "\t":
        remedy = (
            'if they are parted otherwise, name the file .csv, or put " ||| " between them; if each file has one side, '
            'give both: ["a.en", "a.fr"]'
        )
    else:
        remedy = 'if each file has one side, give both: ["a.en", "a.fr"]'
    found = "1 column" if count == 1 else f"{count} columns"
    return RegardError(f"{where}: {found} where two are needed: source, {mark}, target; {remedy}")


def _tell_suspect(first: Row, sample: list[list[str]], name: str) -> None:
    """Log a first row that may be a header: single words above sentences."""
    words = [len(cell.split()) for cells in sample for cell in cells]
    if len(sample) < 5 or not all(re.fullmatch(r"\w{1,20}", cell.strip()) for cell in first.cells):
        return
    if sum(words) / len(words) >= 3:
        tell_once(
            "%s:%d: %s is read as a pair; if it names the columns, say so by data.source_key and data.target_key",
            name,
            first.number,
            " / ".join(first.cells),
        )
