"""What guiding a head does: the links of the aligner that guides it, those of the head, and translations.

The models have the same recipe, updates and seed; in one no head is guided. Gold links are for measuring alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

import regard
from benchmarks import report
from benchmarks.alignment import CORPUS, NUM_RESAMPLES, Golds, percent
from benchmarks.runs import RUNS, trained
from regard.data.corpora import get_corpus
from regard.data.links import Link
from regard.data.word_links import HEURISTICS, WordAligner
from regard.data.words import split_words
from regard.evaluation.alignment import compare, error_rates
from regard.evaluation.bootstrap import intervals

RECIPE = "greek-guided"
# as long as a head takes to learn its links; to translate takes many times as long
BUDGET = {"train.steps": 2400}
WEIGHTS = (0.5, 0.1, 0.0)
HEADER = ["aligner", "dev", "test", "95 % interval", "precision", "recall", "chrF", "95 % interval of chrF"]


def run() -> None:
    corpus = get_corpus(CORPUS)
    golds = {split: list(corpus.gold(split)) for split in ("train", "dev", "test")}
    figures = aligned(golds)
    for weight in WEIGHTS:
        translator = trained(RECIPE, RUNS / f"{RECIPE}-{weight}", BUDGET | {"train.guided_alignment": weight})
        figures[f"Transformer, guided_alignment = {weight}"] = _neural(translator)
    rows = [[name, *(percent(figure.get(column)) for column in HEADER[1:])] for name, figure in figures.items()]
    report.write(
        "guided-alignment",
        "Alignment error rate with a guided head, Greek New Testament to English",
        HEADER,
        rows,
        figures,
        f"In percent, of {len(golds['dev']):,} and {len(golds['test']):,} verses; intervals, precision, recall and "
        "chrF are of test. The hidden Markov models learn from the training pairs alone; their links guide the head. "
        f"All Transformers have the recipe {RECIPE} and {BUDGET['train.steps']:,} updates, too few to translate well. "
        "Where no head is guided the row is the head that aligns dev best. chrF is of greedy translations. "
        f"{corpus.attribution}",
    )


def aligned(golds: Golds) -> dict[str, Any]:
    """The error rates of the aligner's links, of each direction and of both joined."""
    words = {
        split: [(split_words(pair.source), split_words(pair.target)) for pair, _ in gold]
        for split, gold in golds.items()
    }
    aligner = WordAligner.learn(words["train"])
    directions = {split: aligner.directions(words[split]) for split in ("dev", "test")}
    ways = {"Greek to English": lambda one, other: one, "English to Greek": lambda one, other: other, **HEURISTICS}
    return {
        f"HMM, {name}": scores(
            {split: [join(set(one), set(other)) for one, other in both] for split, both in directions.items()}, golds
        )
        for name, join in ways.items()
    }


def scores(found: Mapping[str, list[set[Link]]], golds: Golds) -> dict[str, Any]:
    """Error rate of dev and test, with interval, precision and recall of test."""
    counts = {
        split: np.array([compare(own, gold) for own, (_, gold) in zip(links, golds[split], strict=True)], dtype=float)
        for split, links in found.items()
    }
    dev, test = (error_rates(counts[split].sum(axis=0, keepdims=True))[0].tolist() for split in ("dev", "test"))
    (low, *_), (high, *_) = intervals(counts["test"], error_rates, num_resamples=NUM_RESAMPLES, seed=0)
    return {"dev": dev[0], "test": test[0], "95 % interval": [low, high], "precision": test[1], "recall": test[2]}


def _neural(translator: regard.Translator) -> dict[str, Any]:
    dev = translator.evaluate_alignment("dev")
    assert dev is not None
    quality = translator.evaluation("test").quality
    assert translator.run is not None
    facts = ("parameters", "steps", "epochs", "seconds", "threads", "tokens_per_second", "dev_loss")
    return {
        "dev": dev.aer,
        "test": quality.aer,
        "95 % interval": [quality.aer_low, quality.aer_high],
        "precision": quality.aer_precision,
        "recall": quality.aer_recall,
        "chrF": quality.chrf / 100,
        "95 % interval of chrF": [quality.chrf_low / 100, quality.chrf_high / 100],
        "BLEU": quality.bleu,
        **{fact: translator.run.facts[fact] for fact in facts},
    }
