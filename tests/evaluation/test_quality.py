import json
import math
import random

import numpy as np
import pytest
import sacrebleu

from regard.errors import RegardError
from regard.evaluation.bootstrap import intervals
from regard.evaluation.counts import bleu, bleu_counts, chrf, chrf_counts, tokenizer_for
from regard.evaluation.quality import evaluate_translations

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", ",", "house", "quickly", "was", "very", "old", ".", "red", "42"]
CHINESE = [
    ("the weather is nice today", "今天天气很好。", "今天天气不错。"),
    ("I like to read", "我喜欢看书。", "我喜欢读书。"),
]
SOUTH_EAST_ASIAN = [
    [("good morning my friend", "สวัสดีตอนเช้าเพื่อนของฉัน", "สวัสดีตอนเช้าเพื่อน")],
    [("good morning my friend", "ສະບາຍດີຕອນເຊົ້າ", "ສະບາຍດີເຊົ້າ")],
    [("good morning my friend", "អរុណសួស្តីមិត្តរបស់ខ្ញុំ", "អរុណសួស្តីមិត្ត")],
    [("good morning my friend", "မင်္ဂလာနံနက်ခင်းပါ။", "မင်္ဂလာပါ။")],
]
JAPANESE = [("the weather is nice today", "今日は天気がいいです。", "今日はとても天気がいい。")]


def corpus(count: int, *, seed: int = 0, longest: int = 17) -> tuple[list[str], list[str], list[str]]:
    """Sources, hypotheses with a fifth of their words changed and every other one cut or drawn out, references."""
    rng = random.Random(seed)
    references = [rng.choices(WORDS, k=rng.randint(1, longest)) for _ in range(count)]
    hypotheses = [[rng.choice(WORDS) if rng.random() < 0.2 else word for word in words] for words in references]
    hypotheses = [
        words + words[: seed % 3] if index % 2 else words[seed % 2 :] for index, words in enumerate(hypotheses)
    ]
    sources = ["s " * len(words) for words in references]
    return sources, [" ".join(words) for words in hypotheses], [" ".join(words) for words in references]


@pytest.mark.parametrize("count", [1, 3, 60])
def test_bleu_and_chrf_are_sacrebleus(count: int) -> None:
    for seed in range(8):
        sources, hypotheses, references = corpus(count, seed=seed)
        quality = evaluate_translations(sources, hypotheses, references, num_resamples=2)
        assert (quality.bleu or 0) == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, abs=1e-9)
        assert quality.chrf == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=1e-9)


@pytest.mark.parametrize(
    ("hypothesis", "reference"),
    [("", "a cat"), ("cat", "cat"), ("a cat sat down", "dogs"), ("a b c x y", "a b c d e"), ("q", "w"), ("ab", "")],
)
def test_sentences_too_short_or_too_wrong_for_some_orders_score_as_in_sacrebleu(
    hypothesis: str, reference: str
) -> None:
    quality = evaluate_translations(["a"], [hypothesis], [reference], num_resamples=2)
    # what is undefined counts nothing there
    assert (quality.bleu is None) == (max(len(text.split()) for text in (hypothesis, reference)) < 4)
    assert (quality.bleu or 0) == pytest.approx(sacrebleu.corpus_bleu([hypothesis], [[reference]]).score, abs=1e-9)
    assert quality.chrf == pytest.approx(sacrebleu.corpus_chrf([hypothesis], [[reference]]).score, abs=1e-9)


def test_what_no_sentence_is_long_enough_for_is_undefined_and_no_zero() -> None:
    sources, short, long = ["a"] * 6, ["one two"] * 6, ["one two three four five"] * 6
    quality = evaluate_translations([*sources, "b"], [*short, long[0]], [*short, long[0]], num_resamples=200)
    assert (quality.bleu, quality.exact) == (100, 1)
    # resamples without the long sentence have no part in the interval
    assert (quality.bleu_low, quality.bleu_high) == (100, 100)
    undefined = evaluate_translations(sources, short, short, num_resamples=20)
    assert [undefined.bleu, undefined.bleu_low, undefined.bleu_high] == [None] * 3
    assert undefined.exact == 1
    assert json.loads(json.dumps(undefined.to_json(), allow_nan=False))["by_length"][0]["bleu"] is None
    # too short alone is wrong, not undefined
    assert evaluate_translations(sources, short, long, num_resamples=2).bleu == 0


