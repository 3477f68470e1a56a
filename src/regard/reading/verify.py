"""A reading proves itself: rows sum to 1, and weights · value is the context that the model really used."""

import torch

from regard.attention.output import AttentionMap
from regard.reading.reading import Check


def check(map: AttentionMap) -> Check:
    """The largest errors over all rows, summed in float64. Context errors are relative to the largest value."""
    weights, value = map.weights.double(), map.value.double()
    row_sums = weights.sum(dim=-1)
    error = (weights @ value - map.context.double()).abs().max() / value.abs().max().clamp(min=1e-30)
    return Check(
        row_sum_error=float((row_sums - 1).abs().max()),
        context_error=float(error),
        rows=map.weights.shape[-2],
    )


def complaint(check: Check, dtype: torch.dtype) -> str | None:
    """Why these errors are too large to be rounding, or None. A NaN is too large."""
    # a wrong weight errs by far more than rounding: in half precision kernels sum in float32 and round once or
    # twice, in full precision the sums themselves round at every term
    eps = torch.finfo(dtype).eps
    bound = 4 * eps if dtype.itemsize == 2 else 64 * eps
    if not check.row_sum_error <= bound:
        return f"its rows do not sum to 1: off by {check.row_sum_error:.1e}"
    if not check.context_error <= bound:
        return f"weights times values is not the context that the model used: off by {check.context_error:.1e}"
    return None
