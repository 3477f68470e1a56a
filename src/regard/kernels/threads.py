"""How many threads a piece of work is fastest on."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

REPEATS = 3


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on this many threads, and leave the setting as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
