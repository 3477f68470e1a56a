"""What a model wrote."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """One text that a model wrote; `finished` is False where the limit cut it.

    `log_probability` is that of all its tokens, what ended it counted, and `score` what decoding's settings make of it:
    by default log-probability over length.
    """

    text: str
    tokens: list[int]
    score: float
    finished: bool
    log_probability: float = 0.0
