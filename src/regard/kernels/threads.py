"""How many threads a piece of work is fastest on."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from regard.errors import RegardError

REPEATS = 3
# threads for each processor beyond which they only wait for each other
MOST_PER_PROCESSOR = 8


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on this many threads, and leave the setting as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def most_threads() -> int:
    """How many threads this machine may be asked for."""
    return max(64, MOST_PER_PROCESSOR * (os.cpu_count() or 1))


def check_threads(count: int) -> None:
    """Raises RegardError for more threads than this machine may be asked for."""
    if count > most_threads():
        raise RegardError(
            f"threads must be at most {most_threads()} on this machine of {os.cpu_count()} processors, not {count:,}"
        )


def fastest_threads(work: Callable[[], object], most: int) -> int:
    """On which of 1, 2, 4 … and `most` threads `work` is done first, by the median of a few times."""
    counts = sorted({most, *(1 << power for power in range(most.bit_length()))})
    if len(counts) == 1:
        return most
    seconds = {count: _median(work, count) for count in counts}
    return min(counts, key=seconds.__getitem__)


def _median(work: Callable[[], object], count: int) -> float:
    with threads(count):
        # threads that have just come are slow
        work()
        return statistics.median(_timed(work) for _ in range(REPEATS))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
