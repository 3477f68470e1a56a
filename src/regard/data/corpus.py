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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from regard.config import suggest
from regard.data.columns import PAIR_NAMES, Columns, Key
from regard.data.formats import Pair, read_aligned, read_all_pairs, without_blanks
from regard.data.links import Links, read_links
from regard.data.normal_form import in_form
from regard.data.packing import SPOOLED
from regard.data.parts import Data, Part, check_data, data_name, map_paths, parts_of, paths_in
from regard.errors import RegardError

MOST_HELD_OUT = 1000
SHARE_HELD_OUT = 0.05
LAST_HASH = 2**64 - 1
COUNTED_AT_ONCE = 1000
NO_LETTERS_OR_DIGITS = re.compile(r"[\W_]+")

Files = Data
T = TypeVar("T")
# hears of a step before the training, and of how many pairs or passages it has seen
Watcher = Callable[[str, int], None]


def unwatched(step: str, count: int) -> None:
    """Where nobody wants to hear of the steps."""


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs under `train`, `dev` and `test`: files with both sides, aligned files of each side, or several.

    `hashes` names the splits that are a part of their files: the pairs whose hash lies between first and last.
    `links` names for a split the file of its gold links, with a line for each line of the split. `keys` are the names
    of source and target in files that name their columns.
    `form` is the Unicode normal form, such as NFC, in which pairs are given; None leaves them as they are.
    """

    name: str
    splits: Mapping[str, Data]
    source_language: str | None = None
    target_language: str | None = None
    licence: str | None = None
    attribution: str | None = None
    hashes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    links: Mapping[str, Path] = field(default_factory=dict)
    keys: tuple[Key | None, Key | None] = (None, None)
    form: str | None = None

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

    def parts(self, split: str) -> list[Part]:
        """The files of a split, corpus by corpus. Raises RegardError where they are not there."""
        self._check_split(split)
        return parts_of(self.splits[split], Columns(PAIR_NAMES, self.keys))

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise RegardError(f"corpus {self.name} has no split {split!r}{suggest(split, self.splits)}")

    def _pairs(self, split: str) -> Iterator[Pair]:
        pairs = without_blanks(_read(self.parts(split)), data_name(self.splits[split]))
        return (self._formed(pair) for pair in pairs if self._belongs(pair, split))

    def _gold(self, split: str) -> Iterator[tuple[Pair, Links]]:
        pairs, again = itertools.tee(_read(self.parts(split)))
        for pair, found in zip(pairs, read_links(self.links[split], again), strict=True):
            if not pair.is_blank and self._belongs(pair, split):
                yield self._formed(pair), found

    def _formed(self, pair: Pair) -> Pair:
        return Pair(*(in_form(side, self.form) for side in pair))

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
        source_key: Key | None = None,
        target_key: Key | None = None,
        form: str | None = None,
        progress: Watcher = unwatched,
    ) -> "Corpus":
        """A user's own files; "-" is standard input.

        Each split is a file, a folder, a list of two sides or of corpora, or a table, as docs/data.md describes.
        Where `dev` or `test` is not given, 1,000 pairs or 5 % of `train`, whichever is less, are held out for it, the
        same ones as long as the file is the same, and pairs whose sources differ in case, spaces and punctuation alone
        fall into one split. `hashes` of an earlier call hold out what it did, whatever the file has gained since.
        `links` names files of gold links for `dev` and `test` that have files of their own. `source_key` and
        `target_key` name the columns, keys or languages of the two sides. `form` as in the class. `progress` hears what
        is read.
        Raises RegardError for files that cannot be read and for fewer sources than splits.
        """
        given = {split: data for split, data in (("train", train), ("dev", dev), ("test", test)) if data is not None}
        for split, data in given.items():
            check_data(data, split)
        if sum(str(path) == "-" for data in given.values() for path in paths_in(data)) > 1:
            raise RegardError("standard input (-) can stand for one file of a corpus only; give the others by name")
        name = data_name(train)
        links = {split: Path(path) for split, path in (links or {}).items()}
        for split in links:
            if split not in given:
                raise RegardError(
                    f"{links[split]}: gold links for {split}, but {split} has no file of its own; name it too, "
                    "so that line n of one belongs to line n of the other"
                )
        with contextlib.ExitStack() as undo:
            if any(str(path) == "-" for data in given.values() for path in paths_in(data)):
                spooled = _spool_stdin()
                undo.callback(spooled.unlink, missing_ok=True)
                given = {
                    split: map_paths(data, lambda path: spooled if str(path) == "-" else path)
                    for split, data in given.items()
                }
            missing = [split for split in ("train", "dev", "test") if split not in given]
            keys = (source_key, target_key)
            if hashes is None:
                pairs = cls(name=name, splits=given, keys=keys).pairs("train") if missing else ()
                found = map(pair_hash, counted(pairs, "reading pairs", progress))
                hashes = hash_ranges(name, found, missing, "source sentences", "pairs") if missing else {}
            elif lacking := [split for split in missing if split not in hashes]:
                raise RegardError(f"{name}: it is not recorded which pairs are {lacking[0]}; give files for them")
            # a split that has been given a file of its own since is all of that file
            hashes = {split: ends for split, ends in hashes.items() if split in missing or split == "train"}
            splits = {split: given.get(split, given["train"]) for split in ("train", "dev", "test")}
            corpus = cls(name=name, splits=splits, hashes=hashes, links=links, keys=keys, form=form)
            weakref.finalize(corpus, undo.pop_all().close)
            return corpus


def counted(units: Iterable[T], step: str, progress: Watcher) -> Iterator[T]:
    """The same units; `progress` hears of the step, and how many there were, every COUNTED_AT_ONCE of them."""
    progress(step, 0)
    for number, unit in enumerate(units, 1):
        if number % COUNTED_AT_ONCE == 0:
            progress(step, number)
        yield unit


def _read(parts: Iterable[Part]) -> Iterator[Pair]:
    for part in parts:
        yield from read_aligned(part.files, part.target) if part.target else read_all_pairs(part.files, part.columns)


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


def _spool_stdin() -> Path:
    """A file with all of standard input; none is left where that fails."""
    folder = tempfile.gettempdir()
    with contextlib.ExitStack() as undo:
        try:
            with tempfile.NamedTemporaryFile(prefix=SPOOLED, suffix=".tsv", delete=False) as file:
                undo.callback(Path(file.name).unlink, missing_ok=True)
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise RegardError(
                f"standard input cannot be kept in the temporary folder {folder}: {error.strerror or error}; "
                "free some space there, or name another folder by TMPDIR"
            ) from None
        undo.pop_all()
    return Path(file.name)
