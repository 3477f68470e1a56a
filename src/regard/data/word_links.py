"""Links between the words of sentence pairs, from the words alone: a hidden Markov model for each direction, joined.

Heuristics that join both directions: Och and Ney 2003, "A systematic comparison of various statistical alignment
models", section 4.2 (intersection, union); Koehn, Och and Marcu 2003, "Statistical phrase-based translation",
section 3 (grow-diag, final).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from regard.data.corpus import Watcher, unwatched
from regard.data.hmm_alignment import HMM, stem
from regard.data.links import Link

WordPair = tuple[Sequence[str], Sequence[str]]
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


class WordAligner(NamedTuple):
    """Both directions, and the number of every stem of each side that they know."""

    forward: HMM
    reverse: HMM
    stems: tuple[dict[str, int], dict[str, int]]

    @classmethod
    def learn(cls, pairs: Sequence[WordPair], progress: Watcher = unwatched) -> "WordAligner":
        """Learn which words translate each other from the pairs' words; no link is given."""
        sources, targets = (defaultdict[str, int](count().__next__) for _ in range(2))
        ids = [([sources[stem(word)] for word in one], [targets[stem(word)] for word in other]) for one, other in pairs]
        progress("aligning words, source to target", 0)
        forward = HMM.learn(ids)
        progress("aligning words, target to source", 0)
        return cls(forward, HMM.learn([(target, source) for source, target in ids]), (dict(sources), dict(targets)))

    def directions(self, pairs: Sequence[WordPair]) -> list[tuple[set[Link], set[Link]]]:
        """For each pair the source word of each target word, and the target word of each source word, as links."""
        # a number of its own for what was not seen
        sources, targets = self.stems
        ids = [
            (
                [sources.get(stem(word), len(sources)) for word in source],
                [targets.get(stem(word), len(targets)) for word in target],
            )
            for source, target in pairs
        ]
        forward = self.forward.posteriors(ids)
        reverse = self.reverse.posteriors([(target, source) for source, target in ids])
        return [
            (set(likeliest(one)), {(source, target) for target, source in likeliest(other)})
            for one, other in zip(forward, reverse, strict=True)
        ]


def likeliest(table: Float[np.ndarray, "target source"]) -> list[Link]:
    """Each target word with the source word that most likely gave rise to it, unless that was likelier none."""
    return [(int(row.argmax()), target) for target, row in enumerate(table) if row.max(initial=0) > 1 - row.sum()]


def as_text(links: Iterable[Link]) -> str:
    """Links as a line of `i-j` in order of source words (Pharaoh format)."""
    return " ".join(f"{source}-{target}" for source, target in sorted(links))


def symmetrise(forward: Set[Link], reverse: Set[Link], heuristic: str) -> set[Link]:
    """One set of links from those of both directions, by a heuristic of HEURISTICS."""
    return HEURISTICS[heuristic](set(forward), set(reverse))


def _grow_diag(forward: set[Link], reverse: set[Link]) -> set[Link]:
    """The intersection, and links of the union next to those found, as long as one of their words has none."""
    found, union = forward & reverse, forward | reverse
    sources, targets = ({link[side] for link in found} for side in (0, 1))
    grown = True
    while grown:
        grown = False
        for source, target in sorted(found):
            for down, right in NEIGHBOURS:
                link = (source + down, target + right)
                if link in union - found and not (link[0] in sources and link[1] in targets):
                    found.add(link)
                    sources.add(link[0])
                    targets.add(link[1])
                    grown = True
    return found


def _final(found: set[Link], *directions: set[Link], both: bool) -> set[Link]:
    """Add links of each direction in turn where a word has none, or, with `both`, where neither has."""
    taken = tuple({link[side] for link in found} for side in (0, 1))
    free = all if both else any
    for direction in directions:
        for link in sorted(direction):
            if free(word not in words for word, words in zip(link, taken, strict=True)):
                found.add(link)
                for word, words in zip(link, taken, strict=True):
                    words.add(word)
    return found


HEURISTICS: dict[str, Callable[[set[Link], set[Link]], set[Link]]] = {
    "grow-diag-final-and": lambda one, other: _final(_grow_diag(one, other), one, other, both=True),
    "grow-diag-final": lambda one, other: _final(_grow_diag(one, other), one, other, both=False),
    "grow-diag": _grow_diag,
    "intersection": set.__and__,
    "union": set.__or__,
}
