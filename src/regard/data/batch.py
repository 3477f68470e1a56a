"""One batch of sequences, the same type for every rung."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
# the label of what is not asked: padding, and text that a model is given but does not learn to write
IGNORED = -1


class Frame(NamedTuple):
    """The special tokens that stand around a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def __call__(self, ids: Sequence[int]) -> list[int]:
        return [*self.before, *ids, *self.after]

    @property
    def size(self) -> int:
        return len(self.before) + len(self.after)


class Frames(NamedTuple):
    """The frames of a pair, by default those of Regard's own models, and the tokens that no translation holds.

    A decoder is given what stands before a target, such as a language tag. The first token after a target ends it.
    """

    source: Frame = Frame((), (EOS,))
    target: Frame = Frame((BOS,), (EOS,))
    never: tuple[int, ...] = (PAD, BOS)

    @property
    def sides(self) -> tuple[Frame, Frame]:
        return self.source, self.target

    @property
    def start(self) -> int:
        """The last token that the decoder is given before it writes."""
        return self.target.before[-1]

    @property
    def given(self) -> int:
        """How many labels of a target are not the model's choice: all that is given but the first."""
        return len(self.target.before) - 1

    @property
    def end(self) -> int:
        return self.target.after[0]


OWN_FRAMES = Frames()


@dataclass(frozen=True)
class Batch:
    """Token ids padded on the right with PAD, special tokens around each text: a target of Regard's is BOS … EOS.

    `guide` is where a head should look for each label, as `Guide.table` gives it; None where none is guided.
    """

    source: Int[Tensor, "batch source"]
    source_lengths: Int[Tensor, " batch"]
    target: Int[Tensor, "batch target"]
    target_lengths: Int[Tensor, " batch"]
    guide: Float[Tensor, "batch step source"] | None = None

    @property
    def inputs(self) -> Int[Tensor, "batch step"]:
        """What the decoder is fed: every target token but the last."""
        return self.target[:, :-1]

    @property
    def labels(self) -> Int[Tensor, "batch step"]:
        """What the decoder must write: every target token but the first; IGNORED at padding."""
        return self.target[:, 1:].masked_fill(~self.label_mask, IGNORED)

    @property
    def label_mask(self) -> Bool[Tensor, "batch step"]:
        return torch.arange(1, self.target.shape[1], device=self.target.device) < self.target_lengths[:, None]

    @property
    def label_count(self) -> int:
        """Target tokens, EOS counted."""
        return int((self.target_lengths - 1).sum())

    @property
    def arguments(self) -> tuple["Batch"]:
        """What a translator is called with."""
        return (self,)

    def without_labels(self) -> "Batch":
        """The same rows, of which the model learns nothing."""
        guide = None if self.guide is None else torch.zeros_like(self.guide)
        return replace(self, target_lengths=torch.ones_like(self.target_lengths), guide=guide)

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(
            source=self.source.to(device),
            source_lengths=self.source_lengths.to(device),
            target=self.target.to(device),
            target_lengths=self.target_lengths.to(device),
            guide=None if self.guide is None else self.guide.to(device),
        )


@dataclass(frozen=True)
class TextBatch:
    """Windows of a text or conversations padded on the right: tokens, those that follow or IGNORED, and documents.

    `documents` numbers the document of each token, from any number on; it is None where windows are read as one text.
    """

    tokens: Int[Tensor, "batch position"]
    labels: Int[Tensor, "batch position"]
    documents: Int[Tensor, "batch position"] | None = None

    @property
    def label_mask(self) -> Bool[Tensor, "batch position"]:
        return self.labels != IGNORED

    @property
    def label_count(self) -> int:
        return int(self.label_mask.sum())

    @property
    def arguments(self) -> tuple[Tensor, None, Tensor | None]:
        """What a language model is called with: tokens, no cache, documents."""
        return self.tokens, None, self.documents

    def without_labels(self) -> "TextBatch":
        """The same rows, of which the model learns nothing."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED))

    def to(self, device: torch.device | str) -> "TextBatch":
        documents = None if self.documents is None else self.documents.to(device)
        return TextBatch(tokens=self.tokens.to(device), labels=self.labels.to(device), documents=documents)


def collate(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], frames: Frames = OWN_FRAMES) -> Batch:
    """A batch of token ids as a tokenizer gives them, without special tokens."""
    source, source_lengths = pad([frames.source(ids) for ids in sources])
    target, target_lengths = pad([frames.target(ids) for ids in targets])
    return Batch(source=source, source_lengths=source_lengths, target=target, target_lengths=target_lengths)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "batch position"], Int[Tensor, " batch"]]:
    """Rows of unequal length as one tensor, padded on the right, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.full((len(rows), int(lengths.max())), PAD)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.as_tensor(row)
    return padded, lengths
