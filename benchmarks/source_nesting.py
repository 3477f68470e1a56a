"""A sentence found in a prompt of thousands of tokens in two steps: its paragraph, then the sentence within it."""

import sys
from itertools import pairwise
from typing import Any

from benchmarks.corpus_pages import paragraphs
from benchmarks.kept import Kept, digest
from benchmarks.pages import Page, load
from benchmarks.source_ranking import code
from regard.language_model import LanguageModel
from regard.reading.record import Span
from regard.reading.segments import sentences
from regard.reading.source_record import Source

NESTED, KINDS = 20, ("facts", "Bible", "novels", "help")
# of a prompt of 3,000 tokens
CHARACTERS = 12_500


def nesting(kept: Kept, *, measures: bool = True) -> list[dict[str, Any]]:
    """Of each prompt the rank of the true paragraph and of the true sentence within the first, what each is worth."""
    model = load()
    found = []
    for number in range(NESTED):
        kind = KINDS[number % len(KINDS)]
        page = paragraphs(f"nested {kind} {number}", CHARACTERS, kind, kind)
        name, about = f"nested-{number}", digest(page.prompt, page.answer, code())
        if not measures and not kept.has(name, about):
            continue
        found.append(kept.get(name, about, lambda page=page: _nested(model, page)))
        print(name, found[-1], file=sys.stderr, flush=True)
    return found


def _nested(model: LanguageModel, page: Page) -> dict[str, Any]:
    assert page.target is not None
    assert page.value is not None
    asked: dict[str, Any] = {"chat": True, "question": page.question, "answer": page.answer}
    coarse = model.sources(page.prompt, grain="paragraphs", **asked)
    first = coarse[0]
    fine = model.sources(page.prompt, grain=_sentences(first), **asked)
    return {
        "style": page.style,
        "tokens": len(model.encode_chat(page.prompt)[0]),
        "paragraphs": len(coarse),
        "paragraph": _rank(coarse, page.sentences[page.target]),
        "strongest": [each.strength for each in coarse[:2]],
        "sentences": len(fine),
        "sentence": _rank(fine, page.value),
        "verdicts": [str(coarse.verdict), str(fine.verdict)],
        "passes": [coarse.passes, fine.passes],
    }


def _sentences(passage: Source) -> list[Span]:
    starts = sentences(passage.text)
    return [(passage.start + start, passage.start + end) for start, end in pairwise([*starts, len(passage.text)])]


def _rank(found: Any, text: str) -> int | None:
    """From 1; None where it is not among them."""
    return next((number for number, each in enumerate(found, 1) if each.text == text), None)
