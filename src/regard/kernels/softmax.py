"""The softmax of many rows of scores with the highest of each: what it takes to read all of a layer.

On a CPU one pass is enough, by loops that numba compiles where it is installed (`regard[fast]`). Elsewhere it is a few
calls of torch.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# scores below this weigh nothing, and so does a row that has no other
FLOOR = -5e29
# scores from which on it is worth the seconds that numba compiles for, once on a machine
LONG = 1 << 20


class SoftmaxRows:
    """The softmax of all rows of scores [head, query, key], which come in parts, and the k highest scores of each.

    Weights are numerators / `totals`, and numerators are exp(scores - `shifts`). `products` sum numerators ·
    (scores - `shifts`). `values` are the k highest scores, the highest first, and `indices` the numbers of their keys:
    -inf and −1 where a query sees fewer. A query sees the keys from the first to before the second of its numbers in
    `seen`; where it sees none its total is 1.
    """

    def __init__(self, num_heads: int, k: int, *, seen: Int[Tensor, "query 2"], dtype: torch.dtype) -> None:
        shape, how = (num_heads, len(seen)), {"dtype": dtype, "device": seen.device}
        self.seen = seen
        self.shifts: Float[Tensor, "head query"] = torch.zeros(shape, **how)
        self.totals: Float[Tensor, "head query"] = torch.ones(shape, **how)
        self.products: Float[Tensor, "head query"] = torch.zeros(shape, **how)
        self.values: Float[Tensor, "head query k"] = torch.full((*shape, k), -torch.inf, **how)
        self.indices: Int[Tensor, "head query k"] = torch.full((*shape, k), -1, device=seen.device)
        self._loops: Callable[..., Any] | None = None
        on_cpu = seen.device.type == "cpu" and dtype == torch.float32
        # asked of a CPU alone, for another device would be waited for
        is_long = on_cpu and num_heads * int(seen.diff(dim=1).clamp(min=0).sum()) >= LONG
        if is_long and (compiled := _compiled()) is not None:
            own = (self.seen, self.shifts, self.totals, self.products, self.values, self.indices)
            self._loops = functools.partial(compiled, _threads(), tuple(each.numpy() for each in own))

    def numerators_(
        self, scores: Float[Tensor, "part_head part_query key"], *, heads: slice, queries: slice, first_key: int
    ) -> Float[Tensor, "part_head part_query key"]:
        """Of these heads and queries, over keys that are numbered from `first_key`; the scores are overwritten."""
        if self._loops is not None:
            scores = scores.contiguous()
            self._loops(scores.numpy(), heads.start, queries.start, first_key, FLOOR)
            return scores
        keys = torch.arange(first_key, first_key + scores.shape[-1], device=scores.device)
        seen = self.seen[queries]
        scores.masked_fill_((keys < seen[:, :1]) | (keys >= seen[:, 1:]), -torch.inf)
        k = min(self.values.shape[-1], len(keys))
        values, indices = scores.topk(k)
        shifts = (values[..., 0] if k else scores.amax(-1)).clamp(min=FLOOR)
        exponents = scores.sub_(shifts[..., None])
        numerators = exponents.exp()
        totals = numerators.sum(-1)
        part = heads, queries
        self.values[*part, :k] = values
        self.indices[*part, :k] = (indices + first_key).where(values > -torch.inf, -1)
        self.shifts[part] = shifts
        self.totals[part] = totals.masked_fill(totals == 0, 1.0)
        self.products[part] = exponents.mul_(numerators).where(numerators != 0, 0.0).sum(-1)
        return numerators


@functools.cache
def _compiled() -> Callable[..., Any] | None:
    """The compiled loops, or None where there are none: numba is missing, or of no use with this numpy or folder."""
    try:
        from regard.kernels.softmax_compiled import softmax_rows
    except (ImportError, RuntimeError):
        return None
    return softmax_rows


@functools.cache
def _process_of_threads() -> int | None:
    """The process whose threads numba shares work out to. None where two threads of Python must not ask at once."""
    from regard.kernels.softmax_compiled import threading_layer

    try:
        return os.getpid() if threading_layer() in ("omp", "tbb") else None
    except ValueError:
        # numba finds nothing here that shares work out
        return None


def _threads() -> int:
    # OpenMP ends a process that was forked from one with threads and asks for threads again
    count = torch.get_num_threads()
    return count if count > 1 and _process_of_threads() == os.getpid() else 1
