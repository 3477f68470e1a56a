"""What a recipe names as its data: files, folders and archives, alone or together, as parts that are read in turn.

A part is one corpus: files with both sides, or files of each side. A list of two files may be either; the files say.
"""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from regard.config import suggest
from regard.data.columns import Columns
from regard.data.formats import FORMATS, holds_both_sides
from regard.data.languages import is_language
from regard.data.lines import tell_once
from regard.data.packing import ASIDE, display_name, file_suffix, is_zip, members, on_disk
from regard.errors import RegardError

Name = str | Path
# a file, a list of files or of corpora, or a table with files, source and target, weight and keys
Data = Name | Sequence[Any] | Mapping[str, Any]
FILES, SIDES = ("files",), ("source", "target")
KEYS = ("source_key", "target_key", "text_key")
SETTINGS = (*FILES, *SIDES, "weight", *KEYS)
MOST_FILES = 100_000
MOST_WEIGHT = 1000
# what `save_to_disk` of Hugging Face's datasets writes beside its data
STATE = "state.json"


@dataclass(frozen=True)
class Part:
    """Files that are read together: one with both sides or with documents, or, with a target, those of each side."""

    files: tuple[Name, ...]
    columns: Columns
    target: tuple[Name, ...] = ()

    @property
    def on_disk(self) -> list[Path]:
        """The files themselves, of archives those."""
        return [Path(on_disk(file)) for file in self.files + self.target]


def parts_of(data: Data, columns: Columns) -> list[Part]:
    """The parts of some data, with folders, patterns and archives replaced by the files in them.

    Raises RegardError for what is not there, and where it stays open what the files are.
    """
    if isinstance(data, Mapping):
        return _of_table(data, columns)
    if isinstance(data, str | Path):
        return _of_files(_expanded(data, columns), columns)
    if len(data) == 2 and columns.task == "pairs" and all(isinstance(each, str | Path) for each in data):
        return _of_two(data[0], data[1], columns)
    if len(data) > 2:
        for each in data:
            if isinstance(each, str | Path) and columns.task == "pairs" and os.path.isfile(on_disk(each)):
                _check_both(each)
    return [part for each in data for part in parts_of(each, columns)]


def check_data(data: Any, name: str) -> None:
    """Raises RegardError, which begins with `name`, for what names no data: no path, no list, no table of them."""
    if isinstance(data, str | Path):
        return
    if isinstance(data, Mapping):
        _check_table(data, name)
        return
    if not isinstance(data, Sequence) or not data or not all(map(_is_corpus, data)):
        raise RegardError(f"{name} must be the path of a file, or a list of one or more corpora, not {data!r}")
    if "-" in map(str, paths_in(data)):
        raise _no_stdin(data, name)
    for each in data:
        if isinstance(each, Mapping):
            _check_table(each, name)


def _is_corpus(data: Any) -> bool:
    is_list = isinstance(data, Sequence) and bool(data) and all(isinstance(each, str | Path) for each in data)
    return isinstance(data, str | Path | Mapping) or is_list


def _check_table(table: Mapping[str, Any], name: str) -> None:
    for key in table:
        if key not in SETTINGS:
            raise RegardError(f"{name} has a corpus with the setting {key!r}{suggest(str(key), SETTINGS)}")
    if {*FILES, *SIDES} & table.keys() not in (set(FILES), set(SIDES)):
        example = '{ files = "a.tsv", weight = 2 }'
        raise RegardError(f"{name}: a corpus has either files, or source and target, as in {example}")
    for key in (*FILES, *SIDES):
        paths = _listed(table.get(key, "."))
        if not paths or not all(isinstance(path, str | Path) for path in paths):
            raise RegardError(f"{name}: {key} must be the path of a file, or a list of them, not {table[key]!r}")
        if "-" in map(str, paths):
            raise _no_stdin(table[key], name)
    if "weight" in table and name != "train":
        raise RegardError(f"{name}: weight is of training data; leave it out")
    weight = table.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MOST_WEIGHT:
        raise RegardError(f"{name}: weight must be a number above 0 and at most {MOST_WEIGHT}, not {weight!r}")
    for key in KEYS:
        value = table.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise RegardError(f"{name}: {key} must be the name or the number of a column, not {value!r}")


