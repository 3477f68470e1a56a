"""The learning rate over time, as a share of its peak."""

import math
from collections.abc import Callable


def inverse_sqrt(step: int, *, warmup: int, total: int | None, decay: float) -> float:
    """Falls with 1/sqrt(step) and needs no end (Vaswani et al. 2017, section 5.3)."""
    return math.sqrt(warmup / step) if warmup else 1 / math.sqrt(step)


def cosine(step: int, *, warmup: int, total: int | None, decay: float) -> float:
    """Half a cosine from the peak to 0 at the end (Loshchilov and Hutter 2017)."""
    assert total is not None
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def wsd(step: int, *, warmup: int, total: int | None, decay: float) -> float:
    """Warm-up, stable, decay: level, then straight to 0 over the last `decay` share of the steps (Hu et al. 2024)."""
    if total is None:
        # a budget in minutes learns its end when the decay begins
        return 1.0
    start = decay_start(total, decay)
    return 1.0 if step <= start else max(0.0, (total - step + 1) / (total - start + 1))


def constant(step: int, *, warmup: int, total: int | None, decay: float) -> float:
    """Stays at the peak."""
    return 1.0


# each gives the share of the peak at a step after the warm-up, counted from 1
SCHEDULES: dict[str, Callable[..., float]] = {
    "inverse_sqrt": inverse_sqrt,
    "cosine": cosine,
    "wsd": wsd,
    "constant": constant,
}


def share(schedule: str, step: int, *, warmup: int, total: int | None, decay: float) -> float:
    """The learning rate of `step` (from 1) over its peak: a straight rise for `warmup` steps, then the schedule."""
    if step <= warmup:
        return step / warmup
    return SCHEDULES[schedule](step, warmup=warmup, total=total, decay=decay)


def decay_start(total: int, decay: float) -> int:
    return round(total * (1 - decay))


def total_steps(schedule: str, step: int, *, elapsed: float, limit: float, warmup: int, decay: float) -> int | None:
    """How many steps a budget of `limit` seconds is worth, told once, when the schedule must know, else None.

    Known from then on, the learning rate is a function of the step alone: repeating the run with that
    many steps repeats every rate.
    """
    if step < warmup:
        return None
    if schedule == "cosine":
        return max(step + 1, round(step * limit / max(elapsed, 1e-9)))
    if schedule == "wsd" and elapsed >= limit * (1 - decay):
        # the decay starts here: a total that is off by half a step moves decay_start by less than half
        return round(step / (1 - decay))
    return None
