"""Which source tokens each target token should look at, for every pair of a tokenized corpus."""

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.data.batch import Frames
from regard.data.links import Link


@final
class Guide:
    """Links between the tokens of many pairs, made of those between their words."""

    def __init__(self) -> None:
        self._links: list[np.ndarray] = []

    def add(self, links: Iterable[Link], source_words: Sequence[list[int]], target_words: Sequence[list[int]]) -> None:
        """The links of the next pair: source and target word, and of which words each token is part.

        All tokens of a source word are linked with all tokens of its target word.
        """
        tables = []
        for words in (source_words, target_words):
            table = np.zeros((len(words), 1 + max((max(own, default=-1) for own in words), default=-1)), dtype=bool)
            for token, own in enumerate(words):
                table[token, own] = True
            tables.append(table)
        source, target = tables
        linked = np.zeros((source.shape[1], target.shape[1]), dtype=bool)
        linked[tuple(zip(*links, strict=True)) or ((), ())] = True
        self._links.append(np.argwhere(target @ linked.T @ source.T).astype(np.uint16))

    def __len__(self) -> int:
        return len(self._links)

    def table(
        self, indices: Iterable[int], frames: Frames, *, steps: int, source: int
    ) -> Float[Tensor, "batch step source"]:
        """The links of these pairs as weights, by the labels of a batch: rows sum to 1, or to 0 where no link is."""
        rows = [self._links[index] for index in indices]
        table = np.zeros((len(rows), steps, source), dtype=np.float32)
        for own, links in zip(table, rows, strict=True):
            # the label that is token 0 of the target comes after all that is given
            own[links[:, 0] + frames.given, links[:, 1] + len(frames.source.before)] = 1
        return torch.from_numpy(table / np.maximum(table.sum(axis=2, keepdims=True), 1))
