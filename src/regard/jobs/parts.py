"""A line in parts that a model can read, or was trained to read, and their translations as one line again."""

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from regard.generation.result import Generation
from regard.reading.segments import sentences

# where a sentence that is too long is best divided, best first
CLAUSES = re.compile(r"[;:,—–](?=\s)|[，；：、､；،؛]")
SPACES = re.compile(r"\s(?=\S)")
# the share of a text on either side of its middle in which a division is looked for
REACH = 0.3


class Part(NamedTuple):
    """A part of a line, and the character at which it begins."""

    start: int
    text: str


def sentence_parts(text: str) -> list[Part]:
    """The sentences of a text, without the space around them; of a text without any, itself."""
    starts = [*sentences(text), len(text)]
    return _parts(text, starts) or [Part(0, text)]


def fitting_parts(part: Part, fits: Callable[[str], bool]) -> list[Part]:
    """The part in halves, and these again, until each fits: divided at a clause, a space, or wherever that may be."""
    start, text = part
    if fits(text) or len(text) < 2:
        return [part]
    middle = _middle(text)
    return [
        piece
        for half in _parts(text, [0, middle, len(text)])
        for piece in fitting_parts(Part(start + half.start, half.text), fits)
    ]


def joined(generations: Sequence[Generation]) -> Generation:
    """The translations of a line's parts as one: its probability is their product, its score their mean by tokens."""
    if len(generations) == 1:
        return generations[0]
    text = ""
    for generation in generations:
        text = together(text, generation.text)
    lengths = [len(generation.tokens) + 1 for generation in generations]
    total = sum(generation.score * length for generation, length in zip(generations, lengths, strict=True))
    return replace(
        generations[0],
        text=text,
        tokens=[token for generation in generations for token in generation.tokens],
        score=total / sum(lengths),
        log_probability=sum(generation.log_probability for generation in generations),
        finished=all(generation.finished for generation in generations),
    )


def together(before: str, after: str) -> str:
    """Two sentences as one text, with a space between them unless the script writes none."""
    before, after = before.rstrip(), after.strip()
    if not before or not after:
        return before or after
    return f"{before}{after}" if is_wide(before[-1]) else f"{before} {after}"


def is_wide(character: str) -> bool:
    """Whether a character, such as 。 or 字, is followed by no space; Korean, as wide, writes spaces."""
    return unicodedata.east_asian_width(character) in "WF" and not unicodedata.name(character, "").startswith("HANGUL")


def _parts(text: str, starts: Sequence[int]) -> list[Part]:
    found = []
    for start, end in itertools.pairwise(starts):
        piece = text[start:end]
        if piece.strip():
            found.append(Part(start + len(piece) - len(piece.lstrip()), piece.strip()))
    return found


def _middle(text: str) -> int:
    """The best place near the middle of a text to divide it."""
    half, reach = len(text) // 2, int(REACH * len(text))
    for pattern in (CLAUSES, SPACES):
        places = (match.end() for match in pattern.finditer(text, half - reach, half + reach + 1))
        if inside := [place for place in places if 0 < place < len(text)]:
            return min(inside, key=lambda place: abs(place - half))
    # a mark stays with the letter that it is above
    while half > 1 and unicodedata.combining(text[half]):
        half -= 1
    return half
