"""A reading proves itself: rows sum to 1, and weights · value is the context that the model really used."""

import torch
from jaxtyping import Float
from torch import Tensor

from regard.attention.output import AttentionMap
from regard.reading.call import AttentionCall, Visibility, contexts, exact_weights
from regard.reading.record import Check

# queries of a call that are checked beside those that are kept
SAMPLE = 8


def check(map: AttentionMap) -> Check:
    """The largest errors over all rows, summed in float64. Context errors are relative to a head's largest value."""
    weights, value = map.weights.double(), map.value.double()
    row_sums = weights.sum(dim=-1)
    scale = value.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=1e-30)
    error = ((weights @ value - map.context.double()).abs() / scale).max()
    return Check(
        row_sum_error=float((row_sums - 1).abs().max()),
        context_error=float(error),
        rows=map.weights.shape[-2],
    )


def check_rows(
    call: AttentionCall,
    visibility: Visibility,
    weights: Float[Tensor, "head query key"],
    outside: Float[Tensor, "head query"],
    *,
    item: int,
    queries: Tensor,
    keys: slice,
) -> Check:
    """The same of some rows of a call, with what of each goes to a sink. Rows that see no key are left out.

    Sums are over `keys`, the sequence's own: what goes to others is an error.
    """
    precision = weights.dtype
    context, value = call.context[item][:, queries].to(precision), call.value[item]
    # no weight is negative, and a NaN is not 0
    sums = weights.sum(-1)
    # torch's own norm takes six times as long
    scale = torch.maximum(value.amax(dim=(1, 2)), -value.amin(dim=(1, 2))).clamp(min=1e-30).to(precision)
    scale = scale.repeat_interleave(len(weights) // len(value))

    def errors(found: Tensor, wanted: Tensor) -> Float[Tensor, " head"]:
        """Each head's largest error, relative to its own largest value: a head of small values proves itself too."""
        return (found - wanted).where((sums != 0)[..., None], 0.0).abs().amax(dim=(1, 2)) / scale

    exact = contexts(weights, value)
    found = errors(exact, context)
    if found.max() > _bound(call.value.dtype) and call.weights is None:
        # what plain code of the model's own dtype errs by is rounding, and a kernel may err by twice that
        rounded, _ = exact_weights(call, visibility, item=item, queries=queries, dtype=call.value.dtype)
        found = (found - 2 * errors(contexts(rounded, value).to(precision), exact)).clamp(min=0.0)
    inside = sums if keys == slice(0, weights.shape[-1]) else weights[..., keys].sum(-1)
    return Check(
        row_sum_error=float((inside + outside - 1).where((sums != 0) | (outside > 0), 0.0).abs().max()),
        context_error=float(found.max()),
        rows=len(queries),
    )


def _bound(dtype: torch.dtype) -> float:
    # a wrong weight errs by far more than rounding: in half precision kernels sum in float32 and round once or
    # twice, in full precision the sums themselves round at every term
    return (4 if dtype.itemsize == 2 else 64) * torch.finfo(dtype).eps


def complaint(check: Check, dtype: torch.dtype) -> str | None:
    """Why these errors are too large to be rounding, or None. A NaN is too large."""
    bound = _bound(dtype)
    if check.context_error != check.context_error or check.row_sum_error != check.row_sum_error:
        return "its weights or values are not numbers (NaN); look for NaN in the model's parameters and inputs"
    largest = max(check[:2])
    if dtype == torch.float64 and bound < largest <= _bound(torch.float32):
        return (
            f"its softmax is computed in float32: off by {largest:.1e} in float64; load the model in float32 or with "
            'attn_implementation="sdpa"'
        )
    if not check.row_sum_error <= bound:
        return f"its rows do not sum to 1: off by {check.row_sum_error:.1e}"
    if not check.context_error <= bound:
        return (
            f"weights times values is not the context that the model used: off by {check.context_error:.1e}; it does "
            "not attend by softmax over visible keys alone"
        )
    return None


def worst(first: Check, second: Check) -> Check:
    """The larger errors of two, a NaN being the largest, over the rows of both."""
    rows, context = (
        one if one != one or one > other else other for one, other in zip(first[:2], second[:2], strict=True)
    )
    return Check(rows, context, first.rows + second.rows)
