"""A corpus: sentence pairs in three splits; those that are held out by hash share no source text."""

import contextlib
import hashlib
import itertools
import re
import shutil
import sys
import tempfile
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regard.config import suggest
from regard.data.formats import Pair, display_name, read_all_pairs, read_pairs
from regard.data.links import Links, read_links
from regard.errors import RegardError

MOST_HELD_OUT = 1000
SHARE_HELD_OUT = 0.05
LAST_HASH = 2**64 - 1
NO_LETTERS_OR_DIGITS = re.compile(r"[\W_]+")

Files = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs under `train`, `dev` and `test`: one file with both sides each, or two aligned files.

    `hashes` names the splits that are a part of their files: the pairs whose hash lies between first and last.
    `links` names for a split the file of its gold links, with a line for each line of the split.
    """

    name: str
    splits: Mapping[str, Sequence[Path | str]]
    source_language: str | None = None
    target_language: str | None = None
    licence: str | None = None
    attribution: str | None = None
    hashes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    links: Mapping[str, Path] = field(default_factory=dict)

    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of a split, streamed. Raises RegardError if there is no such split or its files are bad."""
        self._check_split(split)
        return self._pairs(split)

    def gold(self, split: str) -> Iterator[tuple[Pair, Links]]:
        """The pairs of a split with their gold links, streamed, in the order of `pairs`.

        Raises RegardError if there is no such split, if it has no gold links or if a file is bad.
        """
        self._check_split(split)
        if split not in self.links:
            raise RegardError(f"corpus {self.name} has no gold links for {split}; name a file of them")
        return self._gold(split)

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise RegardError(f"corpus {self.name} has no split {split!r}{suggest(split, self.splits)}")

    def _pairs(self, split: str) -> Iterator[Pair]:
        return (pair for pair in read_pairs(self.splits[split]) if self._belongs(pair, split))

    def _gold(self, split: str) -> Iterator[tuple[Pair, Links]]:
        pairs, again = itertools.tee(read_all_pairs(self.splits[split]))
        for pair, found in zip(pairs, read_links(self.links[split], again), strict=True):
            if not pair.is_blank and self._belongs(pair, split):
                yield pair, found

    def _belongs(self, pair: Pair, split: str) -> bool:
        if split not in self.hashes:
            return True
        first, last = self.hashes[split]
        return first <= pair_hash(pair) <= last

    @classmethod
    def from_files(
        cls,
        train: Files,
        dev: Files | None = None,
        test: Files | None = None,
        *,
        links: Mapping[str, str | Path] | None = None,
        hashes: Mapping[str, tuple[int, int]] | None = None,
    ) -> "Corpus":
        """A user's own files; "-" is standard input.

        Where `dev` or `test` is not given, 1,000 pairs or 5 % of `train`, whichever is less, are held out for it, the
        same ones as long as the file is the same, and pairs whose sources differ in case, spaces and punctuation alone
        fall into one split. `hashes` of an earlier call hold out what it did, whatever the file has gained since.
        `links` names files of gold links for `dev` and `test` that have files of their own.
        Raises RegardError for files that cannot be read and for fewer sources than splits.
        """
        given = {"train": file_paths(train), "dev": file_paths(dev), "test": file_paths(test)}
        if sum(str(path) == "-" for paths in given.values() for path in paths) > 1:
            raise RegardError("standard input (-) can stand for one file of a corpus only; give the others by name")
        name = " and ".join(display_name(path) for path in given["train"])
        links = {split: Path(path) for split, path in (links or {}).items()}
        for split in links:
            if not given.get(split):
                raise RegardError(
                    f"{links[split]}: gold links for {split}, but {split} has no file of its own; name it too, "
                    "so that line n of one belongs to line n of the other"
                )
        with contextlib.ExitStack() as undo:
            if any("-" in map(str, paths) for paths in given.values()):
                spooled = _spool_stdin()
                undo.callback(spooled.unlink, missing_ok=True)
                given = {
                    split: tuple(spooled if str(path) == "-" else path for path in paths)
                    for split, paths in given.items()
                }
            missing = [split for split, paths in given.items() if not paths]
            if hashes is None:
                hashes = (
                    hash_ranges(name, map(pair_hash, read_pairs(given["train"])), missing, "source sentences", "pairs")
                    if missing
                    else {}
                )
            elif lacking := [split for split in missing if split not in hashes]:
                raise RegardError(f"{name}: it is not recorded which pairs are {lacking[0]}; give files for them")
            # a split that has been given a file of its own since is all of that file
            hashes = {split: ends for split, ends in hashes.items() if split in missing or split == "train"}
            splits = {split: paths or given["train"] for split, paths in given.items()}
            corpus = cls(name=name, splits=splits, hashes=hashes, links=links)
            weakref.finalize(corpus, undo.pop_all().close)
            return corpus


def pair_hash(pair: Pair) -> int:
    """`plain_hash` of the source."""
    return plain_hash(pair.source)


def plain_hash(text: str) -> int:
    """64 bits of a text's letters and digits alone, whatever their case, so that copies of a text have the same."""
    plain = NO_LETTERS_OR_DIGITS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return text_hash(plain or text.strip())


def text_hash(text: str) -> int:
    """64 bits that depend on the text and on nothing else."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def hash_ranges(
    name: str, hashes: Iterable[int], missing: Sequence[str], what: str, more: str
) -> dict[str, tuple[int, int]]:
    """First and last hash of the training split and of each missing one, by the hashes of all units.

    Raises RegardError, which calls the units `what` and asks for `more`, where there are fewer than splits.
    """
    distinct = np.unique(np.fromiter(hashes, dtype=np.uint64))
    if len(distinct) < len(missing) + 1:
        raise RegardError(
            f"{name}: {len(distinct)} different {what} cannot be split into train, {' and '.join(missing)}; "
            f"give more {more}, or files for dev and test"
        )
    count = max(1, min(MOST_HELD_OUT, int(SHARE_HELD_OUT * len(distinct))))
    ranges = {}
    first = 0
    for index, split in enumerate(missing, 1):
        last = int(distinct[index * count - 1])
        ranges[split] = (first, last)
        first = last + 1
    return ranges | {"train": (first, LAST_HASH)}


def file_paths(files: Files | None) -> tuple[Path | str, ...]:
    """One file or several, or none, as a tuple."""
    if files is None:
        return ()
    return (files,) if isinstance(files, str | Path) else tuple(files)


def _spool_stdin() -> Path:
    """A file with all of standard input; none is left where that fails."""
    folder = tempfile.gettempdir()
    with contextlib.ExitStack() as undo:
        try:
            with tempfile.NamedTemporaryFile(prefix="standard-input-", suffix=".tsv", delete=False) as file:
                undo.callback(Path(file.name).unlink, missing_ok=True)
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise RegardError(
                f"standard input cannot be kept in the temporary folder {folder}: {error.strerror or error}; "
                "free some space there, or name another folder by TMPDIR"
            ) from None
        undo.pop_all()
    return Path(file.name)
