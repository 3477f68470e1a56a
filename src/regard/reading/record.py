"""What a reading is made of: tokens, tables and what proves them, as plain data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from regard.reading.media import Area, Medium

# of a translator: which sequence asks and which is looked at
TRANSLATION = {"encoder": ("source", "source"), "decoder": ("target", "target"), "cross": ("target", "source")}
# attention within the input comes before attention within the output, and that before between them
KINDS = ("vision", "queries", "resampler", "encoder", "decoder", "cross")
# a kind of attention and the model's number of a layer
Place = tuple[str, int]
# positions from the first to before the second
Span = tuple[int, int]


class Token(NamedTuple):
    """One token: `start` and `end` are characters of the sequence's text, `words` the indices of its words.

    A position that holds another `sort` of input, such as an "image patch", "class token", "register", "audio frame",
    "virtual token" or merely a "position", has the id −1; a patch or frame has its `area`, where that is known.
    """

    id: int
    text: str
    start: int
    end: int
    words: list[int]
    sort: str = "token"
    area: Area | None = None


@dataclass(frozen=True)
class Sequence:
    """A text with its tokens: the source, the target from BOS to EOS, or what a language model was fed and wrote."""

    text: str
    tokens: list[Token]
    words: list[str]


class Top(NamedTuple):
    """The strongest keys of every query, the strongest first: position −1 and weight 0 where there are fewer."""

    positions: Int[np.ndarray, "*layer head query k"]
    weights: Float[np.ndarray, "*layer head query k"]


class Check(NamedTuple):
    """The largest errors found over `rows` rows of a layer: of row sums, and of weights · value against the context."""

    row_sum_error: float
    context_error: float
    rows: int


@dataclass(frozen=True, eq=False)
class Record:
    """All that a reading holds, and what follows from it alone."""

    model: str
    sequences: dict[str, Sequence]
    maps: dict[Place, Float[np.ndarray, "head row key"]]
    checks: dict[Place, Check]
    refused: dict[Place, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    sides: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(TRANSLATION))
    kept: dict[str, list[int]] = field(default_factory=dict)
    tops: dict[Place, Top] = field(default_factory=dict)
    statistics: dict[Place, dict[str, np.ndarray]] = field(default_factory=dict)
    score_maps: dict[Place, Float[np.ndarray, "head row key"]] = field(default_factory=dict)
    # the pictures and sounds that the model was given, those of each sort in the order that areas number them in
    media: list[Medium] = field(default_factory=list)
    # asks the model again with parts of the text hidden; no file keeps it
    knockout: Callable[[int, list[Span]], np.ndarray] | None = None
    # finds the sources of an answer about pictures or sounds; no file keeps it either
    seek: Callable[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # a copy on disk or in another process has no model
        return {**self.__dict__, "knockout": None, "seek": None}

    @property
    def kinds(self) -> list[str]:
        """Of `vision`, `queries`, `resampler`, `encoder`, `decoder` and `cross`, those that were read."""
        return [kind for kind in KINDS if any(name == kind for name, _ in self.maps)]

    @property
    def tokens(self) -> dict[str, list[str]]:
        """The tokens of each sequence, special ones included, as text."""
        return {name: [token.text for token in sequence.tokens] for name, sequence in self.sequences.items()}
