"""Several corpora in one training, each with a weight: how often its pairs or windows are drawn in an epoch."""

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from regard.data.batch import Batch, TextBatch
from regard.data.conversations import Conversations
from regard.data.guide import Guide
from regard.data.packed import PackedText
from regard.data.prepare import Dropout, TokenizedCorpus

Part = TokenizedCorpus | PackedText | Conversations


@final
class Mixture:
    """Tokenized corpora as one; a batch is of one of them.

    A corpus of weight 2 comes twice in an epoch, each time in another order; of weight 0.5 half of its batches come,
    others in every epoch. All depends on (seed, epoch) alone.
    """

    def __init__(self, parts: Sequence[Part], weights: Sequence[float]) -> None:
        self.corpora: Sequence[Any] = parts
        self._weights = weights
        self._starts = np.cumsum([0, *(_reach(part) for part in parts)])

    def __len__(self) -> int:
        return sum(map(len, self.corpora))

    @property
    def sizes(self) -> dict[str, int]:
        """What a run records of it: the sums over its corpora, and the longest of all."""
        sizes = [part.sizes for part in self.corpora]
        return {name: (max if "longest" in name else sum)(each[name] for each in sizes) for name in sizes[0]}

    def with_dropout(self, dropout: Dropout, *, max_length: int) -> "Mixture":
        """The same pairs, tokenized anew whenever they are drawn."""
        parts = [part.with_dropout(dropout, max_length=max_length) for part in self.corpora]
        return Mixture(parts, self._weights)

    def with_guides(self, guides: Sequence[Guide]) -> "Mixture":
        """The same pairs, with a guide for each corpus."""
        return Mixture([part.with_guide(own) for part, own in zip(self.corpora, guides, strict=True)], self._weights)

    def order(self, *, batch_tokens: int, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, those of all corpora mixed."""
        generator = np.random.default_rng([seed, epoch, len(self.corpora)])
        found: list[np.ndarray] = []
        for part, weight, start in zip(self.corpora, self._weights, self._starts, strict=False):
            rounds = math.ceil(weight)
            # the numbers of its own epochs go on from one epoch of the mixture to the next
            for number in range(rounds):
                own = part.order(batch_tokens=batch_tokens, seed=seed, epoch=epoch * rounds + number)
                # as many in every epoch, so that all epochs have one length
                count = max(1, round(min(1.0, weight - number) * len(own)))
                found += [rows + start for rows in own[:count]]
        return [found[index] for index in generator.permutation(len(found))]

    def parts(self, rows: np.ndarray, count: int) -> list[np.ndarray]:
        """The rows of a batch as `count` batches; where there are too few the last ones are empty."""
        part, start = self._of(rows)
        return [each + start for each in part.parts(rows - start, count)]

    def batch(self, rows: np.ndarray, *, epoch: int | None = None) -> Batch | TextBatch:
        """These rows, all of one corpus, as one batch of a training's `epoch`."""
        part, start = self._of(rows)
        return part.batch(rows - start, epoch=epoch)

    def _of(self, rows: np.ndarray) -> tuple[Any, int]:
        index = int(np.searchsorted(self._starts, rows[0], side="right")) - 1
        return self.corpora[index], int(self._starts[index])


def _reach(part: Part) -> int:
    """Above all numbers by which a corpus calls its rows: windows begin anywhere in two rounds of a text."""
    return 2 * len(part) + part.context if isinstance(part, PackedText) else len(part)
