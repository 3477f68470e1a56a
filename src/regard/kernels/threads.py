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
    # the first time is for warming up
    seconds = {count: [_timed(work, count) for _ in range(1 + REPEATS)][1:] for count in counts}
    return min(counts, key=lambda count: statistics.median(seconds[count]))


def _timed(work: Callable[[], object], count: int) -> float:
    with threads(count):
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
