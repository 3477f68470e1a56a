"""Words as they can be shown: nothing in them moves the cursor, changes colours or turns the line around."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from rich.cells import cell_len

from regard.errors import RegardError

# format characters that spell: joiners of Persian, Indic scripts and emoji
JOINERS = "\u200c\u200d"
UNSHOWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(word: str) -> str:
    """The word with control, direction and unassigned characters written as escapes, such as `\\n`."""
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter not in JOINERS and unicodedata.category(letter) in UNSHOWN
        else letter
        for letter in word
    )


def graphemes(word: str) -> list[str]:
    """The word as a reader counts its letters: marks and joined parts stay with the letter they change."""
    parts: list[str] = []
    for letter in word:
        is_joined = bool(parts) and parts[-1].endswith("\u200d")
        if parts and (is_joined or cell_len(letter) == 0):
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def shorten(word: str, cells: int, *, ellipsis: str = "…") -> str:
    """The word cut to at most `cells` terminal columns, with an ellipsis where something is gone."""
    if cell_len(word) <= cells:
        return word
    kept = ""
    for part in graphemes(word):
        if cell_len(kept + part) > cells - cell_len(ellipsis):
            break
        kept += part
    return kept + ellipsis


def check_alignment(
    weights: Float[np.ndarray, "target source"], sources: Sequence[str], targets: Sequence[str]
) -> Float[np.ndarray, "target source"]:
    """The weights as float64. Raises RegardError if they are no weights of these targets on these sources."""
    weights = np.asarray(weights, dtype=float)
    if not sources or not targets:
        raise RegardError("an alignment needs at least one source and one target word")
    if weights.shape != (len(targets), len(sources)):
        raise RegardError(
            f"weights have shape {weights.shape}, but there are {len(targets)} targets and {len(sources)} sources; "
            "give one row for each target and one column for each source"
        )
    # half precision and sums over heads may overshoot 1 a little
    wrong = ~((weights >= 0) & (weights <= 1.01))
    if wrong.any():
        target, source = (int(index) for index in np.argwhere(wrong)[0])
        raise RegardError(f"weights[{target}, {source}] is {weights[target, source]}; a weight is between 0 and 1")
    return weights


def percent(share: float) -> str:
    """Of shares below 1 % two digits that count."""
    value = 100 * share
    return f"{value:.1f} %" if value >= 0.995 or value == 0 else f"{value:.2f} %" if value >= 0.01 else "<0.01 %"
