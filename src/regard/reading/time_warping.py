"""Dynamic time warping: the cheapest path through a table from its first cell to its last, which never goes back.

Sakoe and Chiba 1978, "Dynamic programming algorithm optimization for spoken word recognition"; ties are broken as
openai-whisper's `dtw` breaks them.
"""

import numpy as np
from jaxtyping import Float, Int

BOTH, DOWN, RIGHT = 0, 1, 2


def warp(cost: Float[np.ndarray, "row column"]) -> tuple[Int[np.ndarray, " step"], Int[np.ndarray, " step"]]:
    """Row and column of each step of the path, which goes down, right, or both at once."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    step = np.full(total.shape, RIGHT, dtype=np.int8)
    step[1:, 0] = DOWN
    # cells of one diagonal do not depend on each other
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        is_both, is_down = (both < down) & (both < right), (down < both) & (down < right)
        step[i, j] = np.where(is_both, BOTH, np.where(is_down, DOWN, RIGHT))
        total[i, j] = cost[i - 1, j - 1] + np.where(is_both, both, np.where(is_down, down, right))
    path = []
    i, j = rows, columns
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        taken = step[i, j]
        i, j = i - int(taken != RIGHT), j - int(taken != DOWN)
    found = np.array(path[::-1], dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def median_filter(values: Float[np.ndarray, "*axis column"], width: int) -> Float[np.ndarray, "*axis column"]:
    """The median of `width` neighbours, an odd number, along the last axis, which is mirrored at its ends."""
    half = width // 2
    if half == 0 or values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)
