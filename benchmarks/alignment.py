"""Does attention know which word translates which? Greek New Testament to English, against links that people drew.

Beside it stands IBM Model 1, the plain statistical answer to that very question. Runs that already stand under runs/
are measured as they are.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count, islice
from typing import Any

# before torch: waiting threads that spin on take the other core from whoever else has it
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
from jaxtyping import Float, Int

import regard
from benchmarks import report
from benchmarks.runs import RUNS, trained
from regard.data.corpora import get_corpus
from regard.data.formats import Pair
from regard.data.links import Link, Links
from regard.data.words import split_words
from regard.evaluation.alignment import AlignmentQuality, compare, error_rates
from regard.evaluation.bootstrap import intervals
from regard.reading.alignment import word_alignment
from regard.reading.replay import Words
from regard.view.plots import plot_alignment

CORPUS = "greek-en"
RECIPES = {
    "RNN + Bahdanau's attention": "greek-bahdanau",
    "RNN + Luong's attention": "greek-luong",
    "Transformer": "greek-transformer",
    "Transformer, guided": "greek-guided",
}
# a deeper one, of which every layer and head is measured; its folder stands beside the recipe's
HEADS = {"model.num_layers": 2, "model.num_heads": 4, "train.epochs": 12}
ITERATIONS, NUM_RESAMPLES = 30, 1000
# the number of the source token that stands for none
NULL = 0
TINY = np.finfo(float).tiny
# the verse that is drawn is the first test verse with so many words
DRAWN_WORDS = range(12, 17)

Golds = Mapping[str, Sequence[tuple[Pair, Links]]]


def run() -> None:
    corpus = get_corpus(CORPUS)
    golds = {split: list(corpus.gold(split)) for split in ("train", "dev", "test")}
    figures: dict[str, Any] = {}
    for name, form in FORMS.items():
        figures[f"IBM Model 1, {name}"] = _statistical(golds, by_word(form))
    translators = {name: trained(recipe) for name, recipe in RECIPES.items()}
    deeper = RECIPES["Transformer"]
    translators["Transformer, 2 × 4 heads"] = trained(deeper, RUNS / f"{deeper}-heads", HEADS)
    tokenizer = next(iter(translators.values())).tokenizer
    figures["IBM Model 1, the models' tokens"] = _statistical(golds, partial(Words.of_text, tokenizer))
    for name, translator in translators.items():
        figures |= _neural(name, translator, golds)
    header = ["aligner", "dev", "test", "95 % interval", "precision", "recall"]
    rows = [[name, *(percent(figure.get(column)) for column in header[1:])] for name, figure in figures.items()]
    report.write(
        "alignment",
        "Alignment error rate on manual links between words, Greek New Testament to English",
        header,
        rows,
        figures,
        f"In percent, of {len(golds['dev']):,} and {len(golds['test']):,} verses; interval, precision and recall are "
        "of test. A model is made to write the reference, and each word of it is linked to the source word with most "
        f"weight; heads are chosen on dev. Attention looks before the model knows that word, IBM Model 1 is told it; "
        f"its links between tokens become links between words as attention does. {corpus.attribution}",
    )


def _statistical(golds: Golds, words: Callable[[str], Words]) -> dict[str, Any]:
    texts = [pair for gold in golds.values() for pair, _ in gold]
    pairs = [(words(pair.source), words(pair.target)) for pair in texts]
    found = map(_likeliest, pairs, ibm_model_1(pairs, learn=len(golds["train"])))
    counts = {
        split: np.array([compare(next(found), links) for _, links in gold], dtype=float)
        for split, gold in golds.items()
    }
    dev, test = (error_rates(counts[split].sum(axis=0, keepdims=True))[0].tolist() for split in ("dev", "test"))
    (low, *_), (high, *_) = intervals(counts["test"], error_rates, num_resamples=NUM_RESAMPLES, seed=0)
    return {"dev": dev[0], "test": test[0], "95 % interval": [low, high], "precision": test[1], "recall": test[2]}


def _likeliest(pair: tuple[Words, Words], table: Float[np.ndarray, "target source"]) -> list[Link]:
    """Each target word and the source word that most likely gave rise to it, unless it was none."""
    source, target = pair
    shape = (target.num_words, source.num_words)
    words = word_alignment(table, target_words=target.indices, source_words=source.indices, shape=shape)
    found = enumerate(words.argmax(axis=1))
    return [(int(best), word) for word, best in found if words[word, best] > max(0, 1 - words[word].sum())]


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
    head = {"layer": quality.aer_head.layer, "head": quality.aer_head.head}
    (alignment,) = translator.alignments([pair.source], [pair.target], **head)
    source, target = (reading.sequences[side].words for side in ("source", "target"))
    plot_alignment(alignment, source, target, report.RESULTS / f"alignment-{translator.name}.png", title=name)


def percent(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    return "–".join(map(percent, value)) if isinstance(value, Sequence) else f"{100 * value:.1f}"


def bare(word: str) -> str:
    """A word without capitals, accents and punctuation, so that its forms count as one."""
    letters = unicodedata.normalize("NFD", word.casefold())
    return "".join(letter for letter in letters if letter.isalnum()) or word


FORMS: dict[str, Callable[[str], str]] = {"words as they stand": str, "bare words": bare}


def by_word(form: Callable[[str], str]) -> Callable[[str], Words]:
    """Makes the words of texts tokens: as many as they have forms."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)

    def words(text: str) -> Words:
        ids = [numbers[form(word)] for word in split_words(text)]
        return Words(ids, [[index] for index in range(len(ids))], len(ids))

    return words


