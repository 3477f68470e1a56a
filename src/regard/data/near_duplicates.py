"""Pairs that are nearly the same, found exactly: by their letters, and by the words that they share.

The prefix filter of Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search", and the positional filter
of Xiao et al. 2008, "Efficient similarity joins for near duplicate detection".
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from regard.data.formats import Pair
from regard.data.words import split_words

# numerator and denominator of the least Jaccard similarity, so that no rounding decides
SIMILAR = (4, 5)
SHINGLE_SIZES = (1, 2, 3)
NO_LETTERS = re.compile(r"[\W\d_]+")


def letters(text: str) -> str:
    """The letters of a text alone, without case and in compatible form (NFKC): what near-duplicates have in common."""
    return NO_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())


def near_duplicates(pairs: Sequence[Pair]) -> list[int]:
    """For each pair the number of its group: pairs with nearly the same source, or target, are in one, and so on.

    Nearly the same are texts of the same letters, and texts whose sets of words, or of two or three words in a row,
    have a Jaccard similarity of at least 0.8, as when one word of nine is left out.
    """
    groups = _Groups(len(pairs))
    for texts in zip(*pairs, strict=True):
        representatives: dict[str, int] = {}
        for index, text in enumerate(texts):
            groups.join(representatives.setdefault(letters(text), index), index)
        # texts of the same letters are in one group already
        indices = list(representatives.values())
        words = [[word for word in map(letters, split_words(texts[index])) if word] for index in indices]
        for size in SHINGLE_SIZES:
            for one, other in similar_sets([shingles(each, size) for each in words]):
                groups.join(indices[one], indices[other])
    return [groups.find(index) for index in range(len(pairs))]


def overlapping(texts: Sequence[str], *, words: int) -> list[int]:
    """For each text the number of its group: texts that have so many words in a row in common are in one, and so on."""
    groups = _Groups(len(texts))
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        spelt = [word for word in map(letters, split_words(text)) if word]
        for shingle in shingles(spelt, words):
            groups.join(first.setdefault(shingle, index), index)
    return [groups.find(index) for index in range(len(texts))]


def shingles(words: Sequence[str], size: int) -> set[str]:
    """Every `size` words in a row."""
    return {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)}


def similar_sets(sets: Sequence[AbstractSet[str]]) -> Iterator[tuple[int, int]]:
    """Every two sets, as indices, whose Jaccard similarity is at least SIMILAR; empty sets are like none."""
    counts = Counter(word for words in sets for word in words)
    rank = {word: number for number, word in enumerate(sorted(counts, key=lambda word: (counts[word], word)))}
    # rarest first: two similar sets share one of the first few, which few other sets have
    ranked = [sorted(rank[word] for word in words) for words in sets]
    least, most = SIMILAR
    # for each word the sets seen that have it among their first few, and how many words it leaves of each
    holders: dict[int, list[tuple[int, int]]] = {}
    for index in sorted(range(len(sets)), key=lambda index: len(sets[index])):
        size = len(sets[index])
        candidates = set()
        for place, word in enumerate(ranked[index][: size - -(-least * size // most) + 1]):
            held = holders.setdefault(word, [])
            for other, left in reversed(held):
                other_size = len(sets[other])
                if most * other_size < least * size:
                    # those before it are smaller still
                    break
                if _are_similar(min(size - place, left), size + other_size):
                    candidates.add(other)
            held.append((index, size - place))
        for other in candidates:
            if _are_similar(len(sets[index] & sets[other]), size + len(sets[other])):
                yield other, index


def _are_similar(shared: int, sizes: int) -> bool:
    # shared / (sizes - shared) >= least / most
    least, most = SIMILAR
    return (least + most) * shared >= least * sizes


class _Groups:
    """Disjoint sets of numbers, joined two by two (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def find(self, index: int) -> int:
        while (parent := self._parents[index]) != index:
            self._parents[index] = index = self._parents[parent]
        return index

    def join(self, one: int, other: int) -> None:
        self._parents[self.find(other)] = self.find(one)
