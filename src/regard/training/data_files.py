"""Where a run finds its data again: paths that hold from any folder, and a copy of what came by standard input."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from regard.data.corpora import Corpus
from regard.data.formats import write_tsv
from regard.data.links import write_links
from regard.training.recipe import DataConfig, Recipe

SPLITS = ("train", "dev", "test")
# settings that name files
FILES = (*SPLITS, "dev_links", "test_links")


def with_data_at_hand(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe that finds its data from any folder; what came by standard input is kept in the run."""
    if recipe.data.train != "-":
        return replace(recipe, data=with_files(recipe.data, absolute))
    corpus = recipe.corpus()
    assert isinstance(corpus, Corpus), "plain text by standard input"
    files = files_of_stdin(folder, recipe.data)
    (folder / "data").mkdir()
    for split in SPLITS:
        write_tsv(Path(files[split]), corpus.pairs(split))
    for split in corpus.links:
        # of the very pairs that were written: those with a blank side are gone
        write_links(Path(files[f"{split}_links"]), (links for _, links in corpus.gold(split)))
    return replace(recipe, data=replace(recipe.data, **files))


def files_of_stdin(folder: Path, data: DataConfig) -> dict[str, str]:
    """Where a run keeps its data that came by standard input, by the settings that name them."""
    names = {split: f"{split}.tsv" for split in SPLITS} | {f"{split}_links": f"{split}.links" for split in data.links}
    return {setting: str((folder / "data" / name).resolve()) for setting, name in names.items()}


def with_files(data: DataConfig, change: Callable[[str], str]) -> DataConfig:
    """The settings with every path of a file changed."""
    files = {name: getattr(data, name) for name in FILES}
    changed = {
        name: [change(path) for path in paths] if isinstance(paths, list) else change(paths)
        for name, paths in files.items()
        if paths is not None
    }
    if data.tokenizer_file is not None:
        changed["tokenizer"] = change(data.tokenizer_file)
    return replace(data, **changed)


def absolute(path: str) -> str:
    """The path as seen from any folder; standard input stays what it is."""
    return path if path == "-" else str(Path(path).resolve())


def from_within(folder: Path, path: str) -> str:
    """The path of a file in the run as seen from the run, so that the folder can be moved."""
    inside = Path(path).is_relative_to(folder.resolve())
    return Path(path).relative_to(folder.resolve()).as_posix() if inside else path
