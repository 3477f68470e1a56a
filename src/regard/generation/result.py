"""What a model wrote."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from regard.attention.output import AttentionMap


@dataclass(frozen=True)
class Generation:
    """One text that a model wrote; `finished` is False where the limit cut it.

    `log_probability` is that of all its tokens, what ended it counted, and `score` what decoding's settings make of it:
    by default log-probability over length. `attention` is what each token looked at that came of the model, layer by
    layer, where that was noted.
    """

    text: str
    tokens: list[int]
    score: float
    finished: bool
    log_probability: float = 0.0
    attention: list[AttentionMap] = field(default_factory=list, repr=False, compare=False)


def first_of_each_text(generations: Sequence[Generation]) -> list[Generation]:
    """Of several with one text the first."""
    found: dict[str, Generation] = {}
    for generation in generations:
        found.setdefault(generation.text, generation)
    return list(found.values())
