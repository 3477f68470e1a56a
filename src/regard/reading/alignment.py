"""From weights between tokens to weights between words."""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float


def word_alignment(
    table: Float[np.ndarray, "*map row key"],
    *,
    target_words: Collection[list[int]],
    source_words: Collection[list[int]],
    shape: tuple[int, int],
) -> Float[np.ndarray, "*map target source"]:
    """Token weights as word weights, from the words of every row and key: `shape` is how many words there are.

    A key's weight is split equally among its words; a word's row is the mean of all rows that are part of it.
    """
    target, source = _membership(target_words, shape[0]), _membership(source_words, shape[1])
    share = source / np.maximum(source.sum(axis=1, keepdims=True), 1)
    mean = target / np.maximum(target.sum(axis=0), 1)
    return mean.T @ table.astype(np.float64) @ share


def _membership(words: Collection[list[int]], count: int) -> Float[np.ndarray, "token word"]:
    """1 where the token is part of the word, else 0."""
    table = np.zeros((len(words), count))
    for token, own in enumerate(words):
        table[token, own] = 1
    return table
