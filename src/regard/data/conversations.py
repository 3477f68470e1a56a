"""Conversations as rows of token ids on disk, memory-mapped, of which a model learns the answers alone.

Ouyang et al. 2022, "Training language models to follow instructions with human feedback", section 3.5, supervised
fine-tuning.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int

from regard.data.batch import IGNORED, PAD, TextBatch
from regard.data.bucketing import batches
from regard.data.chat import chat_messages, questions
from regard.data.messages import Message
from regard.data.packed import Facts
from regard.data.prepare import write_header
from regard.errors import RegardError
from regard.files import new_folder

FILES = IDS, LEARNED, OFFSETS = "ids.npy", "learned.npy", "offsets.npy"
# characters of a question that is too long
SHOWN = 60
FACTS = "conversations.json"

logger = logging.getLogger("regard")


class Answered(NamedTuple):
    """A conversation as token ids, which of them are learned, and the bytes of its answers in UTF-8."""

    ids: list[int]
    learned: list[bool]
    size: int


# a tokenizer with its chat template
Encode = Callable[[Sequence[Message]], Answered]


@final
class Conversations:
    """Rows of token ids, of which those that are `learned` are labels; `skipped` counts conversations too long.

    Of its facts, the bytes are those of the answers.
    """

    def __init__(
        self,
        ids: Int[np.ndarray, " token"],
        learned: np.ndarray,
        offsets: Int[np.ndarray, " row"],
        facts: Facts,
        *,
        skipped: int,
    ) -> None:
        self._ids = ids
        self._learned = learned
        self._offsets = offsets
        self.facts = facts
        self.skipped = skipped
        # the last token of a row is a label only
        self.lengths = np.diff(offsets) - 1
        self.label_counts = np.add.reduceat(learned, offsets[:-1], dtype=np.int64)

    @classmethod
    def open(cls, folder: Path, *, max_length: int) -> "Conversations":
        """What `prepare_chats` wrote with this limit; those that it skipped are logged again.

        Raises RegardError if a file is missing or broken.
        """
        try:
            ids, learned, offsets = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in FILES)
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            skipped, first = int(facts.pop("skipped")), str(facts.pop("first"))
            found = cls(ids, learned, np.asarray(offsets), Facts(**facts), skipped=skipped)
        except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError) as error:
            raise RegardError(
                f"{folder}: not tokenized conversations ({error}); delete it and prepare it again"
            ) from None
        if not len(found) or not len(ids) == len(learned) == offsets[-1]:
            raise RegardError(f"{folder}: its files do not fit together; delete it and prepare it again")
        if skipped:
            message = "conversations skipped because they have more than %d tokens: %d; the first asks %r"
            logger.warning(message, max_length, skipped, first)
        return found

    def __len__(self) -> int:
        """How many conversations there are."""
        return len(self.lengths)

    @property
    def sizes(self) -> dict[str, int]:
        """What a run records of it."""
        facts = {name: value for name, value in self.facts._asdict().items() if name != "documents"}
        counts = {"conversations": len(self), "conversations_skipped": self.skipped}
        return {**counts, **facts, "tokens": self.num_tokens, "longest_conversation": self.longest}

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    @property
    def num_unknown(self) -> int:
        """How many of them stand for unknown text."""
        return self.facts.unknown

    @property
    def num_labels(self) -> int:
        """How many of them are learned."""
        return int(self.label_counts.sum())

    def order(self, *, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        """The conversations of each batch of an epoch, as `batches` draws them."""
        return batches(self.label_counts, self.lengths, batch_tokens=batch_tokens, seed=seed, epoch=epoch)

    def parts(self, indices: np.ndarray, count: int) -> list[np.ndarray]:
        """The conversations of a batch as `count` batches of about as many tokens each, shorter ones first.

        Where there are too few the last ones are empty.
        """
        indices = indices[self.lengths[indices].argsort(kind="stable")]
        work = self.lengths[indices].cumsum()
        return np.split(indices, 1 + work.searchsorted(work[-1] * np.arange(1, count) / count))

    def batch(self, indices: Iterable[int], *, epoch: int | None = None) -> TextBatch:
        """These conversations, padded on the right; they are the same in every `epoch`."""
        rows = [slice(*self._offsets[index : index + 2]) for index in indices]
        tokens = np.full((len(rows), max(row.stop - row.start for row in rows) - 1), PAD)
        labels = np.full_like(tokens, IGNORED)
        for row, tokens_of_row, labels_of_row in zip(rows, tokens, labels, strict=True):
            ids, learned = self._ids[row].astype(np.int64), self._learned[row]
            tokens_of_row[: len(ids) - 1] = ids[:-1]
            labels_of_row[: len(ids) - 1] = np.where(learned[1:], ids[1:], IGNORED)
        return TextBatch(torch.from_numpy(tokens), torch.from_numpy(labels))


def prepare_chats(
    texts: Iterable[str],
    encode: Encode,
    folder: Path,
    *,
    max_length: int,
    unknown: int | None = None,
    name: str = "this corpus",
) -> Conversations:
    """Encode conversations, each a `chat_text`, into `folder`, which appears once it is whole.

    One of more than `max_length` tokens is skipped, counted and logged. `unknown` is the token of unknown text, if any.
    Raises RegardError, with the `name` of the text, if none is left, if the template refuses one, or the disk is full.
    """
    lengths, first = [0], ""
    skipped = size = unknowns = 0
    with new_folder(folder) as temporary:
        with (temporary / IDS).open("wb") as ids_file, (temporary / LEARNED).open("wb") as learned_file:
            files = ((ids_file, np.dtype(np.uint32)), (learned_file, np.dtype(np.bool_)))
            for file, dtype in files:
                write_header(file, dtype, 0)
            for number, text in enumerate(texts, 1):
                found = _encoded(text, encode, f"{name}: conversation {number}")
                # the last token is a label only
                if len(found.ids) - 1 > max_length:
                    first = first or questions(text)[:SHOWN]
                    skipped += 1
                    continue
                # nothing comes before the first token that could write it
                learned = [False, *found.learned[1:]]
                for (file, dtype), row in zip(files, (found.ids, learned), strict=True):
                    file.write(np.asarray(row, dtype=dtype).tobytes())
                lengths.append(len(found.ids))
                size += found.size
                unknowns += sum(is_label and id == unknown for id, is_label in zip(found.ids, learned, strict=True))
            for file, dtype in files:
                file.seek(0)
                write_header(file, dtype, sum(lengths))
        if len(lengths) == 1:
            told = f"{skipped} have more than {max_length} tokens; raise data.context_length or model.max_length"
            raise RegardError(f"no conversation is left of {name}: {told}")
        np.save(temporary / OFFSETS, np.cumsum(lengths), allow_pickle=False)
        facts = Facts(documents=len(lengths) - 1, bytes=size, unknown=unknowns)._asdict()
        facts |= {"skipped": skipped, "first": first}
        (temporary / FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    return Conversations.open(folder, max_length=max_length)


def _encoded(text: str, encode: Encode, where: str) -> Answered:
    try:
        return encode(chat_messages(text))
    except RegardError as error:
        raise RegardError(f"{where}: {error}") from None
