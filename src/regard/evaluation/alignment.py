"""Alignment error rate: how far the links that attention makes between words are from those that people drew.

Och and Ney 2003, "A systematic comparison of various statistical alignment models". The model is made to write the
reference, as in Zenkel, Wuebker and DeNero 2019, "Adding interpretable attention to neural translation models improves
word alignment".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from regard.data.batch import OWN_FRAMES, Frames
from regard.data.links import Links
from regard.data.pair_tokenizer import PairTokenizer
from regard.evaluation.bootstrap import figure, intervals
from regard.reading.replay import Words, cross_attention, links

# layer and head; no head is the mean of all of the layer's
Head = tuple[int, int | None]
NUM_COUNTS = 4


class Gold(NamedTuple):
    """A source, a target, and the links between their words that people drew."""

    source: Words
    target: Words
    links: Links

    @classmethod
    def of(cls, tokenizer: PairTokenizer, source: str, target: str, links: Links) -> "Gold":
        """The words of two texts, even those that the tokenizer does not know, and the links between them."""
        return cls(Words.of_text(tokenizer, source), Words.of_text(tokenizer.target, target), links)


@dataclass(frozen=True, kw_only=True)
class HeadScores:
    """Scores, 0 to 1, of one cross head; `head` is None for the mean of a layer's heads.

    Precision is None where no link was found, recall where none is sure: they are undefined.
    """

    layer: int
    head: int | None
    aer: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class ChosenHead:
    """The head that is measured, and the split on which it aligned best; None where there was no choice."""

    layer: int
    head: int | None
    chosen_on: str | None


@dataclass(frozen=True, kw_only=True)
class AlignmentQuality:
    """Alignment error rate, precision and recall of one head, 0 to 1, None where undefined, and of all there are.

    `aer_low` and `aer_high` are the ends of the error rate's 95 % bootstrap interval over sentences.
    """

    aer: float
    aer_low: float
    aer_high: float
    aer_precision: float | None
    aer_recall: float | None
    aer_head: ChosenHead
    aer_by_head: list[HeadScores]


def evaluate_alignment(
    module: nn.Module,
    golds: Mapping[str, Sequence[Gold]],
    split: str,
    *,
    frames: Frames = OWN_FRAMES,
    batch_size: int = 32,
    num_resamples: int = 1000,
    seed: int = 0,
    guided: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> AlignmentQuality | None:
    """How well a model's attention aligns the words of a split; None for a model without attention, or without links.

    `golds` holds the split and, where there is one, `dev`: of several heads the one is measured that aligns dev best.
    Without dev it is the mean of the last layer's heads, from which alignments are read by default. A head that
    training `guided` is measured in any case.
    """
    # where nothing is to be found no rate of errors says anything
    golds = {name: rows for name, rows in golds.items() if any(gold.links.possible for gold in rows)}
    if split not in golds:
        return None
    how: dict[str, Any] = {"guided": guided, "frames": frames, "batch_size": batch_size, "device": device}
    counts = count_links(module, golds[split], **how)
    if not counts:
        return None
    heads = [head for head in counts if head[1] is not None]
    chosen, chosen_on = (max(heads)[0], None), None
    if guided is not None:
        chosen = guided
    elif len(heads) == 1:
        (chosen,) = heads
    elif "dev" in golds:
        dev = counts if split == "dev" else count_links(module, golds["dev"], **how)
        chosen, chosen_on = min(heads, key=lambda head: _scores(dev[head])[0]), "dev"
    rate, precision, recall = _scores(counts[chosen])
    (low, *_), (high, *_) = intervals(counts[chosen], error_rates, num_resamples=num_resamples, seed=seed)
    return AlignmentQuality(
        aer=rate,
        aer_low=float(low),
        aer_high=float(high),
        aer_precision=precision,
        aer_recall=recall,
        aer_head=ChosenHead(layer=chosen[0], head=chosen[1], chosen_on=chosen_on),
        aer_by_head=[
            HeadScores(layer=layer, head=head, aer=aer, precision=precision, recall=recall)
            for (layer, head), (aer, precision, recall) in zip(counts, map(_scores, counts.values()), strict=True)
        ],
    )


def count_links(
    module: nn.Module,
    golds: Sequence[Gold],
    *,
    guided: tuple[int, int] | None = None,
    frames: Frames = OWN_FRAMES,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> dict[Head, Float[np.ndarray, "sentence count"]]:
    """Links found and wanted in each sentence, as `compare` counts them, of every head and of every layer's mean.

    Empty for a model without attention. `guided` as in `cross_attention`.
    """
    # sentences of like length, so that little of a batch is padding
    order = sorted(range(len(golds)), key=lambda index: (len(golds[index].target.ids), len(golds[index].source.ids)))
    pairs = [(golds[index].source, golds[index].target) for index in order]
    counts: dict[Head, Float[np.ndarray, "sentence count"]] = {}
    how: dict[str, Any] = {"frames": frames, "batch_size": batch_size, "device": device}
    tables = cross_attention(module, pairs, guided=guided, **how)
    for index, layers in zip(order, tables, strict=True):
        if not layers:
            break
        for layer, table in layers.items():
            means = [(None, table.mean(axis=0))] if len(table) > 1 else []
            for head, alignment in [*enumerate(table), *means]:
                own = counts.setdefault((layer, head), np.zeros((len(golds), NUM_COUNTS)))
                own[index] = compare(links(alignment), golds[index].links)
    return counts


def compare(found: Iterable[tuple[int, int]], gold: Links) -> list[int]:
    """How many links were found and how many are sure; of those found, how many are sure and how many possible."""
    found = set(found)
    return [len(found), len(gold.sure), len(found & gold.sure), len(found & gold.possible)]


def error_rates(counts: Float[np.ndarray, "set count"]) -> Float[np.ndarray, "set 3"]:
    """Alignment error rate, precision and recall, from counts of `compare` summed over each set of sentences.

    Precision is NaN where no link was found, recall where none is sure.
    """
    found, sure, found_sure, found_possible = counts.T
    # where nothing is found and nothing wanted there is no error
    aer = (found + sure - found_sure - found_possible) / np.maximum(found + sure, 1)
    precision = np.where(found > 0, found_possible / np.maximum(found, 1), np.nan)
    recall = np.where(sure > 0, found_sure / np.maximum(sure, 1), np.nan)
    return np.column_stack([aer, precision, recall])


def _scores(counts: Float[np.ndarray, "sentence count"]) -> tuple[float, float | None, float | None]:
    aer, precision, recall = error_rates(counts.sum(axis=0, keepdims=True))[0]
    return float(aer), figure(precision), figure(recall)
