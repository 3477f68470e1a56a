"""From weights between tokens to weights between words."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from regard.reading.record import Sequence


class WordTable(NamedTuple):
    """What each word of `rows` gave to each word of `keys`, by their order in the text."""

    rows: list[str]
    keys: list[str]
    weights: Float[np.ndarray, "row_word key_word"]


def word_table(table: Float[np.ndarray, "row key"], asking: Sequence, asked: Sequence, *, rows: list[int]) -> WordTable:
    """The table of words from one of tokens, as `Reading.words` says; `rows` are the tokens that the rows stand for."""
    units, names = _units(asking)
    kept = set(rows)
    # a word of which a row is missing would be the mean of its other rows
    partial = {unit for place, own in enumerate(units) for unit in own if place not in kept}
    whole = sorted({unit for place in rows if place < len(units) for unit in units[place]} - partial)
    key_units, key_names = _units(asked)
    key_units = key_units[: table.shape[1]]
    looked = sorted({unit for own in key_units for unit in own})
    found = word_alignment(
        table,
        # the last row may have written a token that is not known
        target_words=[units[place] if place < len(units) else [] for place in rows],
        source_words=key_units,
        shape=(len(names), len(key_names)),
    )
    return WordTable(
        [names[unit] for unit in whole], [key_names[unit] for unit in looked], found[np.ix_(whole, looked)]
    )


def _units(sequence: Sequence) -> tuple[list[list[int]], list[str]]:
    """Of every token the words that it is part of, and all words in the text's order; what is no token is a word."""
    # where words share no token, the order of their first tokens is that of the text
    first: dict[tuple[bool, int], int] = {}
    own: list[list[tuple[bool, int]]] = []
    for place, token in enumerate(sequence.tokens):
        units = [(False, word) for word in token.words] if token.sort == "token" else [(True, place)]
        own.append(units)
        for unit in units:
            first.setdefault(unit, len(first))
    names = [sequence.tokens[index].text if is_place else sequence.words[index] for is_place, index in first]
    return [[first[unit] for unit in units] for units in own], names


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
