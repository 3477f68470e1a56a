"""The verdict on an answer, judged by editing its page: a value that it follows, or pages that it does not need."""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.pages import KNOWN, NEW_TOKENS, Page, facts, load, other_value
from regard.language_model import LanguageModel
from regard.reading.sources import Sources

# prompts of each kind in each of two sets, and after how many tries fewer must do
JUDGED, TRIES, BATCH = 40, 400, 16
SIZES = range(8, 16)
CHOSEN_ON, MEASURED_ON = "choosing", "measuring"


def verdicts(names: Sequence[str] = (CHOSEN_ON, MEASURED_ON)) -> list[dict[str, Any]]:
    """Of each judged answer what was confirmed, where in it the passage that it follows is, and the verdict."""
    model = load()
    found = []
    for name in names:
        for kind, pages in (("follows", _followed(model, name)), ("knows", _known(model, name))):
            for page, _ in zip(pages, range(JUDGED), strict=False):
                sources = model.sources(page.prompt, chat=True, answer=page.answer)
                found.append({"set": name, "kind": kind, **_judged(sources, page)})
                print(kind, sources.verdict, file=sys.stderr, flush=True)
    return found


def _judged(sources: Sources, page: Page) -> dict[str, Any]:
    right = None if page.target is None else page.sentences[page.target]
    tried = [source for source in sources if source.token_effects is not None]
    return {
        "answer": sources.answer,
        "target": next((number for number, each in enumerate(sources) if each.text == right), None),
        "effects": [list(each.token_effects or ()) for each in tried],
        "together": sources.together,
        "named": list(sources.verdict.on),
    }


def _followed(model: LanguageModel, name: str) -> Iterator[Page]:
    """Pages whose answer has the value of one sentence, and another value when that says so."""
    for numbers in _batches():
        pages = [facts(f"{name} follows {each}", SIZES[each % len(SIZES)]) for each in numbers]
        pages = _right(model, pages)
        others = [page.changed(other_value(page)) for page in pages]
        right = {page.prompt for page in _right(model, others)}
        yield from (page for page, other in zip(pages, others, strict=True) if other.prompt in right)


def _known(model: LanguageModel, name: str) -> Iterator[Page]:
    """Questions answered from knowledge: the answer is right under either of two pages of other facts."""
    questions = KNOWN[[CHOSEN_ON, MEASURED_ON].index(name) :: 2]
    for numbers in _batches():
        asked = [(each, *questions[each % len(questions)]) for each in numbers]
        halves = [
            [_unrelated(f"{name} knows {each} {half}", each, question, value) for each, question, value in asked]
            for half in range(2)
        ]
        right = {page.prompt for page in _right(model, halves[1])}
        chosen = [page for page, other in zip(*halves, strict=True) if other.prompt in right]
        yield from _right(model, chosen)


def _unrelated(seed: str, number: int, question: str, value: str) -> Page:
    sentences = facts(seed, SIZES[number % len(SIZES)]).sentences
    return Page("unrelated", sentences, question, value=value)


def _batches() -> Iterator[range]:
    for start in range(0, TRIES, BATCH):
        yield range(start, start + BATCH)


def _right(model: LanguageModel, pages: Sequence[Page]) -> list[Page]:
    """Those whose value the model's answer has, with that answer."""
    prompts = [page.prompt for page in pages]
    written = model.generate(prompts, chat=True, max_new_tokens=NEW_TOKENS) if prompts else []
    answers = [replace(page, answer=each.text) for page, each in zip(pages, written, strict=True)]
    return [page for page in answers if _says(page.answer or "", page.value or "")]


def _says(answer: str, value: str) -> bool:
    return re.search(rf"\b{re.escape(value)}\b", answer, re.IGNORECASE) is not None


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate, also where none or all hit. Wilson 1927."""
    z = 1.96
    middle, half = (
        hits / count + z * z / (2 * count),
        z * math.sqrt(hits * (count - hits) / count**3 + (z / count) ** 2 / 4),
    )
    return max(0.0, (middle - half) / (1 + z * z / count)), min(1.0, (middle + half) / (1 + z * z / count))
