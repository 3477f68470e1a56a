"""Where a run finds its data again: paths that hold from any folder, and a copy of what came by standard input."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from regard.data.corpora import Corpus
from regard.data.formats import write_tsv
from regard.data.links import write_links
from regard.data.parts import map_paths, weighted
from regard.files import is_stream, real_path
from regard.training.recipe import FILES, SPLITS, DataConfig, Recipe


def with_data_at_hand(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe that finds its data from any folder; what came by standard input is kept in the run."""
    if recipe.data.train != "-":
        return replace(recipe, data=with_files(recipe.data, absolute))
    corpus = recipe.corpus()
    assert isinstance(corpus, Corpus), "plain text by standard input"
    files = files_of_stdin(folder, recipe.data)
    (folder / "data").mkdir()
    for split in SPLITS:
        write_tsv(folder / "data" / f"{split}.tsv", corpus.pairs(split))
    for split in corpus.links:
        # of the very pairs that were written: those with a blank side are gone
        write_links(folder / "data" / f"{split}.links", (links for _, links in corpus.gold(split)))
    return replace(recipe, data=replace(recipe.data, **files))


def files_of_stdin(folder: Path, data: DataConfig) -> dict[str, str | None]:
    """Where a run keeps its data that came by standard input, by the settings that name them; their columns do not."""
    names = {split: f"{split}.tsv" for split in SPLITS} | {f"{split}_links": f"{split}.links" for split in data.links}
    files = {setting: str(real_path(folder / "data" / name)) for setting, name in names.items()}
    return {**files, "source_key": None, "target_key": None}


def with_files(data: DataConfig, change: Callable[[str], str]) -> DataConfig:
    """The settings with every path of a file changed."""
    files = {name: getattr(data, name) for name in FILES}
    changed = {name: map_paths(paths, change) for name, paths in files.items() if paths is not None}
    if data.tokenizer_file is not None:
        changed["tokenizer"] = change(data.tokenizer_file)
    return replace(data, **changed)


def absolute(path: str) -> str:
    """The path as seen from any folder; standard input and a pipe, which leads nowhere, stay what they are."""
    return path if path == "-" or is_stream(Path(path)) else str(real_path(path))


def from_within(folder: Path, path: str) -> str:
    """The path of a file in the run as seen from the run, so that the folder can be moved."""
    inside = Path(path).is_relative_to(real_path(folder))
    return Path(path).relative_to(real_path(folder)).as_posix() if inside else path


def with_files_of(data: DataConfig, other: DataConfig) -> DataConfig:
    """The settings with the files of others, wherever both name some of the same weights; standard input is no file."""
    pairs = ((name, getattr(data, name), getattr(other, name)) for name in FILES)
    return replace(data, **{name: new for name, old, new in pairs if _is_as_heavy(old, new)})


def _is_as_heavy(old: Any, new: Any) -> bool:
    return old is not None and new not in (None, "-") and _weights(old) == _weights(new)


def _weights(data: Any) -> list[float]:
    return [weight for weight, _ in weighted(data)]


def moved_along(path: str, folder: Path, facts: Mapping[str, Any]) -> str:
    """Where a file of the run in `folder` is: where it was, or, if it is gone, as far from the run as it was."""
    found = str(real_path(folder) / path)
    was_in = facts.get("folder")
    if not os.path.exists(found) and isinstance(was_in, str):
        moved = os.path.normpath(real_path(folder) / os.path.relpath(found, was_in))
        return moved if os.path.exists(moved) else found
    return found