@pytest.mark.parametrize(
    ("rows", "tokenizer"), [(CHINESE, "zh"), (JAPANESE, "char"), *((rows, "char") for rows in SOUTH_EAST_ASIAN)]
)
def test_the_script_of_the_references_chooses_the_tokenizer(rows: list, tokenizer: str) -> None:
    sources, hypotheses, references = map(list, zip(*rows, strict=True))
    quality = evaluate_translations(sources, hypotheses, references, num_resamples=2)
    expected = sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenizer).score
    assert quality.bleu == pytest.approx(expected, abs=1e-9)
    assert f"tok:{tokenizer}" in quality.signature


def test_a_borrowed_kana_leaves_a_chinese_text_chinese() -> None:
    assert tokenizer_for(["这是一家很有名的鲜の每日果汁店铺在北京"]) == "zh"
    assert tokenizer_for(["the cat in 北京"]) == "13a"


def test_the_signature_is_the_one_sacrebleu_signs_with() -> None:
    sources, hypotheses, references = corpus(4)
    signature = evaluate_translations(sources, hypotheses, references, num_resamples=2).signature
    for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()):
        metric.corpus_score(hypotheses, [references])
        assert str(metric.get_signature()) in signature


def test_intervals_agree_with_sacrebleu_scoring_resampled_sentences() -> None:
    sources, hypotheses, references = corpus(40)
    quality = evaluate_translations(sources, hypotheses, references, num_resamples=4000)
    rng = random.Random(1)
    scores: dict[str, list[float]] = {"bleu": [], "chrf": [], "exact": []}
    for _ in range(300):
        chosen = rng.choices(range(40), k=40)
        wrote, expected = [hypotheses[i] for i in chosen], [references[i] for i in chosen]
        scores["bleu"].append(sacrebleu.corpus_bleu(wrote, [expected]).score)
        scores["chrf"].append(sacrebleu.corpus_chrf(wrote, [expected]).score)
        scores["exact"].append(np.mean([a == b for a, b in zip(wrote, expected, strict=True)]))
    for name, values in scores.items():
        low, high = np.percentile(values, [2.5, 97.5])
        # the ends of 300 resamples' interval are themselves uncertain by about a tenth of its width
        close = 0.2 * (high - low)
        assert getattr(quality, f"{name}_low") == pytest.approx(low, abs=close)
        assert getattr(quality, f"{name}_high") == pytest.approx(high, abs=close)


def test_the_interval_of_a_mean_shrinks_with_the_root_of_the_sample() -> None:
    def width(count: int) -> float:
        values = np.random.default_rng(0).normal(size=(count, 1))
        low, high = intervals(values, lambda sums: sums / count, num_resamples=4000, seed=0)
        return float((high - low).item())

    assert width(400) == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)
    assert width(100) / width(1600) == pytest.approx(4, rel=0.25)


