"""Batches of sentences of like length, so that little of a batch is padding."""

import numpy as np

from regard.errors import RegardError


def batches(
    source_lengths: np.ndarray, target_lengths: np.ndarray, *, batch_tokens: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Indices of every sentence pair, once each, in batches of at most `batch_tokens` tokens on either side.

    Lengths are in tokens with the special ones; a batch's size is its rows times its longest sequence. Which pairs
    meet and in which order the batches come depends on (seed, epoch) alone.
    Raises RegardError if one pair alone is larger than a batch.
    """
    lengths = np.maximum(source_lengths, target_lengths)
    if not len(lengths):
        return []
    if (longest := int(lengths.argmax())) >= 0 and lengths[longest] > batch_tokens:
        raise RegardError(
            f"pair {longest} has {lengths[longest]} tokens, more than a batch of {batch_tokens}; "
            "raise batch_tokens or lower max_length"
        )
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    # a stable sort of shuffled pairs, so that pairs of equal length meet others in every epoch
    order = order[np.lexsort((source_lengths[order], target_lengths[order]))]
    cut = _cut(lengths[order], batch_tokens)
    groups = np.split(order, cut)
    return [groups[index] for index in generator.permutation(len(groups))]


def _cut(lengths: np.ndarray, batch_tokens: int) -> list[int]:
    """Where to cut rows of these lengths so that each piece, as full as can be, holds at most `batch_tokens`."""
    cut = []
    start = 0
    while True:
        window = lengths[start : start + batch_tokens // lengths[start]]
        sizes = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        start += int(np.searchsorted(sizes, batch_tokens, side="right"))
        if start >= len(lengths):
            return cut
        cut.append(start)
