"""Parts of a sequence, named by their positions or by their text."""

from operator import index
from typing import Any

import numpy as np

from regard.errors import RegardError
from regard.reading.record import Sequence, Span

# of places where a text was found
MOST_OFFERED = 8


def is_whole(number: Any) -> bool:
    """Whether this is one whole number; a truth value is none."""
    try:
        index(number)
    except TypeError:
        return False
    return not isinstance(number, bool | np.bool_) and np.ndim(number) == 0


def positions_of(sequence: Sequence, row: int, span: Any) -> Span:
    """The positions of a span: those given, or those of all tokens that have a part of a text that `row` sees.

    Raises RegardError for what is no span, and for a text that is not there, or several times.
    """
    if not isinstance(span, str):
        if not isinstance(span, tuple | list) or len(span) != 2 or not all(map(is_whole, span)):
            raise RegardError(f"a span is a pair of positions, such as (3, 7), or a text, not {span!r}")
        return index(span[0]), index(span[1])
    starts, ends = (np.array([getattr(token, side) for token in sequence.tokens]) for side in ("start", "end"))
    found, start = [], sequence.text.find(span) if span else -1
    while start >= 0:
        end = start + len(span)
        inside = np.flatnonzero((starts < end) & (start < ends)).tolist()
        if inside and inside[-1] <= row:
            found.append((inside[0], inside[-1] + 1))
        start = sequence.text.find(span, start + 1)
    if not found:
        why = "the text does not have it" if span not in sequence.text else f"row {row} does not see all of it"
        raise RegardError(f"{span!r} cannot be hidden: {why}" if span else "a span of no text hides nothing")
    if len(found) > 1:
        told = ", ".join(map(str, found[:MOST_OFFERED])) + (", …" if len(found) > MOST_OFFERED else "")
        raise RegardError(f"row {row} sees {span!r} {len(found)} times; give the positions of one: {told}")
    return found[0]
