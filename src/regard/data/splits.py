"""Near-duplicates stay in one split: a sentence that training saw, but for a word or a digit, tests nothing.

Lee et al. 2022, "Deduplicating training data makes language models better", section 1.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from regard.data.corpus import text_hash
from regard.data.formats import Pair, write_tsv
from regard.data.links import Links, write_links
from regard.data.near_duplicates import near_duplicates

HELD_OUT = 1000
# a group above this share of all pairs hangs together by chance, through short texts such as "OK": it is for training
LARGEST_GROUP = 0.01

logger = logging.getLogger("regard")


def write_splits(
    folder: Path, pairs: Sequence[Pair], *, links: Sequence[Links] | None = None, held_out: int = HELD_OUT
) -> None:
    """Write pairs as train.tsv, dev.tsv and test.tsv, and their links, if any, as train.links and so on."""
    for split, indices in split_pairs(pairs, held_out).items():
        write_tsv(folder / f"{split}.tsv", (pairs[index] for index in indices))
        if links is not None:
            write_links(folder / f"{split}.links", (links[index] for index in indices))


def split_pairs(pairs: Sequence[Pair], held_out: int) -> dict[str, list[int]]:
    """Indices of the pairs of train, dev and test, with `held_out` of them in each of the latter.

    No two splits share near-duplicates. A group of these falls where the hash of its smallest member says, whatever
    else there is; of a group that is held out that member alone is kept, so that held-out pairs are independent and
    each has a source of its own.
    """
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(near_duplicates(pairs)):
        groups.setdefault(group, []).append(index)
    largest = max(map(len, groups.values()))
    logger.info("%d pairs in %d groups of near-duplicates, the largest of %d", len(pairs), len(groups), largest)
    heads = {min(members, key=pairs.__getitem__): members for members in groups.values()}
    small = [head for head, members in heads.items() if len(members) <= max(1, LARGEST_GROUP * len(pairs))]
    assert len(small) > 2 * held_out, "too few sentences for these splits"
    ordered = sorted(small, key=lambda head: text_hash("\t".join(pairs[head])))[: 2 * held_out]
    kept_out = {index for head in ordered for index in heads[head]}
    return {
        "train": [index for index in range(len(pairs)) if index not in kept_out],
        "dev": sorted(ordered[held_out:]),
        "test": sorted(ordered[:held_out]),
    }
