"""The verdict on an answer, judged by editing its page: a value that it follows, or pages that it does not need."""

import contextlib
import functools
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.kept import Kept, digest
from benchmarks.pages import KNOWN, NEW_TOKENS, Page, facts, load, other_value
from benchmarks.source_ranking import code
from regard.language_model import LanguageModel
from regard.reading.segments import sentences
from regard.reading.source_record import Sources

# prompts of each kind in each of two sets, and after how many tries fewer must do
CHOSEN_ON, MEASURED_ON = "choosing", "measuring"
JUDGED, TRIES, BATCH = {CHOSEN_ON: 40, MEASURED_ON: 100}, 1000, 16
SIZES = range(8, 16)
# what of the change of each token of the answer is compared with a threshold
CRITERIA: dict[str, Callable[[Sequence[float]], float]] = {
    "the whole answer": sum,
    "the token that loses most": min,
    "the mean of tokens": lambda tokens: sum(tokens) / len(tokens),
}
# pages with the model's own answers
Answered = Callable[[Sequence[Page]], list[Page]]
THRESHOLDS = np.geomspace(0.02, 20, 300)


class _NotMeasuredError(Exception):
    """What comes next has not been measured."""


def verdicts(kept: Kept, *, measures: bool = True) -> list[dict[str, Any]]:
    """Of each judged answer what was confirmed, where in it the passage that it follows is, and the verdict.

    Without `measures` of those that have been measured.
    """
    model = load()

    def answered(pages: Sequence[Page]) -> list[Page]:
        prompts = [page.prompt for page in pages]
        name = f"answers-{digest(prompts)}"
        if not measures and not kept.has(name, ""):
            raise _NotMeasuredError
        written = kept.get(name, "", lambda: _written(model, prompts))
        return [replace(page, answer=text) for page, text in zip(pages, written, strict=True)]

    found = []
    # what is reported comes first
    for name in (MEASURED_ON, CHOSEN_ON):
        for kind, pages in (("follows", _followed(answered, name)), ("knows", _known(answered, name))):
            with contextlib.suppress(_NotMeasuredError):
                for number, page in enumerate(itertools.islice(pages, JUDGED[name])):
                    file, about = f"{name}-{kind}-{number}", digest(page.prompt, page.answer, code())
                    if not measures and not kept.has(file, about):
                        raise _NotMeasuredError
                    found.append(kept.get(file, about, functools.partial(_judged, model, page)))
                    found[-1] |= {"set": name, "kind": kind}
                    print(name, kind, number, found[-1]["named"], file=sys.stderr, flush=True)
    return found


def _written(model: LanguageModel, prompts: Sequence[str]) -> list[str]:
    """The model's own answers."""
    found = model.generate(prompts, chat=True, max_new_tokens=NEW_TOKENS, batch_size=BATCH) if prompts else []
    return [each.text for each in found]


def _judged(model: LanguageModel, page: Page) -> dict[str, Any]:
    return judged(model.sources(page.prompt, chat=True, answer=page.answer), page)


def judged(sources: Sources, page: Page) -> dict[str, Any]:
    right = None if page.target is None else page.sentences[page.target]
    tried = [source for source in sources if source.token_effects is not None]
    return {
        "question": page.question,
        "answer": sources.answer,
        "target": next((number for number, each in enumerate(sources) if each.text == right), None),
        "effects": [list(each.token_effects or ()) for each in tried],
        "together": sources.together,
        "named": list(sources.verdict.on),
        "passes": sources.passes,
    }


def _followed(answered: Answered, name: str) -> Iterator[Page]:
    """Pages whose answer has the value of one sentence, and another value when that says so."""
    for numbers in _batches():
        pages = [facts(f"{name} follows {each}", SIZES[each % len(SIZES)]) for each in numbers]
        pages = [page for page in answered(pages) if _is_right(page)]
        others = answered([page.changed(other_value(page)) for page in pages])
        yield from (page for page, other in zip(pages, others, strict=True) if _is_right(other))


def _known(answered: Answered, name: str) -> Iterator[Page]:
    """Questions answered from knowledge: the answer's first sentence is right, and the same under another page.

    What follows it is not judged, for it may quote the page.
    """
    questions = KNOWN[[CHOSEN_ON, MEASURED_ON].index(name) :: 2]
    for numbers in _batches():
        asked = [(each, *questions[each % len(questions)]) for each in numbers]
        halves = [
            answered([_unrelated(f"{name} knows {each} {half}", each, *about) for each, *about in asked])
            for half in range(2)
        ]
        for pages in zip(*halves, strict=True):
            page, other = (replace(each, answer=_first_sentence(each.answer or "")) for each in pages)
            if _is_right(page) and page.answer == other.answer:
                yield page


def _first_sentence(text: str) -> str:
    return text[: [*sentences(text), len(text)][1]].strip()


def _unrelated(seed: str, number: int, question: str, value: str) -> Page:
    sentences = facts(seed, SIZES[number % len(SIZES)]).sentences
    return Page("unrelated", sentences, question, value=value)


def _batches() -> Iterator[range]:
    for start in range(0, TRIES, BATCH):
        yield range(start, start + BATCH)


def _is_right(page: Page) -> bool:
    """Whether the answer has the value."""
    return re.search(rf"\b{re.escape(page.value or '')}\b", page.answer or "", re.IGNORECASE) is not None


def outcomes(answers: Sequence[Mapping[str, Any]], criterion: str, threshold: float) -> tuple[list[bool], list[bool]]:
    """Whether the sentence that each answer follows is named, and whether none is for what is known.

    A sentence is named when its removal changes the answer by the threshold; all removed at once are left out.
    """
    change, right, none = CRITERIA[criterion], [], []
    for each in answers:
        named = [number for number, tokens in enumerate(each["effects"]) if change(tokens) <= -threshold]
        if each["kind"] == "follows":
            right.append(each["target"] in named)
        else:
            none.append(not named)
    return right, none


def best_threshold(answers: Sequence[Mapping[str, Any]], criterion: str) -> float:
    """The middle of the thresholds with the fewest errors, both kinds weighing alike."""
    scores = [
        sum(sum(hits) / max(1, len(hits)) for hits in outcomes(answers, criterion, threshold))
        for threshold in THRESHOLDS
    ]
    best = THRESHOLDS[np.isclose(scores, max(scores))]
    return float(np.sqrt(best[0] * best[-1]))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate, also where none or all hit. Wilson 1927."""
    z = 1.96
    middle, half = (
        hits / count + z * z / (2 * count),
        z * math.sqrt(hits * (count - hits) / count**3 + (z / count) ** 2 / 4),
    )
    return max(0.0, (middle - half) / (1 + z * z / count)), min(1.0, (middle + half) / (1 + z * z / count))
