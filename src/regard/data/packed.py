"""A text as one row of token ids on disk, memory-mapped, from which every window is cut: no batch has any padding.

Brown et al. 2020, "Language models are few-shot learners", section 2.3.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int

from regard.data.batch import IGNORED, TextBatch
from regard.data.prepare import write_header
from regard.data.text import Passage
from regard.errors import RegardError
from regard.files import new_folder

IDS = "ids.npy"
FACTS = "packed.json"
CHUNK = 256


@runtime_checkable
class Encoder(Protocol):
    """What packing asks of a tokenizer: the tokens of texts, the one before each document, and the unknown one."""

    @property
    def start(self) -> int: ...
    @property
    def unknown(self) -> int | None: ...
    def __len__(self) -> int: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...


class Facts(NamedTuple):
    """Of a text: its documents, its bytes in UTF-8, and the characters of it that the vocabulary has not."""

    documents: int
    bytes: int
    unknown: int


@final
class PackedText:
    """Token ids of documents in a ring: before each document stands the tokenizer's `start`, which ends the last one.

    A window is `context` of them; where `documents` is that token's id, a batch says which tokens of a window belong
    together.
    """

    def __init__(
        self, ids: Int[np.ndarray, " token"], facts: Facts, *, context: int, documents: int | None = None
    ) -> None:
        if len(ids) < context:
            raise RegardError(
                f"the text has {len(ids)} tokens, which do not fill one window of {context}; lower model.max_length "
                "or give more text"
            )
        self._ids = ids
        self.facts = facts
        self.context = context
        self._start = documents

    @classmethod
    def open(cls, folder: Path, *, context: int, documents: int | None = None) -> "PackedText":
        """What `pack` wrote. Raises RegardError if a file is missing or broken, or holds too little text."""
        try:
            ids = np.load(folder / IDS, mmap_mode="r", allow_pickle=False)
            facts = Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise RegardError(f"{folder}: not a packed text ({error}); delete it and prepare it again") from None
        return cls(ids, facts, context=context, documents=documents)

    def __len__(self) -> int:
        """How many tokens there are, those at the start of documents counted."""
        return len(self._ids)

    @property
    def sizes(self) -> dict[str, int]:
        """What a run records of it."""
        return {**self.facts._asdict(), "tokens": len(self)}

    @property
    def num_tokens(self) -> int:
        return len(self)

    @property
    def num_labels(self) -> int:
        """How many tokens are learned: all."""
        return len(self)

    @property
    def num_unknown(self) -> int:
        """How many of them stand for unknown text."""
        return self.facts.unknown

    def order(self, *, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Where the windows of each batch of an epoch begin; where the first one does is drawn, too.

        Every batch but the last has as many windows as `batch_tokens` has room for; all depends on (seed, epoch) alone.
        """
        generator = np.random.default_rng([seed, epoch])
        first = generator.integers(len(self))
        starts = first + self.context * generator.permutation(len(self) // self.context)
        return _cut(starts, batch_tokens // self.context)

    def in_order(self, *, batch_tokens: int) -> list[np.ndarray]:
        """The same from the first token on, so that `batch(…, once=True)` asks for every token just once."""
        return _cut(np.arange(0, len(self), self.context), max(1, batch_tokens // self.context))

    def parts(self, starts: Int[np.ndarray, " window"], count: int) -> list[np.ndarray]:
        """The windows of a batch as `count` batches; where there are too few the last ones are empty."""
        return np.array_split(starts, count)

    def batch(self, starts: Int[np.ndarray, " window"], *, once: bool = False, epoch: int | None = None) -> TextBatch:
        """The windows that begin at these places, round the ring; with `once` nothing is asked for past its end.

        They are the same in every `epoch`.
        """
        places = starts[:, None] + np.arange(self.context + 1)
        rows = np.take(self._ids, places, mode="wrap").astype(np.int64)
        tokens, labels = rows[:, :-1], rows[:, 1:]
        if once:
            labels = np.where(places[:, 1:] > len(self), IGNORED, labels)
        documents = None if self._start is None else torch.from_numpy((tokens == self._start).cumsum(axis=1))
        # contiguous: half of the rows' memory is of the other
        return TextBatch(torch.from_numpy(tokens).contiguous(), torch.from_numpy(labels).contiguous(), documents)


def pack(passages: Iterable[Passage], tokenizer: Encoder, folder: Path) -> None:
    """Write the tokens of passages into `folder`, which appears once it is whole.

    Raises RegardError if there is no text or the disk is full.
    """
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    with new_folder(folder) as temporary:
        with (temporary / IDS).open("wb") as file:
            facts = _write_ids(passages, tokenizer, file, dtype)
        if not facts.documents:
            raise RegardError("there is no text to be learnt from; give some")
        (temporary / FACTS).write_text(json.dumps(facts._asdict()) + "\n", encoding="utf-8")


def _write_ids(passages: Iterable[Passage], tokenizer: Encoder, file: BinaryIO, dtype: np.dtype) -> Facts:
    documents = length = size = unknown = 0
    write_header(file, dtype, 0)
    for chunk in _chunks(passages):
        encoded = tokenizer.encode_batch([passage.text for passage in chunk])
        for passage, ids in zip(chunk, encoded, strict=True):
            row = np.asarray([tokenizer.start, *ids] if passage.begins or not length else ids, dtype=dtype)
            file.write(row.tobytes())
            length += len(row)
            documents += passage.begins
            size += len(passage.text.encode())
            unknown += 0 if tokenizer.unknown is None else int((row == tokenizer.unknown).sum())
    file.seek(0)
    write_header(file, dtype, length)
    return Facts(documents=documents, bytes=size, unknown=unknown)


def _chunks(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    iterator = iter(passages)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _cut(starts: np.ndarray, size: int) -> list[np.ndarray]:
    return [starts[first : first + size] for first in range(0, len(starts), size)]
