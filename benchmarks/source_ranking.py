"""Sources ranked against the removal of every sentence, beside cheaper ways and ContextCite.

ContextCite is rebuilt: Cohen-Wang et al. 2024, "ContextCite: attributing model generation to context", with 32
ablations and its LASSO. LDS, the linear datamodelling score: Park et al. 2023, "TRAK".
"""

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.pages import NEW_TOKENS, STYLES, Page, load
from regard.data.download import cache_dir
from regard.language_model import LanguageModel
from regard.models.pretrained.texts import Texts
from regard.reading.answer_run import AnswerRun
from regard.reading.probe import Probe
from regard.reading.record import Span
from regard.reading.source_record import Source

CHINESE_MODEL = "gemma3-270m"
PER_STYLE, SIZES = 8, (12, 18, 24, 30)
# sets of random halves: one tests, ContextCite learns from the other
HALVES = 32
# ContextCite's own penalty, of log-odds per token of the answer
PENALTY, SWEEPS = 0.01, 200


def ranking(styles: Sequence[str] = tuple(STYLES)) -> list[dict[str, Any]]:
    """Of each prompt the metrics and passes of each way."""
    models = {style: _model_of(style) for style in styles}
    found = []
    for number, style in itertools.product(range(PER_STYLE), styles):
        model = models[style]
        if model is not None:
            page = STYLES[style](f"ranking {style} {number}", SIZES[number % len(SIZES)], number)
            found.append(_ranked(model, page))
            print(style, found[-1]["ways"]["sources"], file=sys.stderr, flush=True)
    return found


def _model_of(style: str) -> LanguageModel | None:
    """None for Chinese where the model for it has not been fetched: its download asks for more than a benchmark may."""
    if style != "Chinese":
        return load()
    return load(CHINESE_MODEL) if (cache_dir() / "models" / CHINESE_MODEL / "config.json").exists() else None


def _ranked(model: LanguageModel, page: Page) -> dict[str, Any]:
    sources = model.sources(
        page.prompt, chat=True, question=page.question, answer=page.answer, max_new_tokens=NEW_TOKENS
    )
    passages = sorted(sources, key=lambda source: source.start)
    prompt, answer = _tokens(model, page)
    spans = [passage.positions for passage in passages]
    gradient, heads = _one_pass(model, AnswerRun(model.module, prompt, answer), spans, sources.question)
    truth, test, learn = (AnswerRun(model.module, prompt, answer) for _ in range(3))
    with torch.inference_mode():
        base = float(truth.run().sum())
        effects = np.array([float(truth.without([span]).sum()) - base for span in spans])
        kept, after = _halves(test, spans, seed=0)
        learned = contextcite(*_halves(learn, spans, seed=1), len(answer))
    strengths = {
        "sources": (np.array([each.strength for each in passages]), sources.passes),
        "gradient": (gradient, 3.0),
        "copying": (np.array([each.estimate for each in passages]) - gradient, 1.0),
        "heads": (heads, 1.0),
        "contextcite": (learned, learn.passes),
        "removal": (effects, truth.passes),
    }
    ways = {
        way: {**metrics(strength, effects, kept, after), "passes": passes}
        for way, (strength, passes) in strengths.items()
    }
    about = {"style": page.style, "sentences": len(spans), "tokens": len(prompt), "answer": sources.answer}
    return {**about, "strongest": float(effects.min()), "verdict": str(sources.verdict), "ways": ways}


def _tokens(model: LanguageModel, page: Page) -> tuple[list[int], list[int]]:
    """The prompt's and the answer's, without what ends it."""
    prompt, _, _ = model.encode_chat(page.prompt)
    if page.answer is not None:
        return prompt, Texts(model.tokenizer, model.name).encode_answer(page.answer)
    written = model.generate_ids(prompt, NEW_TOKENS)
    return prompt, written[:-1] if written[-1] in model.ends else written


def _one_pass(
    model: LanguageModel, run: AnswerRun, spans: Sequence[Span], question: Source | None
) -> tuple[np.ndarray, np.ndarray]:
    """What one run and its gradient say of each passage: the gradient's estimate, and the mean weight of all heads."""
    passages = torch.full((len(run.fed),), -1)
    for number, (start, stop) in enumerate(spans if question is None else [*spans, question.positions]):
        passages[start:stop] = number
    probe = Probe(model.module, passages, range(len(run.prompt) - 1, len(run.fed)))
    with torch.inference_mode(False), probe.open():
        torch.autograd.backward(run.run().sum())
    weights = torch.stack(list(probe.rows.values())).mean((0, 1))
    gradient = [float(probe.effects[slice(*span)].sum()) for span in spans]
    return np.array(gradient), np.array([-float(weights[slice(*span)].sum()) for span in spans])


def _halves(run: AnswerRun, spans: Sequence[Span], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random halves: which passages are kept in each, and the answer's log-probability then."""
    draw = np.random.default_rng(seed)
    kept = draw.random((HALVES, len(spans))) < 0.5
    # a run needs a change
    kept[kept.all(1), 0] = False
    run.run()
    after = [
        float(run.without([span for span, stays in zip(spans, row, strict=True) if not stays]).sum()) for row in kept
    ]
    return kept.astype(float), np.array(after)


def contextcite(kept: np.ndarray, log_probabilities: np.ndarray, tokens: int) -> np.ndarray:
    """The change by each passage, of the LASSO of the answer's log-odds on which are kept, by coordinate descent."""
    odds = (log_probabilities - np.log1p(-np.exp(np.minimum(log_probabilities, -1e-9)))) / tokens
    scale = kept.std(0)
    scale[scale == 0] = 1.0
    inputs, rest = (kept - kept.mean(0)) / scale, odds - odds.mean()
    weights = np.zeros(kept.shape[1])
    for _ in range(SWEEPS):
        for number, column in enumerate(inputs.T):
            rest += column * weights[number]
            along = column @ rest / len(rest)
            weights[number] = math.copysign(max(0.0, abs(along) - PENALTY), along) / max(column @ column / len(rest), 1)
            rest -= column * weights[number]
    return -weights / scale * tokens


def metrics(strengths: np.ndarray, effects: np.ndarray, kept: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Of strengths, below 0 where a passage made the answer likelier, against the true effects and random halves.

    `first`: whether the first is truly the strongest; `share`: of what the strongest loses, the first's part;
    `spearman`: with the effects; `lds`: of the strengths of what is kept with the log-probability after it.
    """
    first, strongest = int(strengths.argmin()), float(effects.min())
    return {
        "first": float(effects[first] == strongest),
        "share": min(1.0, max(0.0, effects[first] / strongest)) if strongest < 0 else 1.0,
        "spearman": spearman(strengths, effects),
        "lds": spearman(kept @ -strengths, after),
    }


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """The correlation of ranks, those of equals averaged; 0 where all are equal."""
    ranks = [(each[:, None] > each).sum(1) + (each[:, None] == each).sum(1) / 2 for each in (first, second)]
    return 0.0 if min(np.ptp(each) for each in ranks) == 0 else float(np.corrcoef(*ranks)[0, 1])
