"""What one page may ask of this machine."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes are in bytes, times in seconds."""

    body: int = 1 << 20
    file: int = 512 << 20
    # how long the browser may take to send them
    body_seconds: float = 20
    file_seconds: float = 300
    characters: int = 200_000
    prompt_tokens: int = 32_768
    new_tokens: int = 2_048
    num_beams: int = 16
    # what is under way, running or waiting for its model
    jobs: int = 16
    answer_seconds: float = 600
    # the weights of one reading, of all that the server holds, and of one that goes into the history
    reading: int = 512 << 20
    readings: int = 2 << 30
    remembered: int = 64 << 20
    # what the history keeps
    history: int = 1 << 30
    history_entries: int = 50


LIMITS = Limits()
