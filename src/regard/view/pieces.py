"""What a text is shown in: a piece for each token, one for what a template adds and one for a picture."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from regard.reading.record import Token
from regard.view.folds import Fold
from regard.view.words import percent

# the part of what is in no part, and of a question that is known to be one
NO_PART, QUESTION = -1, -2


class Piece(NamedTuple):
    """What is shown of one token, or of several that share a letter; `part` is the part of the text it stands in.

    The first token's weight is in no share. A token that stands nowhere in the text, such as BOS, is shown by name.
    What a chat template puts before a message is one piece, `is_folded`: the message's role. So is what stands for a
    picture. Neither has a share, nor has the question once sources have told which part asks; its part is `QUESTION`.
    """

    text: str
    share: float
    tokens: int
    part: int
    is_first: bool
    is_folded: bool = False


def folded(
    text: str,
    keys: Sequence[Token],
    weights: np.ndarray,
    parts: Sequence[int],
    turn_of: Sequence[int | None],
    turns: Sequence[dict[str, Any]],
    fold_of: Sequence[Fold | None],
) -> Iterator[Piece]:
    """The pieces of a prompt, with the template's tokens before each message as one, and those of a picture."""
    roles = [turn["role"] for turn in turns] + ["assistant"]
    start = next_turn = 0
    is_opened = False
    for (turn, fold), group in groupby(zip(turn_of, fold_of, strict=True)):
        stop = start + sum(1 for _ in group)
        if fold is not None:
            share = percent(float(weights[start:stop].sum()))
            yield Piece(f" [{fold.name}: {share}] ", 0.0, stop - start, NO_PART, start == 0, is_folded=True)
        elif turn is None:
            # a picture, which is a turn of its own within a message, may be in the midst of a template
            role = next(role for role in roles[next_turn:] if role != "image")
            mark = "" if is_opened else "\n" * (start > 0) + f"{role}: "
            yield Piece(mark, 0.0, stop - start, NO_PART, start == 0, is_folded=True)
            is_opened = True
        else:
            next_turn, is_opened = turn + 1, False
            yield from pieces_of(text, keys[start:stop], weights[start:stop], parts[start:stop], has_first=start == 0)
        start = stop


def pieces_of(
    text: str, keys: Sequence[Token], weights: np.ndarray, parts: Sequence[int], *, has_first: bool = True
) -> list[Piece]:
    """The pieces of these tokens, with what stands between them in the text."""
    pieces: list[Piece] = []
    at = keys[0].start if keys else 0
    for index, (key, weight, part) in enumerate(zip(keys, weights.tolist(), parts, strict=True)):
        is_first = has_first and index == 0
        share = 0.0 if is_first else weight
        stands_nowhere = key.start == key.end
        if not stands_nowhere and key.end <= at and pieces:
            # the rest of a letter whose bytes are several tokens
            last = pieces[-1]
            pieces[-1] = last._replace(share=last.share + share, tokens=last.tokens + 1)
            continue
        if key.start > at:
            # what no token holds, such as the spaces that a tokenizer of words drops
            pieces.append(Piece(text[at : key.start], 0.0, 0, part, False))
        shown = key.text if stands_nowhere else text[max(at, key.start) : key.end]
        pieces.append(Piece(shown, share, 1, part, is_first))
        at = max(at, key.end)
    return pieces
