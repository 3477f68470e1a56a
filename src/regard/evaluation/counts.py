"""BLEU and chrF are functions of counts that add up over sentences, so that any set of them is scored at once.

The counts and the formulas are those of sacrebleu with its standard settings: Post 2018, "A call
for clarity in reporting BLEU scores"; Popović 2015, "chrF: character n-gram F-score".
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams

from regard.data.words import counts_characters

BLEU_ORDER = 4
CHRF_ORDER = 6
KANA = re.compile("[\u3041-\u30ff]")
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
JAPANESE_SHARE = 0.1


def tokenizer_for(references: Sequence[str]) -> str:
    """The name of sacrebleu's tokenizer: `zh` for Chinese, `char` for other scripts without spaces, else `13a`.

    The others are Japanese, Thai, Lao, Khmer, Burmese and their like.
    """
    if not counts_characters(references):
        return "13a"
    text = "".join(references)
    letters, han, kana = sum(map(str.isalpha, text)), len(HAN.findall(text)), len(KANA.findall(text))
    # about half of Japanese is kana; Chinese borrows one now and then
    return "zh" if 2 * han > letters and kana < JAPANESE_SHARE * letters else "char"


def signature(references: Sequence[str], *, tokenizer: str) -> str:
    """How the scores were made, in sacrebleu's words."""
    # sacrebleu signs only a metric that has seen references
    seen = [[references[0]]]
    bleu = BLEU(tokenize=tokenizer, references=seen).get_signature()
    chrf = CHRF(references=seen).get_signature()
    return f"BLEU|{bleu} chrF|{chrf}"


def bleu_counts(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenizer: str
) -> Float[np.ndarray, "sentence count"]:
    """Lengths of hypothesis and reference, matched and all n-grams of each order, 4-grams of the reference."""
    # the effective order changes a sentence's score, not its counts; without it sacrebleu warns
    metric = BLEU(tokenize=tokenizer, effective_order=True, force=True)
    scores = [
        metric.sentence_score(hypothesis, [reference])
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    return np.array(
        [
            [score.sys_len, score.ref_len, *score.counts, *score.totals, max(score.ref_len - BLEU_ORDER + 1, 0)]
            for score in scores
        ],
        dtype=float,
    )


def bleu(counts: Float[np.ndarray, "set count"]) -> Float[np.ndarray, " set"]:
    """Corpus BLEU, 0 to 100, with exponential smoothing, from counts summed over each set.

    NaN where there is no 4-gram, neither in what was written nor in the references: their precision is 0/0.
    """
    hypothesis_length, reference_length, expected = counts[:, 0], counts[:, 1], counts[:, -1]
    matched, total = counts[:, 2 : 2 + BLEU_ORDER], counts[:, 2 + BLEU_ORDER : -1]
    # each order without a match counts half as much as the one before it
    smoothed = 0.5 ** np.cumsum(matched == 0, axis=1)
    precision = np.where(matched > 0, matched, smoothed) / np.maximum(total, 1)
    has_any = (matched[:, 0] > 0) & (total[:, -1] > 0)
    ratio = reference_length / np.maximum(hypothesis_length, 1)
    brevity = np.exp(np.minimum(1 - ratio, 0))
    scores = np.where(has_any, 100 * brevity * np.exp(np.log(precision).mean(axis=1)), 0.0)
    return np.where((total[:, -1] > 0) | (expected > 0), scores, np.nan)


def chrf_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "sentence count"]:
    """For each order: character n-grams of the hypothesis, of the reference, and of both."""
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        row = []
        written = extract_all_char_ngrams(hypothesis, CHRF_ORDER, include_whitespace=False)
        expected = extract_all_char_ngrams(reference, CHRF_ORDER, include_whitespace=False)
        for ours, theirs in zip(written, expected, strict=True):
            # sacrebleu does not hold n-grams against a reference too short to have any
            row += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
        rows.append(row)
    return np.array(rows, dtype=float)


def chrf(counts: Float[np.ndarray, "set count"]) -> Float[np.ndarray, " set"]:
    """Corpus chrF2, 0 to 100, from counts summed over each set."""
    written, expected, matched = np.moveaxis(counts.reshape(-1, CHRF_ORDER, 3), -1, 0)
    has_both = (written > 0) & (expected > 0)
    num_orders = np.maximum(has_both.sum(axis=1), 1)
    precision = (matched / np.maximum(written, 1) * has_both).sum(axis=1) / num_orders
    recall = (matched / np.maximum(expected, 1) * has_both).sum(axis=1) / num_orders
    weight = CHRF.BETA**2
    either = weight * precision + recall
    return 100 * (1 + weight) * precision * recall / np.where(either > 0, either, 1)
