"""Sources ranked against the removal of every passage, beside other ways to rank them.

What is measured of each prompt is kept, so that a run can be stopped and continued. LDS, the linear datamodelling
score: Park et al. 2023, "TRAK".
"""

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import corpus_pages, pages
from benchmarks.kept import Kept, digest
from benchmarks.pages import MODEL, NEW_TOKENS, Page, load
from benchmarks.source_peers import contextcite, head_weights, relevance, rollout
from regard.data.download import cache_dir
from regard.language_model import LanguageModel
from regard.models.pretrained.texts import Texts
from regard.reading import answer_run, asked, copying, passages, probe, sources
from regard.reading.answer_run import AnswerRun
from regard.reading.probe import Probe
from regard.reading.record import Span

CHINESE_MODEL = "gemma3-270m"
# how many prompts of each style, and how many sentences they have in turn
STYLES = {**pages.STYLES, **corpus_pages.STYLES}
COUNTS = {
    "facts": 6,
    "prose": 6,
    "free answer": 6,
    "question first": 6,
    "Bible": 4,
    "novels": 4,
    "help": 4,
    "Chinese facts": 4,
    "Chinese help": 4,
    "Chinese free answer": 3,
    "long": 3,
}
SIZES = (10, 12, 15, 20)
# random halves that test, and that ContextCite and the weights of heads learn from
HALVES, LEARNED = 32, 64
# prompts from which weights of heads can be learned
FEWEST = 6
# what the estimates depend on
MODULES = (answer_run, asked, copying, passages, probe, sources)


@dataclass(frozen=True)
class Prompt:
    """A page to rank; `number` counts those of its style."""

    style: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.style.replace(' ', '-').lower()}-{self.number}"

    def page(self) -> Page:
        return STYLES[self.style](f"rank {self.style} {self.number}", SIZES[self.number % len(SIZES)], self.number)


def prompts() -> Iterator[Prompt]:
    """One of each style in turn, so that those of a part of a run are of all styles, but long ones last."""
    every = [(number, style) for style, count in COUNTS.items() for number in range(count)]
    for number, style in sorted(every, key=lambda each: (each[1] == "long", each[0])):
        yield Prompt(style, number)


def ranking(kept: Kept, *, measures: bool = True) -> list[dict[str, Any]]:
    """Of each prompt the metrics and passes of each way; without `measures` of those that have been measured."""
    found: list[dict[str, Any]] = []
    # what the ablations of others cost comes after all else
    for parts in (tuple(PARTS)[:-1], tuple(PARTS)):
        found = []
        for prompt in prompts():
            name = CHINESE_MODEL if prompt.style.startswith("Chinese") else MODEL
            # its download asks for more than a benchmark may
            if name == CHINESE_MODEL and not (cache_dir() / "models" / name / "config.json").exists():
                continue
            if (measured := _measured(prompt, name, kept, parts, measures=measures)) is not None:
                found.append({"style": prompt.style, "number": prompt.number, "model": name, **measured})
    ways = _ways(found)
    return [_reported(each, ways[number]) for number, each in enumerate(found)]


_load = functools.cache(load)


@functools.cache
def _of_transformers(name: str) -> Any:
    """The same weights in transformers' own modules."""
    model = _load(name)
    return model.module if model.library == "transformers" else load(name, library="transformers").module


def code() -> str:
    """What the estimates depend on."""
    return digest(*(Path(str(module.__file__)).read_text(encoding="utf-8") for module in MODULES))


def _measured(prompt: Prompt, name: str, kept: Kept, wanted: Sequence[str], *, measures: bool) -> dict[str, Any] | None:
    page, parts = prompt.page(), {}
    for part in wanted:
        # peers and truth need the passages alone
        depends = [code()] if part == "own" else [parts["own"]["spans"]] if "own" in parts else []
        about, file = digest(page.prompt, page.answer, name, *depends), f"{prompt.name}.{part}"
        if part == "answer" and page.answer is not None:
            continue
        if not kept.has(file, about):
            if not measures:
                return {**parts, "answer": page.answer} if part == LAST else None
            print(file, file=sys.stderr, flush=True)
        spans = [tuple(span) for span in parts["own"]["spans"]] if "own" in parts else []
        parts[part] = kept.get(file, about, functools.partial(PARTS[part], _load(name), page, spans))
        if part == "answer":
            page = replace(page, answer=parts["answer"])
            if not page.answer:
                print(prompt.name, "the model writes nothing", file=sys.stderr, flush=True)
                return None
    return {**parts, "answer": page.answer}


def _written(model: LanguageModel, page: Page, spans: Sequence[Span]) -> str:
    return model.generate(page.prompt, chat=True, max_new_tokens=NEW_TOKENS).text.strip()


def _tokens(model: LanguageModel, page: Page) -> tuple[list[int], list[int]]:
    assert page.answer is not None
    return model.encode_chat(page.prompt)[0], Texts(model.tokenizer, model.name).encode_answer(page.answer)


def _own(model: LanguageModel, page: Page, spans: Sequence[Span]) -> dict[str, Any]:
    """What `sources` says, and what its parts say: the gradient, the heads that copy."""
    found = model.sources(page.prompt, chat=True, question=page.question, answer=page.answer, grain=page.grain)
    ordered = sorted(found, key=lambda source: source.start)
    spans = [each.positions for each in ordered]
    prompt, answer = _tokens(model, page)
    run = AnswerRun(model.module, prompt, answer)
    numbers = torch.full((len(run.fed),), -1)
    question = [] if found.question is None else [found.question.positions]
    for number, (start, stop) in enumerate([*spans, *question]):
        numbers[start:stop] = number
    watch = Probe(model.module, numbers, range(len(prompt) - 1, len(run.fed)))
    with torch.inference_mode(False), watch.open():
        torch.autograd.backward(run.run().sum())
    heads = torch.cat(list(watch.rows.values()))
    return {
        "spans": spans,
        "question": None if found.question is None else found.question.positions,
        "verdict": str(found.verdict),
        "passes": found.passes,
        "estimates": [each.estimate for each in ordered],
        "effects": [each.effect for each in ordered],
        "gradient": [float(watch.effects[slice(*span)].sum()) for span in spans],
        # [head, passage]
        "heads": [[round(float(row[slice(*span)].sum()), 5) for span in spans] for row in heads],
    }