def weighted(data: Data) -> list[tuple[float, Data]]:
    """The corpora of some data by their weights: of 2, all of a corpus comes twice in an epoch, of 0.5 half of it."""
    if isinstance(data, str | Path) or not any(isinstance(each, Mapping) for each in [data, *data]):
        return [(1.0, data)]
    groups: dict[float, list[Any]] = {}
    for each in [data] if isinstance(data, Mapping) else data:
        table = each if isinstance(each, Mapping) else {"files": each}
        groups.setdefault(float(table.get("weight", 1.0)), []).append(table)
    return list(groups.items())


def map_paths(data: Any, change: Callable[[Any], Any]) -> Any:
    """The same data with every path changed."""
    if isinstance(data, Mapping):
        return {key: map_paths(value, change) if key in (*FILES, *SIDES) else value for key, value in data.items()}
    return [map_paths(each, change) for each in data] if isinstance(data, list | tuple) else change(data)


def paths_in(data: Any) -> list[Name]:
    """All paths in some data, as they are spelt."""
    found: list[Name] = []
    map_paths(data, found.append)
    return found


def data_name(data: Any) -> str:
    """How errors and cards call some data."""
    names = [display_name(path) for path in paths_in(data)]
    return " and ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _of_table(data: Mapping[str, Any], columns: Columns) -> list[Part]:
    keys = [data.get(f"{name}_key", key) for name, key in zip(columns.names, columns.keys, strict=True)]
    columns = replace(columns, keys=tuple(keys))
    if "files" in data:
        return parts_of(data["files"], columns)
    if columns.task != "pairs":
        raise RegardError(f"{data['source']}: a language model learns of text with one side; give it as files")
    source, target = ([file for path in _listed(data[side]) for file in _expanded(path, columns)] for side in SIDES)
    return [_sides(source, target, columns)]


def _of_two(one: Name, other: Name, columns: Columns) -> list[Part]:
    """Two files are two sides or two corpora: that which both of them are."""
    first, second = _expanded(one, columns), _expanded(other, columns)
    if len(first) == len(second) == 1 and "-" not in (one, other):
        both = [holds_both_sides(file) for file in (one, other)]
        if not any(both):
            return [_sides(first, second, columns)]
        if not all(both):
            table, single = (one, other) if both[0] else (other, one)
            raise RegardError(
                f"{table} holds both sides, {single} only one; give two files of one side each, or two corpora"
            )
    return _of_files(first, columns) + _of_files(second, columns)


def _sides(source: Sequence[Name], target: Sequence[Name], columns: Columns) -> Part:
    for file in (*source, *target):
        if file_suffix(file) in FORMATS and file_suffix(file) != ".tsv":
            raise RegardError(
                f"{file}: a file of one side has a sentence on each line; give {file_suffix(file)} files, which hold "
                "both sides, by themselves"
            )
    for one, other in zip(source, target, strict=False):
        suffix = file_suffix(one)
        if suffix == file_suffix(other) and is_language(suffix.removeprefix(".")):
            raise RegardError(
                f"{one} and {other} are both named {suffix}: several files of one side are given as "
                f'{{ source = ["{one}", …], target = [ … ] }}'
            )
    return Part(tuple(source), columns, target=tuple(target))


def _of_files(files: Sequence[Name], columns: Columns) -> list[Part]:
    """Files of a folder or an archive: corpora or documents, or, by the names of their languages, sides."""
    if len(files) == 1 or columns.task != "pairs":
        return [Part((file,), columns) for file in files]
    wanted = [f".{key}".lower() for key in columns.keys if key is not None]
    by_stem: dict[str, dict[str, Name]] = {}
    for file in files:
        suffix = file_suffix(file)
        # of an archive the suffix is that of the file in it
        end = -1 if suffix in FORMATS or not suffix else str(file).lower().rfind(suffix)
        stem = str(file) if end < 0 else str(file)[:end]
        by_stem.setdefault(stem, {})[suffix] = file
    parts = []
    for stem, sides in by_stem.items():
        names = [str(file) for file in sides.values()]
        if len(wanted) == 2 and all(suffix in sides for suffix in wanted):
            parts.append(_sides([sides[wanted[0]]], [sides[wanted[1]]], columns))
            if len(sides) > 2:
                tell_once("%s: left out are all but %s and %s", ", ".join(names), *wanted)
        elif len(sides) == 1 and holds_both_sides(names[0]):
            parts.append(Part(tuple(sides.values()), columns))
        else:
            endings = sorted({suffix.removeprefix(".") for sides in by_stem.values() for suffix in sides})
            raise RegardError(
                f"{stem}: what of {', '.join(names[:4])} is source, what target? "
                f"Say so by the endings of their names (here {', '.join(endings[:8])}): {columns.settings()}"
            )
    return parts


