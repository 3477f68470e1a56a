"""Insertion and deletion curves: what is left of an answer as passages go, and as they come, in a ranking's order.

Petsiuk, Das and Saenko 2018, "RISE: Randomized input sampling for explanation of black-box models", section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from jaxtyping import Float, Int

from regard.reading.asked import Run
from regard.reading.record import Span
from regard.reading.views import view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# numbers of passages at which the answer is judged, at most
POINTS = 10


@final
@dataclass(frozen=True, eq=False)
class RemovalCurves:
    """log p of an answer when `removed` passages are gone, the strongest first, and when only `kept` of them are there.

    `deletion[i]` belongs to `removed[i]`, `insertion[i]` to `kept[i]`; both also for each random order of the passages.
    A ranking is good where deletion falls early and insertion rises early, far from the random orders.
    """

    removed: Int[np.ndarray, " removed"]
    deletion: Float[np.ndarray, " removed"]
    kept: Int[np.ndarray, " kept"]
    insertion: Float[np.ndarray, " kept"]
    random_deletion: Float[np.ndarray, "order removed"]
    random_insertion: Float[np.ndarray, "order kept"]

    def plot(self, path: str | Path | None = None) -> "Figure":
        """A matplotlib figure of both; with `path` it is written as .png, .svg or .pdf too.

        Raises RegardError for another suffix, and where matplotlib is not installed.
        """
        return view("curves")(self, path)


def removal_curves(
    run: Run,
    spans: Sequence[Span],
    *,
    chosen: slice,
    leaves_some: bool,
    orders: int,
    progress: Callable[[int], None],
) -> RemovalCurves:
    """The curves of passages that are given in a ranking's order; `chosen` are the tokens of the answer to judge.

    `leaves_some` says whether anything of the prompt is left without all passages. `orders` random orders are tried
    beside the ranking's. `progress` is called with 1 after each run.
    """
    count = len(spans)
    points = np.arange(1, count + 1)
    if count > POINTS:
        points = np.unique(np.geomspace(1, count, POINTS).round().astype(int))
    removed = np.concatenate([[0], points if leaves_some else points[points < count]])
    kept = np.concatenate([[0] if leaves_some else [], points]).astype(int)
    draw = np.random.default_rng(0)
    found: dict[frozenset[int], float] = {}

    def without(gone: np.ndarray) -> float:
        # orders share their ends
        if (key := frozenset(gone.tolist())) not in found:
            values = run.without(sorted(spans[number] for number in key)) if key else run.run().detach()
            found[key] = float(values[chosen].sum())
        progress(1)
        return found[key]

    def both(order: np.ndarray) -> tuple[list[float], list[float]]:
        deletion = [without(order[:number]) for number in removed]
        return deletion, [without(order[number:]) for number in kept]

    deletion, insertion = both(np.arange(count))
    others = [both(draw.permutation(count)) for _ in range(orders)]
    return RemovalCurves(
        removed=removed,
        deletion=np.array(deletion),
        kept=kept,
        insertion=np.array(insertion),
        random_deletion=np.array([each for each, _ in others]).reshape(orders, len(removed)),
        random_insertion=np.array([each for _, each in others]).reshape(orders, len(kept)),
    )
