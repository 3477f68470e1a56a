"""One batch of sequences, the same type for every rung."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
# the label of what is not asked: padding, and text that a model is given but does not learn to write
IGNORED = -1


@dataclass(frozen=True)
class Batch:
    """Token ids padded on the right with PAD; a source ends with EOS, a target is BOS … EOS."""

    source: Int[Tensor, "batch source"]
    source_lengths: Int[Tensor, " batch"]
    target: Int[Tensor, "batch target"]
    target_lengths: Int[Tensor, " batch"]

    @property
    def inputs(self) -> Int[Tensor, "batch step"]:
        """What the decoder is fed: every target token but the last."""
        return self.target[:, :-1]

    @property
    def labels(self) -> Int[Tensor, "batch step"]:
        """What the decoder must write: every target token but BOS; IGNORED at padding."""
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

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(
            source=self.source.to(device),
            source_lengths=self.source_lengths.to(device),
            target=self.target.to(device),
            target_lengths=self.target_lengths.to(device),
        )


@dataclass(frozen=True)
class TextBatch:
    """Windows of a text, all of one length: tokens, those that follow them or IGNORED, and their documents.

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

    def to(self, device: torch.device | str) -> "TextBatch":
        documents = None if self.documents is None else self.documents.to(device)
        return TextBatch(tokens=self.tokens.to(device), labels=self.labels.to(device), documents=documents)


def collate(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """A batch of token ids as a tokenizer gives them, without special tokens."""
    source, source_lengths = pad([[*ids, EOS] for ids in sources])
    target, target_lengths = pad([[BOS, *ids, EOS] for ids in targets])
    return Batch(source=source, source_lengths=source_lengths, target=target, target_lengths=target_lengths)


def pad(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "batch position"], Int[Tensor, " batch"]]:
    """Rows of unequal length as one tensor, padded on the right, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.full((len(rows), int(lengths.max())), PAD)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.as_tensor(row)
    return padded, lengths
