"""The passages of a prompt that an answer may rest on, and the question that it answers."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from regard.data.words import word_spans
from regard.errors import RegardError
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Span
from regard.reading.segments import SEGMENTERS, Segmenter, paragraphs, sentences

GRAINS: dict[str, Segmenter] = {**SEGMENTERS, "words": lambda text: [start for start, _ in word_spans(text)]}
# how a prompt is split: by name, at the characters that a function gives, or into the parts that are given
Grain = str | Callable[[str], list[int]] | Sequence[Span]
QUESTION_MARKS = "?？؟"


def question_in(text: str, start: int, end: int) -> Span | None:
    """The characters of the question in a message: what asks something at its end, or at its beginning.

    It is a paragraph, or else a sentence, with one more behind it where that is the last, such as "Answer:". Where
    nothing has a question mark it is the last paragraph; None of a message of one part.
    """
    for split in (paragraphs, sentences):
        parts = _parts(text, start, end, split)
        if len(parts) < 2:
            continue
        asks = [any(mark in text[slice(*part)] for mark in QUESTION_MARKS) for part in parts]
        if len(parts) > 2 and asks[-2] and not asks[-1]:
            return parts[-2][0], parts[-1][1]
        if asks[-1] or (split is paragraphs and not asks[0]):
            return parts[-1]
        if asks[0]:
            return parts[0]
    return None


def passages_of(text: str, within: Sequence[Span], grain: Grain, question: Span | None) -> list[Span]:
    """The characters of the passages of these parts of a text, without the question.

    Raises RegardError for a grain that is not known or covers nothing.
    """
    if isinstance(grain, str):
        if grain not in GRAINS:
            raise RegardError(f"grain must be {', '.join(GRAINS)}, a function or spans, not {grain!r}")
        split = GRAINS[grain]
    else:
        split = grain
    if callable(split):
        places = [part for piece in _without(within, question) for part in _parts(text, *piece, split)]
    else:
        if any(not 0 <= start < end <= len(text) for start, end in split):
            raise RegardError(f"a passage is a pair of characters of the text, which has {len(text)}")
        if any(first[1] > second[0] for first, second in pairwise(sorted(split))):
            raise RegardError("passages overlap; split the text into parts that do not")
        places = [place for start, end in split if (place := _stripped(text, start, end))[0] < place[1]]
    if not places:
        raise RegardError("the prompt has no passage beside the question; give the page that the answer is to rest on")
    return sorted(places)


def positions(tokens: Tokens, places: Sequence[Span], count: int) -> list[Span]:
    """The positions of the first `count` tokens that stand in each place; a token in two stands in the first.

    Raises RegardError for a place without a token.
    """
    found: list[Span] = []
    position = 0
    for start, end in places:
        while position < count and tokens.tokens[position].end <= start:
            position += 1
        first = position
        while position < count and tokens.tokens[position].start < end:
            position += 1
        if first == position:
            raise RegardError(f"the passage {tokens.text[start:end]!r} has no token of its own; split less finely")
        found.append((first, position))
    return found


def _without(within: Sequence[Span], question: Span | None) -> list[Span]:
    if question is None:
        return list(within)
    parts = [(start, min(end, question[0])) for start, end in within]
    parts += [(max(start, question[1]), end) for start, end in within]
    return sorted({(start, end) for start, end in parts if start < end})


def _parts(text: str, start: int, end: int, split: Callable[[str], list[int]]) -> list[Span]:
    begins = sorted({0, *split(text[start:end])})
    places = (_stripped(text, start + first, start + last) for first, last in pairwise([*begins, end - start]))
    return [place for place in places if place[0] < place[1]]


def _stripped(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
