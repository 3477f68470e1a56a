"""Near-duplicates stay in one split: a sentence that training saw, but for a word or a digit, tests nothing.

Lee et al. 2022, "Deduplicating training data makes language models better", section 1.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regard.data.corpus import text_hash
from regard.data.formats import Pair, write_tsv
from regard.data.links import Links, write_links
from regard.data.near_duplicates import near_duplicates, overlapping
from regard.data.text import write_documents

HELD_OUT = 1000
# a group above this share of all pairs hangs together by chance, through short texts such as "OK": it is for training
LARGEST_GROUP = 0.01
# of documents
SHARE_HELD_OUT = 0.05
SHARED_WORDS = 13

logger = logging.getLogger("regard")


def write_splits(
    folder: Path, pairs: Sequence[Pair], *, links: Sequence[Links] | None = None, held_out: int = HELD_OUT
) -> None:
    """Write pairs as train.tsv, dev.tsv and test.tsv, and their links, if any, as train.links and so on."""
    for split, indices in split_pairs(pairs, held_out).items():
        write_tsv(folder / f"{split}.tsv", (pairs[index] for index in indices))
        if links is not None:
            write_links(folder / f"{split}.links", (links[index] for index in indices))


def write_document_splits(folder: Path, documents: Sequence[str]) -> None:
    """Write documents as train.jsonl, dev.jsonl and test.jsonl."""
    for split, indices in split_documents(documents).items():
        write_documents(folder / f"{split}.jsonl", (documents[index] for index in indices))


def split_pairs(pairs: Sequence[Pair], held_out: int) -> dict[str, list[int]]:
    """Indices of the pairs of train, dev and test, with `held_out` of them in each of the latter.

    No two splits share near-duplicates. A group of these falls where the hash of its smallest member says, whatever
    else there is; of a group that is held out that member alone is kept, so that held-out pairs are independent and
    each has a source of its own.
    """
    return _split(pairs, near_duplicates(pairs), held_out, "\t".join)


def split_documents(documents: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the documents of train, dev and test, a twentieth of them in each of the latter.

    As with pairs, but grouped are documents that share SHARED_WORDS words in a row (Brown et al. 2020, appendix C).
    """
    groups = overlapping(documents, words=SHARED_WORDS)
    return _split(documents, groups, max(1, int(SHARE_HELD_OUT * len(documents))), str)


def _split(units: Sequence[Any], groups_of: Sequence[int], held_out: int, text: Callable[[Any], str]) -> dict[str, Any]:
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(groups_of):
        groups.setdefault(group, []).append(index)
    largest = max(map(len, groups.values()))
    logger.info("%d texts in %d groups of near-duplicates, the largest of %d", len(units), len(groups), largest)
    heads = {min(members, key=units.__getitem__): members for members in groups.values()}
    small = [head for head, members in heads.items() if len(members) <= max(1, LARGEST_GROUP * len(units))]
    assert len(small) > 2 * held_out, "too few texts for these splits"
    ordered = sorted(small, key=lambda head: text_hash(text(units[head])))[: 2 * held_out]
    kept_out = {index for head in ordered for index in heads[head]}
    return {
        "train": [index for index in range(len(units)) if index not in kept_out],
        "dev": sorted(ordered[held_out:]),
        "test": sorted(ordered[:held_out]),
    }