def _check_both(file: Name) -> None:
    if not holds_both_sides(file):
        raise RegardError(
            f"{file} holds one side only, in a list of more than two files; put the two sides of each corpus into a "
            'list: [["a.en", "a.fr"], ["b.en", "b.fr"]]'
        )


def _expanded(path: Name, columns: Columns) -> list[Name]:
    """The files that a path stands for: a folder's or an archive's, those of a pattern, or itself."""
    name = str(path)
    if name == "-" or os.path.isfile(path):
        return _in_archive(path) if is_zip(path) and name.lower().endswith(".zip") else [path]
    if os.path.isdir(path):
        return list(_in_folder(Path(path)))
    if os.path.exists(path):
        raise RegardError(
            f"{path}: a pipe or a device can be read only once, and data are read several times; save it as a file, or "
            "give pairs by standard input: data.train = '-'"
        )
    if on_disk(path) != path:
        return [path]
    if glob.has_magic(name):
        found = sorted(islice(glob.iglob(name, recursive=True), MOST_FILES + 1))
        if not found:
            raise RegardError(f"{path}: no file has such a name; check the pattern")
        return [file for each in found if os.path.isfile(each) for file in _expanded(each, columns)]
    return _by_prefix(name, columns)


def _by_prefix(name: str, columns: Columns) -> list[Name]:
    """The two sides `name.en` and `name.fr`, where the keys are en and fr."""
    sides = [f"{name}.{key}" for key in columns.keys if key is not None]
    if columns.task == "pairs" and len(sides) == 2 and all(map(os.path.isfile, sides)):
        return list(sides)
    beside = sorted(glob.glob(f"{glob.escape(name)}.*"))
    hint = "this is an address: download it and name the file" if "://" in name else "check the path"
    if len(beside) == 2 and columns.task == "pairs":
        hint = f'to read {beside[0]} and {beside[1]} as two sides, give both: ["{beside[0]}", "{beside[1]}"]'
    elif beside:
        hint = f"did you mean {beside[0]!r}?"
    raise RegardError(f"{name}: there is no such file; {hint}")


def _in_archive(path: Name) -> list[Name]:
    found = members(path)
    # one file is read under the archive's own name, and so is what is no archive of texts but a document
    return [path] if len(found) < 2 or "[Content_Types].xml" in found else [f"{path}/{member}" for member in found]


def _in_folder(folder: Path) -> Iterator[Name]:
    files = []
    for root, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        files += [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        if len(files) > MOST_FILES:
            raise RegardError(f"{folder}: more than {MOST_FILES:,} files; join them, or name them by a pattern")
    if any(file.name == STATE for file in files):
        files = [file for file in files if file.suffix == ".arrow"]
    for file in files:
        if not file.is_file():
            what = "a link to nothing" if file.is_symlink() else "no regular file"
            raise RegardError(f"{file}: {what}, in a folder that is to be read; move it out")
    files = [file for file in files if file.name.lower().split(".")[0] not in ASIDE]
    if not files:
        raise RegardError(f"{folder}: there is no file in this folder; name the one that holds the text")
    for file in files:
        yield from _in_archive(file) if file.suffix.lower() == ".zip" and is_zip(file) else [file]


def _unreadable(error: OSError) -> None:
    raise RegardError(f"{error.filename}: cannot be read: {error.strerror}; change its permissions, or move it out")


def _listed(paths: Any) -> Sequence[Any]:
    return paths if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]


def _no_stdin(data: Any, name: str) -> RegardError:
    return RegardError(
        f"{name} is {data!r}, but standard input (-) is no part of a list: give train = '-' with both sides on each "
        "line, tab-separated, or name files"
    )
