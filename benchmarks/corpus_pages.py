"""Pages of real text, with a question that one of their sentences answers: the Bible, novels and help pages."""

import functools
import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from benchmarks.pages import Maker, Page, facts
from regard.data.corpora import get_corpus
from regard.data.corpus import Corpus
from regard.data.text import Text
from regard.reading.segments import sentences

# words of an answer at most, and of a sentence of a page, which keeps a table from being one; characters of Chinese
LONGEST_ANSWER, LONGEST_SENTENCE, LONGEST_CHINESE = 24, 60, 100
# sentences of a paragraph; characters of long pages
PARAGRAPH = 6
LONG, LONG_KINDS = (4_000, 8_000, 16_000), ("novels", "help", "Bible")
# what a sentence answers: the question, and the answer to it
Answered = tuple[str, str]

_SPEECH = re.compile(
    r"(?:^|(?<=[a-z,;] ))(?P<who>[A-Z][a-z]+) (?:said|replied|answered)(?: to (?P<whom>[A-Z][a-z]+))?, "
    r"“(?P<what>[^“”]+)”?"
)
_PERSON = re.compile(
    r"^(?P<who>(?:Mr|Mrs|Miss|Lady|Sir|Captain|Colonel)\.? [A-Z][a-z]+) (?:was|had|could|would|did) .+[.!]$"
)
_HOW = re.compile(r"^To (?P<what>[a-z][^,.:;]{8,70}), (?P<how>[a-z][^.:]+)\.$")
_CHINESE_HOW = re.compile(r"^(?:若要|如果要|要)(?P<what>[^，。：；,]{4,30})，(?P<how>请[^。：；]{4,60})。$")


def _speech(sentence: str) -> Answered | None:
    if (found := _SPEECH.search(sentence)) is None:
        return None
    words = found["what"].rstrip(",").split()
    if not 4 <= len(words) <= LONGEST_ANSWER:
        return None
    whom = f" to {found['whom']}" if found["whom"] else ""
    return f"What did {found['who']} say{whom}?", " ".join(words)


def _person(sentence: str) -> Answered | None:
    found = _PERSON.search(sentence)
    is_short = found is not None and len(sentence.split()) <= LONGEST_ANSWER
    return (f"What does the text say about {found['who']}?", sentence) if found is not None and is_short else None


def _how(sentence: str) -> Answered | None:
    found = _HOW.search(sentence)
    if found is None or not 3 <= len(found["how"].split()) <= LONGEST_ANSWER:
        return None
    return f"How do you {found['what']}?", f"{found['how'][0].upper()}{found['how'][1:]}."


def _chinese_how(sentence: str) -> Answered | None:
    found = _CHINESE_HOW.search(sentence)
    return None if found is None else (f"怎样{found['what']}？", f"{found['how']}。")


# of each kind of text its corpus, and what a sentence answers
KINDS: dict[str, tuple[str, Callable[[str], Answered | None]]] = {
    "Bible": ("bible-en", _speech),
    "novels": ("austen", _person),
    "help": ("libreoffice-en-zh", _how),
    "Chinese help": ("libreoffice-en-zh", _chinese_how),
}
SUMMARY = "Summarize the text in one sentence."
CHINESE_SUMMARY = "这段文字讲的是什么？"


@functools.cache
def texts(kind: str) -> list[tuple[str, ...]]:
    """The documents of a kind of text, each by its sentences."""
    corpus: Any = get_corpus(KINDS[kind][0])
    if isinstance(corpus, Text):
        documents = [" ".join(each.split()) for each in corpus.documents("train")]
        return [tuple(_sentences(each)) for each in documents]
    assert isinstance(corpus, Corpus)
    side = "target" if kind.startswith("Chinese") else "source"
    # help pages follow each other, in short paragraphs
    lines = [" ".join(getattr(pair, side).split()) for pair in corpus.pairs("train")]
    return [tuple(each for line in lines for each in _sentences(line) if _is_sentence(each))]


def _sentences(text: str) -> Iterator[str]:
    for start, end in pairwise([*sentences(text), len(text)]):
        yield text[start:end].strip()


def _is_sentence(text: str) -> bool:
    """Headings and names of commands are none."""
    return len(text) > 8 and text[-1] in ".!?。！？"


def _is_short(text: str) -> bool:
    return len(text.split()) <= LONGEST_SENTENCE and (text.isascii() or len(text) <= 6 * LONGEST_CHINESE)


def real(seed: str, count: int, kind: str, style: str | None = None) -> Page:
    """Sentences that follow each other, one of which answers a question that no other does; it is the answer."""
    draw = random.Random(seed)
    answered = KINDS[kind][1]
    while True:
        document = draw.choice(texts(kind))
        if len(document) < count:
            continue
        start = draw.randrange(len(document) - count + 1)
        page = document[start : start + count]
        found = [(number, each) for number, text in enumerate(page) if (each := answered(text)) is not None]
        if not found or not all(map(_is_short, page)):
            continue
        target, (question, answer) = draw.choice(found)
        if sum(each[0] == question for _, each in found) == 1:
            return Page(style or kind, page, question, answer, target)


def summarized(seed: str, count: int, kind: str, style: str) -> Page:
    """The same, with a question that no one sentence answers."""
    page = real(seed, count, kind)
    return Page(style, page.sentences, CHINESE_SUMMARY if page.is_chinese else SUMMARY)


def paragraphs(seed: str, characters: int, kind: str, style: str) -> Page:
    """Paragraphs from all over a kind of text, one of which has a sentence that answers. Facts stand among novels."""
    draw = random.Random(seed)
    at_hand = "novels" if kind == "facts" else kind
    one = facts(seed, PARAGRAPH) if kind == "facts" else real(seed, PARAGRAPH, kind)
    assert one.target is not None
    found = [" ".join(one.sentences)]
    while sum(map(len, found)) < characters:
        document = draw.choice(texts(at_hand))
        start = draw.randrange(max(1, len(document) - PARAGRAPH))
        page = document[start : start + PARAGRAPH]
        asked = [each[0] for text in page if (each := KINDS[at_hand][1](text)) is not None]
        if all(map(_is_short, page)) and one.question not in asked and not set(page) & set(one.sentences):
            found.append(" ".join(page))
    target = draw.randrange(len(found))
    found[0], found[target] = found[target], found[0]
    sentence = one.sentences[one.target]
    return Page(style, tuple(found), one.question, one.answer, target, sentence, grain="paragraphs")


STYLES: dict[str, Maker] = {
    "Bible": lambda seed, count, number: real(seed, count, "Bible"),
    "novels": lambda seed, count, number: real(seed, count, "novels"),
    "help": lambda seed, count, number: real(seed, count, "help"),
    "Chinese help": lambda seed, count, number: real(seed, count, "Chinese help"),
    "Chinese free answer": lambda seed, count, number: summarized(seed, count, "Chinese help", "Chinese free answer"),
    "long": lambda seed, count, number: paragraphs(seed, LONG[number % len(LONG)], LONG_KINDS[number % 3], "long"),
}
