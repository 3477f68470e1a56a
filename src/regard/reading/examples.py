"""Where in texts a head did most of what it does: a row, its strongest keys, and the words around them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from regard.reading.record import Span

# examples that are kept of each head and measure, and keys of each
EXAMPLES, KEYS = 3, 3
# tokens shown before a row, after it, and on both sides of a key
BEFORE, AFTER, BESIDE = 12, 2, 2
GAP = " … "


class Example(NamedTuple):
    """One row of a head, out of the prompt with this `id`, the `place`-th of all.

    `value` is the measure, `text` an excerpt in which `row` are the characters of the token that looks and `keys` those
    of its strongest keys with their weights, the strongest first.
    """

    value: float
    place: int
    id: str
    row: tuple[int, int]
    keys: list[tuple[int, int, float]]
    text: str


def example(
    text: str,
    spans: Sequence[Span],
    row: int,
    keys: Iterable[tuple[int, float]],
    *,
    value: float,
    place: int,
    id: str,
) -> Example:
    """The example of a row and its strongest keys, positions with weights; `spans` are the characters of each token."""
    found = [(key, weight) for key, weight in keys if key >= 0]
    around = [range(row - BEFORE, row + AFTER + 1), *(range(key - BESIDE, key + BESIDE + 1) for key, _ in found)]
    shown = sorted({position for each in around for position in each if 0 <= position < len(spans)})
    excerpt, moved = "", {}
    for number, position in enumerate(shown):
        start, end = spans[position]
        if number and position != shown[number - 1] + 1:
            excerpt += GAP
        elif number:
            # tokens that hold parts of one character share it
            start = max(start, spans[shown[number - 1]][1])
        moved[position] = len(excerpt) - (start - spans[position][0]), len(excerpt) + end - start
        excerpt += text[start:end]
    return Example(
        value=value,
        place=place,
        id=id,
        row=moved[row],
        keys=[(*moved[key], round(weight, 4)) for key, weight in found],
        text=excerpt,
    )


def merged(one: Sequence[Example], other: Sequence[Example]) -> list[Example]:
    """The examples with most of a measure, of equal ones those of earlier prompts."""
    return sorted([*one, *other], key=lambda each: (-each.value, each.place))[:EXAMPLES]


def from_json(found: Any) -> Example:
    """An example as JSON has it. Raises ValueError, TypeError or LookupError for what is none."""
    value, place, id, row, keys, text = found
    (start, end), spans = row, [(int(first), int(last), float(weight)) for first, last, weight in keys]
    spots = [(start, end), *((first, last) for first, last, _ in spans)]
    if not isinstance(text, str) or not isinstance(id, str):
        raise ValueError("an example without a text")
    if not all(0 <= first <= last <= len(text) for first, last in spots):
        raise ValueError("an example that points beyond its text")
    return Example(float(value), int(place), id, (int(start), int(end)), spans, text)
