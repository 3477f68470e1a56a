"""The benchmark of sources: its own arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.corpus_pages import KINDS
from benchmarks.kept import Kept, digest
from benchmarks.pages import STYLES, Page, facts, other_value
from benchmarks.source_peers import contextcite, head_weights, relevance
from benchmarks.source_ranking import metrics, spearman
from benchmarks.source_verdicts import wilson
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from regard.reading.segments import paragraphs, sentences


@pytest.mark.parametrize("style", STYLES)
def test_a_page_is_split_into_the_sentences_that_it_was_made_of(style: str) -> None:
    page = STYLES[style]("test", 30, 0)
    text = page.prompt.replace(page.question, "").strip()
    starts = sentences(text)
    assert [text[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)] == list(
        page.sentences
    )


def test_a_page_of_paragraphs_is_split_into_them() -> None:
    page = Page("long", ("One. Two.", "Three."), "Which?", grain="paragraphs")
    starts = paragraphs(page.prompt)
    assert [page.prompt[start:].split("\n")[0] for start in starts] == ["One. Two.", "Three.", "Which?"]


@pytest.mark.parametrize(
    ("kind", "sentence", "question", "answer"),
    [
        (
            "Bible",
            "Then Boaz said to Ruth, “Listen, my daughter, do not go elsewhere,",
            "What did Boaz say to Ruth?",
            "Listen, my daughter, do not go elsewhere",
        ),
        (
            "novels",
            "Mr. Holt had a gig.",
            "What does the text say about Mr. Holt?",
            "Mr. Holt had a gig.",
        ),
        ("help", "To close the window, press the Esc key.", "How do you close the window?", "Press the Esc key."),
        ("Chinese help", "要关闭窗口，请按下 Esc 键。", "怎样关闭窗口？", "请按下 Esc 键。"),
    ],
)
def test_real_sentences_answer_questions(kind: str, sentence: str, question: str, answer: str) -> None:
    assert KINDS[kind][1](sentence) == (question, answer)
    assert KINDS[kind][1]("It rained.") is None


def test_what_was_measured_is_not_measured_again_unless_what_it_depends_on_changed(tmp_path: Path) -> None:
    kept, times = Kept(tmp_path), iter(range(9))
    assert [kept.get("one", about, lambda: next(times)) for about in ("a", "a", "b")] == [0, 0, 1]
    assert kept.has("one", "b")
    assert not kept.has("one", "a")
    assert digest("文", 1) == digest("文", 1) != digest("文", 2)


def test_a_changed_page_differs_in_the_sentence_that_answers_alone() -> None:
    page = facts("test", 10)
    changed = page.changed(other_value(page))
    different = [number for number in range(10) if page.sentences[number] != changed.sentences[number]]
    assert different == [page.target]
    assert page.value not in changed.sentences[different[0]]


def test_contextcite_finds_the_passage_that_alone_counts_and_leaves_others_at_0() -> None:
    kept = (np.random.default_rng(0).random((64, 6)) < 0.5).astype(float)
    found = contextcite(kept, -20.0 + 8.0 * kept[:, 2], 4)
    assert found.argmin() == 2
    # the penalty takes a little of it
    assert -8.0 < found[2] < -7.5
    assert np.count_nonzero(found) == 1


def test_the_head_whose_attention_is_the_truth_gets_all_of_the_weight() -> None:
    draw = np.random.default_rng(0)
    prompts = []
    for _ in range(8):
        attention, kept = draw.random((5, 9)), (draw.random((40, 9)) < 0.5).astype(float)
        prompts.append((attention, kept, kept @ attention[3]))
    weights = head_weights(prompts)
    assert weights.argmax() == 3
    assert abs(np.delete(weights, 3)).max() < 0.1 * weights[3]


def test_relevance_of_a_network_without_attention_sums_to_its_logits() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=30, tie_word_embeddings=False, **sizes)).eval()
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        # silu is passed on whole however far from linear
        layer.mlp.gate_proj.weight.data *= 20
    prompt = [3, 7, 11]
    with torch.no_grad():
        plain = model(torch.tensor([prompt])).logits[0, -1, 5]
    found = relevance(model, prompt, [5])
    assert found.sum() == pytest.approx(float(plain), rel=1e-4)
    # only the last token is read
    assert found[:2] == pytest.approx(0.0)
    with torch.no_grad():
        assert model(torch.tensor([prompt])).logits[0, -1, 5] == plain


def test_strengths_that_are_the_truth_of_a_sum_have_the_best_metrics() -> None:
    effects = np.array([-3.0, 0.5, -1.0])
    kept = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float)
    assert metrics(effects, effects, kept, kept @ -effects) == pytest.approx(
        {"first": 1.0, "share": 1.0, "spearman": 1.0, "lds": 1.0}
    )
    assert metrics(np.array([0.0, 0.0, -1.0]), effects, kept, kept @ -effects)["share"] == pytest.approx(1 / 3)


def test_equal_values_share_a_rank_and_no_spread_has_no_correlation() -> None:
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([5.0, 5.0, 9.0])) == pytest.approx(1.0)
    assert spearman(np.zeros(3), np.arange(3.0)) == 0.0


def test_a_rate_of_none_or_all_still_has_an_interval() -> None:
    # Wilson's limit for none of n: z² / (n + z²)
    assert wilson(0, 40) == pytest.approx((0.0, 1.96**2 / (40 + 1.96**2)))
    low, high = wilson(40, 40)
    assert (low, high) == pytest.approx((40 / (40 + 1.96**2), 1.0))