def ibm_model_1(pairs: Sequence[tuple[Words, Words]], *, learn: int) -> list[Float[np.ndarray, "target source"]]:
    """In every pair, how likely each source token gave rise to each target token: what a row lacks of 1 is nothing's.

    How likely is learnt by expectation maximisation from the first `learn` pairs. Brown, Della Pietra, Della Pietra and
    Mercer 1993, "The mathematics of statistical machine translation: parameter estimation", section 4.1.
    """
    sources, targets = ([np.array(words.ids) + 1 for words in side] for side in zip(*pairs, strict=True))
    sources = [np.concatenate([[NULL], source]) for source in sources]
    size = max(int(target.max(initial=0)) for target in targets) + 1
    # for each token of each target, the cells of the translation table that could have made it
    rows = [source * size + token for source, target in zip(sources, targets, strict=True) for token in target]
    sizes = np.array([len(row) for row in rows])
    starts = np.cumsum(sizes) - sizes
    cells, cell = np.unique(np.concatenate(rows), return_inverse=True)
    _, source_of = np.unique(cells // size, return_inverse=True)
    num_learnt = sum(map(len, targets[:learn]))
    learnt = cell[: sizes[:num_learnt].sum()]
    table = np.ones(len(cells))
    for _ in range(ITERATIONS):
        counts = np.bincount(learnt, _shares(table[learnt], starts[:num_learnt]), minlength=len(cells))
        # what was never seen stays impossible
        table = counts / np.maximum(np.bincount(source_of, counts)[source_of], TINY)
    shares = iter(np.split(_shares(table[cell], starts), starts[1:]))
    return [
        np.array(list(islice(shares, len(target)))).reshape(len(target), len(source))[:, 1:]
        for source, target in zip(sources, targets, strict=True)
    ]


def _shares(chances: Float[np.ndarray, " cell"], starts: Int[np.ndarray, " row"]) -> Float[np.ndarray, " cell"]:
    """Each row's chances over their sum."""
    sums = np.add.reduceat(chances, starts)
    return chances / np.maximum(np.repeat(sums, np.diff(starts, append=len(chances))), TINY)
