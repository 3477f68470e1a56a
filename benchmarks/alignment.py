"""Does attention know which word translates which? Greek New Testament to English, against links that people drew.

Beside it stands IBM Model 1, the plain statistical answer to that very question. Runs that already stand under runs/
are measured as they are.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import count, islice
from typing import Any

# before torch: waiting threads that spin on take the other core from whoever else has it
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np

import regard
from benchmarks import report
from benchmarks.runs import trained
from regard.data.corpora import get_corpus
from regard.data.formats import Pair
from regard.data.links import Link, Links
from regard.data.words import split_words
from regard.evaluation.alignment import AlignmentQuality, compare, error_rates
from regard.evaluation.bootstrap import intervals
from regard.view.plots import plot_alignment

CORPUS = "greek-en"
RECIPES = {
    "RNN + Bahdanau's attention": "greek-bahdanau",
    "RNN + Luong's attention": "greek-luong",
    "Transformer": "greek-transformer",
}
ITERATIONS, NUM_RESAMPLES = 30, 1000
NULL = ""
# the verse that is drawn is the first test verse with so many words
DRAWN_WORDS = range(12, 17)

Golds = Mapping[str, Sequence[tuple[Pair, Links]]]


def run() -> None:
    corpus = get_corpus(CORPUS)
    golds = {split: list(corpus.gold(split)) for split in ("train", "dev", "test")}
    figures: dict[str, Any] = {}
    for learnt in (["train"], ["train", "dev", "test"]):
        for form in FORMS:
            figures[f"IBM Model 1, {form}, learnt from {' + '.join(learnt)}"] = _statistical(golds, learnt, form)
    for name, recipe in RECIPES.items():
        figures |= _neural(name, trained(recipe), golds)
    header = ["aligner", "dev", "test", "95 % interval", "precision", "recall"]
    rows = [[name, *(_percent(figure.get(column)) for column in header[1:])] for name, figure in figures.items()]
    report.write(
        "alignment",
        "Alignment error rate on manual links between words, Greek New Testament to English",
        header,
        rows,
        figures,
        f"In percent, of {len(golds['dev']):,} and {len(golds['test']):,} verses; interval, precision and recall are "
        "of test. A model is made to write the reference, and each word of it is linked to the source word with most "
        f"weight; heads are chosen on dev. {corpus.attribution}",
    )


def _statistical(golds: Golds, learnt: Sequence[str], form: str) -> dict[str, Any]:
    order = [*learnt, *(split for split in golds if split not in learnt)]
    texts = [pair for split in order for pair, _ in golds[split]]
    pairs = [[[FORMS[form](word) for word in split_words(side)] for side in pair] for pair in texts]
    found = iter(ibm_model_1(pairs, learn=sum(len(golds[split]) for split in learnt)))
    counts = {split: np.array([compare(next(found), gold) for _, gold in golds[split]], dtype=float) for split in order}
    dev, test = (error_rates(counts[split].sum(axis=0, keepdims=True))[0].tolist() for split in ("dev", "test"))
    (low, *_), (high, *_) = intervals(counts["test"], error_rates, num_resamples=NUM_RESAMPLES, seed=0)
    return {"dev": dev[0], "test": test[0], "95 % interval": [low, high], "precision": test[1], "recall": test[2]}


def _neural(name: str, translator: regard.Translator, golds: Golds) -> dict[str, Any]:
    """The head that aligns dev best, with what training took, and the mean of each layer of several heads."""
    dev, test = (translator.evaluate_alignment(split) for split in ("dev", "test"))
    assert dev is not None
    assert test is not None
    assert all(len(translator.pairs(split)) == len(golds[split]) for split in ("dev", "test"))
    _draw(name, translator, test, golds["test"])
    facts = ("parameters", "steps", "epochs", "seconds", "threads", "tokens_per_second", "dev_loss")
    several = len(test.aer_by_head) > 1
    figures: dict[str, Any] = {
        f"{name}, layer {test.aer_head.layer}, head {test.aer_head.head}" if several else name: {
            "dev": dev.aer,
            "test": test.aer,
            "95 % interval": [test.aer_low, test.aer_high],
            "precision": test.aer_precision,
            "recall": test.aer_recall,
            "by_head": [asdict(scores) for scores in test.aer_by_head],
            **{fact: translator.run.facts[fact] for fact in facts},
        }
    }
    for on_dev, on_test in zip(dev.aer_by_head, test.aer_by_head, strict=True):
        if on_test.head is None:
            figures[f"{name}, layer {on_test.layer}, mean of heads"] = {
                "dev": on_dev.aer,
                "test": on_test.aer,
                "precision": on_test.precision,
                "recall": on_test.recall,
            }
    return figures


def _draw(
    name: str, translator: regard.Translator, quality: AlignmentQuality, gold: Sequence[tuple[Pair, Links]]
) -> None:
    pair = next(pair for pair, _ in gold if len(split_words(pair.target)) in DRAWN_WORDS)
    reading = translator.read(pair.source, pair.target)
    alignment = reading.alignment(layer=quality.aer_head.layer, head=quality.aer_head.head)
    source, target = (reading.sequences[side].words for side in ("source", "target"))
    plot_alignment(alignment, source, target, report.RESULTS / f"alignment-{translator.name}.png", title=name)


def _percent(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    return "–".join(map(_percent, value)) if isinstance(value, Sequence) else f"{100 * value:.1f}"


def bare(word: str) -> str:
    """A word without capitals, accents and punctuation, so that its forms count as one."""
    letters = unicodedata.normalize("NFD", word.casefold())
    return "".join(letter for letter in letters if letter.isalnum()) or word


FORMS: dict[str, Callable[[str], str]] = {"words as they stand": str, "bare words": bare}


def ibm_model_1(pairs: Sequence[Sequence[Sequence[str]]], *, learn: int) -> list[list[Link]]:
    """In every pair, each target word and the source word that most likely gave rise to it, unless it was none.

    How likely is learnt by expectation maximisation from the first `learn` pairs. Brown, Della Pietra, Della Pietra and
    Mercer 1993, "The mathematics of statistical machine translation: parameter estimation", section 4.1.
    """
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    sources = [np.array([numbers[word] for word in (NULL, *source)]) for source, _ in pairs]
    targets = [np.array([numbers[word] for word in target]) for _, target in pairs]
    # for each word of each target, the cells of the translation table that could have made it
    rows = [source * len(numbers) + word for source, target in zip(sources, targets, strict=True) for word in target]
    sizes = np.array([len(row) for row in rows])
    starts = np.cumsum(sizes) - sizes
    cells, cell = np.unique(np.concatenate(rows), return_inverse=True)
    _, source_of = np.unique(cells // len(numbers), return_inverse=True)
    learnt_rows = sum(map(len, targets[:learn]))
    learnt = cell[: sizes[:learnt_rows].sum()]
    table = np.ones(len(cells))
    for _ in range(ITERATIONS):
        sums = np.add.reduceat(table[learnt], starts[:learnt_rows])
        counts = np.bincount(learnt, table[learnt] / np.repeat(sums, sizes[:learnt_rows]), minlength=len(cells))
        # what was never seen stays impossible
        table = counts / np.maximum(np.bincount(source_of, counts)[source_of], np.finfo(float).tiny)
    best = (int(row.argmax()) for row in np.split(table[cell], starts[1:]))
    return [
        [(source - 1, word) for word, source in enumerate(islice(best, len(target))) if source > 0]
        for target in targets
    ]