def test_scores_of_a_set_come_from_its_summed_counts() -> None:
    _, hypotheses, references = corpus(30)
    for score, counts in (
        (bleu, bleu_counts(hypotheses, references, tokenizer="13a")),
        (chrf, chrf_counts(hypotheses, references)),
    ):
        together = score(np.stack([counts[:10].sum(axis=0), counts.sum(axis=0)]))
        assert together[0] == score(counts[:10].sum(axis=0, keepdims=True))[0] != together[1]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again, other = (evaluate_translations(*corpus(40), num_resamples=50, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.bleu == other.bleu
    assert first.bleu_low != other.bleu_low
    assert [part.chrf for part in first.by_length] == [part.chrf for part in other.by_length]
    assert [part.chrf_low for part in first.by_length] != [part.chrf_low for part in other.by_length]


def test_every_sentence_is_in_the_bin_of_its_source_length() -> None:
    sources = ["w " * length for length in (1, 5, 6, 10, 11, 26)] + [""]
    quality = evaluate_translations(sources, ["x"] * 7, ["x"] * 7, num_resamples=2)
    assert [(part.low, part.high, part.count) for part in quality.by_length] == [
        (0, 0, 1), (1, 5, 2), (6, 10, 2), (11, 15, 1), (26, 30, 1),
    ]  # fmt: skip
    assert quality.length_unit == "words"


def test_chinese_sources_are_measured_in_characters() -> None:
    quality = evaluate_translations(["今天天气很好", "我 喜欢"], ["a", "b"], ["a", "b"], num_resamples=2)
    assert quality.length_unit == "characters"
    assert [(part.low, part.count) for part in quality.by_length] == [(1, 1), (6, 1)]


def test_a_bin_is_scored_as_if_its_sentences_were_alone() -> None:
    sources, hypotheses, references = corpus(50)
    quality = evaluate_translations(sources, hypotheses, references, num_resamples=30)
    chosen = [index for index, source in enumerate(sources) if 6 <= len(source.split()) <= 10]
    alone = evaluate_translations(*([texts[i] for i in chosen] for texts in (sources, hypotheses, references)))
    (part,) = (part for part in quality.by_length if part.low == 6)
    assert (part.count, part.bleu, part.chrf, part.exact) == (alone.count, alone.bleu, alone.chrf, alone.exact)
    assert sum(part.count for part in quality.by_length) == 50


def test_exact_match_ignores_only_the_space_around_a_sentence() -> None:
    hypotheses = [" a cat\n", "A cat", "a  cat", "a cat"]
    assert evaluate_translations(["x"] * 4, hypotheses, ["a cat"] * 4).exact == 0.5


def test_perplexity_is_that_of_all_tokens_together() -> None:
    # two sentences, one with one token of probability 1/8, one with three of probability 1/2
    log_probs, token_counts = [math.log(1 / 8), 3 * math.log(1 / 2)], [1, 3]
    quality = evaluate_translations(
        ["a", "b " * 7], ["x", "y"], ["x", "y"], log_probs=log_probs, token_counts=token_counts
    )
    assert quality.perplexity == pytest.approx(2 ** (6 / 4))
    assert [part.perplexity for part in quality.by_length] == pytest.approx([8, 2])
    assert evaluate_translations(["a"], ["x"], ["x"]).perplexity is None


def test_what_is_saved_is_plain_json_with_the_promised_keys() -> None:
    saved = json.loads(json.dumps(evaluate_translations(*corpus(9), num_resamples=9).to_json(), allow_nan=False))
    measured = {"count", "perplexity"} | {
        name + end for name in ("bleu", "chrf", "exact") for end in ("", "_low", "_high")
    }
    alignment = {f"aer{part}" for part in ("", "_low", "_high", "_precision", "_recall", "_head", "_by_head")}
    assert set(saved) == measured | alignment | {"signature", "length_unit", "by_length"}
    # texts alone have no alignment
    assert {saved[name] for name in alignment} == {None}
    assert set(saved["by_length"][0]) == measured | {"from", "to"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hypotheses": ["x"]}, "2 sources, 1 hypotheses, 2 references"),
        ({"sources": [], "hypotheses": [], "references": []}, "no sentences"),
        ({"log_probs": [-1.0, -2.0]}, "both"),
        ({"log_probs": [-1.0], "token_counts": [1, 2]}, "1 log_probs for 2"),
        ({"log_probs": [-1.0, -math.inf], "token_counts": [1, 2]}, r"log_probs\[1\]"),
        ({"log_probs": [-1.0, -1.0], "token_counts": [1, 0]}, r"token_counts\[1\]"),
        ({"log_probs": [-1e6, -1.0], "token_counts": [1, 1]}, "natural logarithms"),
        ({"bin_size": 0}, "bin_size"),
        ({"num_resamples": 0}, "num_resamples"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(change: dict, told: str) -> None:
    given = {"sources": ["a", "b"], "hypotheses": ["x", "y"], "references": ["x", "y"]} | change
    with pytest.raises(RegardError, match=told):
        evaluate_translations(**given)