def _truth(model: LanguageModel, page: Page, spans: Sequence[Span]) -> dict[str, Any]:
    """log p of each token of the answer: of the whole prompt, without each passage, and of random halves."""
    run = AnswerRun(model.module, *_tokens(model, page))
    with torch.inference_mode():
        base = run.run().tolist()
        removed = [run.without([span]).tolist() for span in spans]
        passes = run.passes
    return {
        "tokens": len(run.prompt),
        "base": base,
        "removed": removed,
        "passes": passes,
        **_ablated(run, spans, HALVES, seed=0),
    }


def _learned(model: LanguageModel, page: Page, spans: Sequence[Span]) -> dict[str, Any]:
    """The same of the random halves that others learn from, and what the first so many of them cost."""
    run = AnswerRun(model.module, *_tokens(model, page))
    with torch.inference_mode():
        run.run()
    return _ablated(run, spans, LEARNED, seed=1)


@torch.inference_mode()
def _ablated(run: AnswerRun, spans: Sequence[Span], count: int, *, seed: int) -> dict[str, Any]:
    halves, after, passes = _halves(len(spans), count, seed=seed), [], []
    for row in halves:
        after.append(run.without([span for span, stays in zip(spans, row, strict=True) if not stays]).tolist())
        passes.append(run.passes)
    return {"kept": halves.astype(int).tolist(), "after": after, "passes_after": passes}


def _halves(passages: int, count: int, *, seed: int) -> np.ndarray:
    """Which passages each random half keeps, never all."""
    kept = np.random.default_rng(seed).random((count, passages)) < 0.5
    kept[kept.all(1), 0] = False
    return kept


def _peers(model: LanguageModel, page: Page, spans: Sequence[Span]) -> dict[str, Any]:
    prompt, answer = _tokens(model, page)
    by_token = relevance(_of_transformers(model.name), prompt, answer)
    return {
        "rollout": rollout(model, page.prompt, str(page.answer), spans).tolist(),
        "attnlrp": [-float(by_token[slice(*span)].sum()) for span in spans],
    }


PARTS = {"answer": _written, "own": _own, "truth": _truth, "peers": _peers, "learned": _learned}
LAST = "learned"
Strengths = Mapping[str, tuple[np.ndarray, float]]


def _ways(found: Sequence[Mapping[str, Any]]) -> list[dict[str, tuple[np.ndarray, float]]]:
    """Of each prompt the strength of each passage, below 0 where it made the answer likelier, and the passes."""
    every = [_ways_alone(each) for each in found]
    for name in {each["model"] for each in found}:
        numbers = [number for number, each in enumerate(found) if each["model"] == name and LAST in each]
        inputs = {number: _learned_from(found[number]) for number in numbers}
        for number in numbers:
            for way, others in {
                "at2": [other for other in numbers if other != number],
                "at2 other styles": [other for other in numbers if found[other]["style"] != found[number]["style"]],
            }.items():
                if len(others) >= FEWEST:
                    weights = head_weights([inputs[other] for other in others])
                    every[number][way] = (-weights @ inputs[number][0], 1.0)
    return every


def _learned_from(each: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    attention = np.array(each["own"]["heads"]) / len(each["truth"]["base"])
    return attention, *_halves_of(each[LAST])


def _halves_of(part: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What was kept, and the answer's log-probability then."""
    return np.array(part["kept"], dtype=float), np.array(part["after"]).sum(1)


def _ways_alone(each: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, float]]:
    own, truth, peers = each["own"], each["truth"], each["peers"]
    base = np.array(truth["base"])
    estimates, gradient = np.array(own["estimates"]), np.array(own["gradient"])
    known = [estimate if effect is None else effect for estimate, effect in zip(estimates, own["effects"], strict=True)]
    ways = {
        "sources": (np.array(known), own["passes"]),
        "estimates": (estimates, 3.0),
        "gradient": (gradient, 3.0),
        "copying": (estimates - gradient, 1.0),
        "heads": (-np.array(own["heads"]).mean(0), 1.0),
        "rollout": (np.array(peers["rollout"]), 1.0),
        "attnlrp": (np.array(peers["attnlrp"]), 3.0),
        "removal": (np.array(truth["removed"]).sum(1) - base.sum(), truth["passes"]),
    }
    if LAST in each:
        kept, after = _halves_of(each[LAST])
        for count in (32, 64):
            strengths = contextcite(kept[:count], after[:count], len(base))
            ways[f"contextcite {count}"] = (strengths, each[LAST]["passes_after"][count - 1])
    return ways


def _reported(each: Mapping[str, Any], ways: Strengths) -> dict[str, Any]:
    truth = each["truth"]
    effects = ways["removal"][0]
    kept, after = _halves_of(truth)
    return {
        **{name: each[name] for name in ("style", "number", "model", "answer")},
        "passages": len(effects),
        "tokens": truth["tokens"],
        "strongest": float(effects.min()),
        "verdict": each["own"]["verdict"],
        "ways": {
            way: {**metrics(strengths, effects, kept, after), "passes": passes}
            for way, (strengths, passes) in ways.items()
        },
    }


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
