"""A corpus as token ids on disk, memory-mapped, so that training reads any pair without holding all of them."""

import copy
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
from numpy.lib import format as npy

from regard.data.batch import OWN_FRAMES, Batch, Frame, Frames, collate
from regard.data.bucketing import batches
from regard.data.formats import Pair
from regard.data.guide import Guide
from regard.data.pair_tokenizer import PairTokenizer
from regard.errors import RegardError
from regard.files import new_folder

CHUNK = 4096
SIDES = ("source", "target")
FACTS = "tokenized.json"
# a model has about this many times as much work with a target token as with a source token
TARGET_WORK = 2

# the tokens of a text, and a key, to other tokens of it
Dropout = Callable[[list[int], str], list[int]]

logger = logging.getLogger("regard")


@final
class TokenizedCorpus:
    """Sentence pairs as token ids, without special tokens.

    `source_lengths` and `target_lengths` are those of a batch, with the special tokens of `frames`.
    `skipped` counts the pairs that were too long, `num_unknown` the tokens that stand for unknown text.
    With `dropout` a batch of an epoch has the tokens that it makes of those of each pair.
    """

    def __init__(
        self,
        ids: dict[str, np.ndarray],
        offsets: dict[str, np.ndarray],
        *,
        skipped: int,
        unknown: int,
        frames: Frames = OWN_FRAMES,
        dropout: Dropout | None = None,
        max_length: int | None = None,
    ) -> None:
        self._ids = ids
        self._offsets = offsets
        self._dropout = dropout
        self._max_length = max_length
        self._guide: Guide | None = None
        self.skipped = skipped
        self.num_unknown = unknown
        self.frames = frames
        self.source_lengths = np.diff(offsets["source"]) + frames.source.size
        self.target_lengths = np.diff(offsets["target"]) + frames.target.size

    @classmethod
    def open(cls, folder: Path) -> "TokenizedCorpus":
        """What `prepare` wrote. Raises RegardError if a file is missing or broken."""
        try:
            ids = {side: np.load(folder / f"{side}_ids.npy", mmap_mode="r", allow_pickle=False) for side in SIDES}
            offsets = {side: np.load(folder / f"{side}_offsets.npy", allow_pickle=False) for side in SIDES}
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            skipped, unknown = (int(facts[name]) for name in ("skipped", "unknown"))
            frames = _frames_of(facts)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise RegardError(f"{folder}: not a tokenized corpus ({error}); delete it and prepare it again") from None
        counts = {len(offsets[side]) for side in SIDES}
        if len(counts) != 1 or any(not len(offsets[side]) or offsets[side][-1] != len(ids[side]) for side in SIDES):
            raise RegardError(f"{folder}: its files do not fit together; delete it and prepare it again")
        return cls(ids, offsets, skipped=skipped, unknown=unknown, frames=frames)

    def __len__(self) -> int:
        return len(self.source_lengths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._side("source", index), self._side("target", index)

    @property
    def sizes(self) -> dict[str, int]:
        """What a run records of it."""
        longest = int(self.source_lengths.max())
        return {"pairs": len(self), "pairs_skipped": self.skipped, "longest_source": longest}

    def order(self, *, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        """The pairs of each batch of an epoch, as `batches` draws them."""
        return batches(self.source_lengths, self.target_lengths, batch_tokens=batch_tokens, seed=seed, epoch=epoch)

    def parts(self, indices: np.ndarray, count: int) -> list[np.ndarray]:
        """The pairs of a batch as `count` batches of about as much work each, those of shorter sources first.

        Where there are too few pairs the last ones are empty.
        """
        indices = indices[self.source_lengths[indices].argsort(kind="stable")]
        work = (self.source_lengths[indices] + TARGET_WORK * self.target_lengths[indices]).cumsum()
        return np.split(indices, 1 + work.searchsorted(work[-1] * np.arange(1, count) / count))

    def batch(self, indices: Sequence[int] | np.ndarray, *, epoch: int | None = None) -> Batch:
        """These pairs as one padded batch with special tokens; those of a training's `epoch` with dropout, if any."""
        sources, targets = ([self._tokens(side, index, epoch) for index in indices] for side in SIDES)
        batch = collate(sources, targets, self.frames)
        if self._guide is None or epoch is None:
            return batch
        steps, source = batch.target.shape[1] - 1, batch.source.shape[1]
        return replace(batch, guide=self._guide.table(indices, self.frames, steps=steps, source=source))

    def with_guide(self, guide: Guide) -> "TokenizedCorpus":
        """The same pairs, of whose batches in training each says where a head should look."""
        assert len(guide) == len(self)
        guided = copy.copy(self)
        guided._guide = guide
        return guided

    def with_dropout(self, dropout: Dropout, *, max_length: int) -> "TokenizedCorpus":
        """The same pairs, of whose batches in training each side is cut anew, where it then has room in `max_length`.

        `dropout(ids, key)` gives other tokens of the same text. Lengths stay those without dropout.
        """
        settings = {"skipped": self.skipped, "unknown": self.num_unknown, "frames": self.frames}
        return TokenizedCorpus(self._ids, self._offsets, **settings, dropout=dropout, max_length=max_length)

    @property
    def longest(self) -> int:
        """Tokens of the longest side."""
        return int(max(self.source_lengths.max(), self.target_lengths.max()))

    @property
    def label_counts(self) -> np.ndarray:
        """Target tokens of each pair that a model chooses: its text and one end, no language tag."""
        return self.target_lengths - (self.frames.target.size - 1)

    @property
    def num_tokens(self) -> int:
        """Of both sides, without special tokens."""
        return sum(len(self._ids[side]) for side in SIDES)

    def _tokens(self, side: str, index: int, epoch: int | None) -> list[int]:
        ids = self._side(side, index).tolist()
        if self._dropout is None or epoch is None:
            return ids
        assert self._max_length is not None
        other = self._dropout(ids, f"{epoch} {index} {side}")
        return other if len(other) + getattr(self.frames, side).size <= self._max_length else ids

    def _side(self, side: str, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        start, end = self._offsets[side][index : index + 2]
        return np.asarray(self._ids[side][start:end])


def prepare(
    pairs: Iterable[Pair], tokenizer: PairTokenizer, folder: Path, *, max_length: int, name: str = "this corpus"
) -> TokenizedCorpus:
    """Encode pairs into `folder`, which appears once it is whole.

    A pair is skipped, counted and logged if a side has more than `max_length` tokens, special ones included.
    Raises RegardError, with the `name` of the text, if no pair is left, or if the disk is full.
    """
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    with new_folder(folder) as temporary:
        with (temporary / "source_ids.npy").open("wb") as source, (temporary / "target_ids.npy").open("wb") as target:
            files = {"source": source, "target": target}
            lengths, skipped, unknown = _write_ids(pairs, tokenizer, files, dtype, max_length)
        for side in SIDES:
            offsets = np.concatenate([[0], np.cumsum(lengths[side])]).astype(np.int64)
            np.save(temporary / f"{side}_offsets.npy", offsets, allow_pickle=False)
        facts = {"skipped": skipped, "unknown": unknown, "frames": tokenizer.frames}
        (temporary / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        if not lengths["source"]:
            raise _nothing_left(name, skipped, max_length)
    return open_prepared(folder, max_length=max_length)


def open_prepared(folder: Path, *, max_length: int) -> TokenizedCorpus:
    """What `prepare` wrote with this limit; the pairs that it skipped are logged again."""
    corpus = TokenizedCorpus.open(folder)
    _tell_skipped(corpus.skipped, max_length)
    return corpus


def tokenize(pairs: Sequence[Pair], tokenizer: PairTokenizer, *, max_length: int) -> tuple[TokenizedCorpus, list[int]]:
    """What `prepare` makes of pairs, in memory, and the indices of those that are short enough to be in it.

    Raises RegardError if no pair is left.
    """
    encoded = _encoded(pairs, tokenizer)
    kept = [index for index, rows in enumerate(zip(*encoded, strict=True)) if _fits(rows, tokenizer, max_length)]
    if not kept:
        raise _nothing_left("these", len(pairs), max_length)
    _tell_skipped(len(pairs) - len(kept), max_length)
    rows = {side: [ids[index] for index in kept] for side, ids in zip(SIDES, encoded, strict=True)}
    ids = {side: np.concatenate([np.asarray(row, dtype=np.int64) for row in rows[side]]) for side in SIDES}
    offsets = {side: np.cumsum([0, *map(len, rows[side])]) for side in SIDES}
    unknown = sum(_unknown(side, tokenizer) for side in ids.values())
    left_out = len(pairs) - len(kept)
    return TokenizedCorpus(ids, offsets, skipped=left_out, unknown=unknown, frames=tokenizer.frames), kept


def _write_ids(
    pairs: Iterable[Pair], tokenizer: PairTokenizer, files: Mapping[str, BinaryIO], dtype: np.dtype, max_length: int
) -> tuple[dict[str, list[int]], int, int]:
    """Append the ids of every pair that is short enough.

    Returns the lengths written, how many pairs were skipped, and how many tokens stand for unknown text.
    """
    lengths: dict[str, list[int]] = {side: [] for side in SIDES}
    skipped = unknown = 0
    for side in SIDES:
        write_header(files[side], dtype, 0)
    for chunk in _chunks(pairs):
        encoded = _encoded(chunk, tokenizer)
        kept = [rows for rows in zip(*encoded, strict=True) if _fits(rows, tokenizer, max_length)]
        skipped += len(chunk) - len(kept)
        for side, rows in zip(SIDES, zip(*kept, strict=True), strict=False):
            lengths[side] += map(len, rows)
            ids = np.concatenate([np.asarray(row, dtype=dtype) for row in rows])
            files[side].write(ids.tobytes())
            unknown += _unknown(ids, tokenizer)
    for side in SIDES:
        files[side].seek(0)
        write_header(files[side], dtype, sum(lengths[side]))
    return lengths, skipped, unknown


def _unknown(ids: np.ndarray, tokenizer: PairTokenizer) -> int:
    return 0 if tokenizer.unknown is None else int(np.count_nonzero(ids == tokenizer.unknown))


def _tell_skipped(skipped: int, max_length: int) -> None:
    if skipped:
        logger.warning("pairs skipped because a side has more than %d tokens: %d", max_length, skipped)


def _nothing_left(name: str, skipped: int, max_length: int) -> RegardError:
    return RegardError(
        f"no sentence pair is left of {name}: {skipped} have more than {max_length} tokens on a side; "
        "raise max_length or give other text"
    )


def write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    """The header of an .npy file that has `count` numbers; written again over the first once the count is known."""
    # numpy leaves room in the header for a longer first axis
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(file, header)


def _encoded(pairs: Sequence[Pair], tokenizer: PairTokenizer) -> list[list[list[int]]]:
    """The tokens of all sources, and those of all targets."""
    sides = tokenizer, tokenizer.target
    return [each.encode_batch([pair[side] for pair in pairs]) for side, each in enumerate(sides)]


def _fits(rows: Sequence[Sequence[int]], tokenizer: PairTokenizer, max_length: int) -> bool:
    return all(len(row) + frame.size <= max_length for frame, row in zip(tokenizer.frames.sides, rows, strict=True))


def _frames_of(facts: Mapping[str, Any]) -> Frames:
    # a corpus of before there were others has Regard's own
    source, target, never = facts.get("frames", OWN_FRAMES)
    return Frames(Frame(*map(tuple, source)), Frame(*map(tuple, target)), tuple(never))


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    iterator = iter(pairs)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
