"""Which word of a sentence gave rise to which word of its translation, learnt from sentence pairs alone.

A hidden Markov model (Vogel, Ney and Tillmann 1996, "HMM-based word alignment in statistical translation", section 3):

    p(t_1 … t_J | s_1 … s_I) = Σ_a Π_j p(a_j | a_{j-1}, I) · p(t_j | s_{a_j})
    p(i | i', I) = c(i - i') / Σ_k c(k - i')

A null word after Och and Ney 2003, "A systematic comparison of various statistical alignment models", section 2.1.2,
stands beside every source word: with probability `null` a target word comes from none and the place is remembered.
Expectation maximisation begins with IBM Model 1 (Brown et al. 1993), in which all jumps are as likely. The translation
table has a sparse Dirichlet prior, estimated by variational Bayes (Riley and Gildea 2012, "Improving the IBM alignment
models using variational Bayes", section 3): a rare word does not collect all that is left over.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

# a source sentence and its translation, each word a number from 0
IdPair = tuple[Sequence[int], Sequence[int]]

MODEL_1_ITERATIONS, HMM_ITERATIONS = 5, 5
NULL, PRIOR = 0.1, 0.01
# letters of a word that are compared: most of what is cut off is inflection
STEM = 4
# longer jumps are as likely as this one
LONGEST_JUMP = 100
# the number of the null word, and the source position before the first
NULL_WORD, START = 0, -1
# a translation that was never seen
NEVER = 1e-40
# of a batch
MOST_PAIRS, MOST_CELLS = 256, 1 << 20


def stem(word: str) -> str:
    """The first letters and digits of a word, without case and accents, so that its inflected forms count as one."""
    letters = unicodedata.normalize("NFD", word.casefold())
    return "".join(letter for letter in letters if letter.isalnum())[:STEM] or word


class _Batch(NamedTuple):
    """Pairs padded to one size; `cells` is where the translation table has p(target | source), null word first."""

    indices: list[int]
    cells: Int[np.ndarray, "pair target source_and_null"]
    source: Bool[np.ndarray, "pair source"]
    target: Bool[np.ndarray, "pair target"]


class _Posteriors(NamedTuple):
    """p(a_j = i | both sentences) for each target word, the null word first, and how often each jump is expected."""

    links: Float[np.ndarray, "pair target source_and_null"]
    jumps: Float[np.ndarray, " jump"]


@dataclass(frozen=True)
class HMM:
    """One direction: how target words come from source words. `table` has p(target | source) of `cells`, in order.

    A cell is source · `size` + target, both counted from 1. `jumps` holds c from -LONGEST_JUMP to LONGEST_JUMP.
    """

    cells: Int[np.ndarray, " cell"]
    table: Float[np.ndarray, " cell"]
    jumps: Float[np.ndarray, " jump"]
    size: int
    null: float

    @classmethod
    def learn(
        cls,
        pairs: Sequence[IdPair],
        *,
        model_1_iterations: int = MODEL_1_ITERATIONS,
        hmm_iterations: int = HMM_ITERATIONS,
        null: float = NULL,
        prior: float = PRIOR,
    ) -> "HMM":
        """Expectation maximisation over the pairs; with `prior` 0 the table is what was counted, without a prior."""
        size = 2 + max((max(target, default=0) for _, target in pairs), default=0)
        cells = np.unique(np.concatenate([np.zeros(0, np.int64), *(_cells(pair, size).ravel() for pair in pairs)]))
        _, source_of = np.unique(cells // size, return_inverse=True)
        model = cls(cells, np.ones(len(cells)), np.ones(2 * LONGEST_JUMP + 1), size, null)
        batches = list(model._batches(pairs))
        for iteration in range(model_1_iterations + hmm_iterations):
            counts, jumps = np.zeros(len(cells) + 1), np.zeros(len(model.jumps))
            for batch in batches:
                found = model._posteriors(batch)
                counts += np.bincount(batch.cells.ravel(), found.links.ravel(), minlength=len(counts))
                jumps += found.jumps
            table = _estimate(counts[:-1] + prior, source_of, bayes=prior > 0)
            # as long as all jumps are as likely this is Model 1
            jumps = (
                model.jumps if iteration < model_1_iterations else np.maximum(jumps / max(jumps.sum(), NEVER), NEVER)
            )
            model = cls(cells, table, jumps, size, null)
        return model

    def posteriors(self, pairs: Sequence[IdPair]) -> list[Float[np.ndarray, "target source"]]:
        """How likely each target word comes from each source word; what a row lacks of 1 is the null word's."""
        found: list[np.ndarray] = [np.zeros((len(target), len(source))) for source, target in pairs]
        for batch in self._batches(pairs):
            for index, links in zip(batch.indices, self._posteriors(batch).links, strict=True):
                target, source = found[index].shape
                found[index] = links[:target, 1 : 1 + source]
        return found

    def _batches(self, pairs: Sequence[IdPair]) -> Iterator[_Batch]:
        order = sorted(
            (index for index, pair in enumerate(pairs) if all(map(len, pair))),
            key=lambda index: (len(pairs[index][1]), len(pairs[index][0])),
        )
        while order:
            rows = order[:MOST_PAIRS]
            target, source = (max(len(pairs[index][side]) for index in rows) for side in (1, 0))
            rows = rows[: max(1, MOST_CELLS // (target * (source + 1)))]
            order = order[len(rows) :]
            # beyond all cells is one for what is not there
            cells = np.full((len(rows), target, source + 1), len(self.cells))
            lengths = np.array([[len(side) for side in pairs[index]] for index in rows])
            for row, index in enumerate(rows):
                wanted = _cells(pairs[index], self.size)
                places = np.searchsorted(self.cells, wanted)
                known = np.append(self.cells, -1)[places] == wanted
                cells[row, : wanted.shape[0], : wanted.shape[1]] = np.where(known, places, len(self.cells))
            masks = (np.arange(most) < lengths[:, side, None] for side, most in ((0, source), (1, target)))
            yield _Batch(rows, cells, *masks)

    def _posteriors(self, batch: _Batch) -> _Posteriors:
        """Forwards and backwards, each step scaled to a sum of 1 (Rabiner 1989, section V.A)."""
        emitted = np.append(self.table, NEVER)[batch.cells]
        of_source = (1 - self.null) * emitted[:, :, 1:] * batch.source[:, None]
        of_null = self.null * emitted[:, :, :1]
        pairs, steps, size = of_source.shape
        jump, first = self._jumps(size)
        # what each place's jumps sum to, over the words that a sentence has
        sums = batch.source @ jump.T
        ahead = np.zeros((2, pairs, steps, size))
        scale = np.ones((pairs, steps, 1))
        before = first * batch.source / (batch.source @ first)[:, None]
        stays = before
        for step in range(steps):
            live = batch.target[:, step, None]
            now = np.stack([before * of_source[:, step], stays * of_null[:, step]])
            scale[:, step] = np.where(live, now.sum(axis=(0, 2))[:, None], 1)
            ahead[:, :, step] = now / scale[:, step] * live
            stays = np.where(live, ahead[:, :, step].sum(axis=0), stays)
            before = stays / sums @ jump * batch.source
        links = np.zeros((pairs, steps, size + 1))
        behind = np.ones((pairs, size))
        taken = np.zeros((size, size))
        for step in reversed(range(steps)):
            live = batch.target[:, step, None]
            links[:, step, 1:], lost = ahead[:, :, step] * behind
            links[:, step, 0] = lost.sum(axis=1)
            if step:
                here = of_source[:, step] * behind / scale[:, step] * live
                stayed = of_null[:, step] * behind / scale[:, step]
                left = ahead[:, :, step - 1].sum(axis=0) / sums
                taken += left.T @ here
                behind = np.where(live, here @ jump.T / sums + stayed, behind)
        places = np.arange(size)
        lengths = np.clip(places - np.arange(START, size)[:, None], -LONGEST_JUMP, LONGEST_JUMP) + LONGEST_JUMP
        expected = np.concatenate([links[:, :1, 1:].sum(axis=(0, 1))[None], taken * jump])
        jumps = np.bincount(lengths.ravel(), expected.ravel(), minlength=len(self.jumps))
        return _Posteriors(links, jumps)

    def _jumps(self, size: int) -> tuple[Float[np.ndarray, "before after"], Float[np.ndarray, " after"]]:
        """c of the jump from each source place to each, and from before the sentence."""
        lengths = np.arange(size) - np.arange(START, size)[:, None]
        first, *others = self.jumps[np.clip(lengths, -LONGEST_JUMP, LONGEST_JUMP) + LONGEST_JUMP]
        return np.array(others), first


def _cells(pair: IdPair, size: int) -> Int[np.ndarray, "target source_and_null"]:
    source, target = (np.asarray(side, dtype=np.int64) + 1 for side in pair)
    target = np.where(target < size, target, 0)
    return np.concatenate([[NULL_WORD], source]) * size + target[:, None]


def _estimate(
    counts: Float[np.ndarray, " cell"], source_of: Int[np.ndarray, " cell"], *, bayes: bool
) -> Float[np.ndarray, " cell"]:
    """Each source word's counts over their sum; with a prior exp ψ(count) / exp ψ(sum)."""
    sums = np.maximum(np.bincount(source_of, counts)[source_of], NEVER)
    if not bayes:
        return counts / sums
    count, total = (torch.from_numpy(each).digamma().numpy() for each in (counts, sums))
    return np.exp(count - total)
