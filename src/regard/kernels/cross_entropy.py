"""Cross-entropy over a vocabulary, some rows at a time, so that all passes over them but the first are in the cache.

Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7 (label smoothing).
"""

from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# numbers that are worked on at once: in float32 half a megabyte, half of a usual second-level cache
CHUNK = 1 << 17


def cross_entropy(
    logits: Float[Tensor, "row vocabulary"], labels: Int[Tensor, " row"], *, ignore: int, label_smoothing: float
) -> Float[Tensor, ""]:
    """Summed over the rows whose label is not `ignore`, in float32 at least.

    A share `label_smoothing` of each label is spread evenly over the vocabulary.
    """
    if logits.device.type == "cpu":
        return _CrossEntropy.apply(logits, labels, ignore, label_smoothing)  # pyright: ignore[reportReturnType]
    return functional.cross_entropy(
        logits.float(), labels, ignore_index=ignore, label_smoothing=label_smoothing, reduction="sum"
    )


@final
class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore: int, label_smoothing: float) -> Tensor:
        asked = (labels != ignore)[:, None]
        labels = labels[:, None].where(asked, 0)
        losses, totals = [], []
        for rows, label in _chunks(logits, labels):
            wide = _wide(rows)
            total = wide.logsumexp(dim=1, keepdim=True)
            likely = (1 - label_smoothing) * wide.gather(1, label)
            losses.append(total - likely - label_smoothing * wide.mean(dim=1, keepdim=True))
            totals.append(total)
        ctx.label_smoothing = label_smoothing
        ctx.save_for_backward(logits, labels, asked, torch.cat(totals))
        return torch.cat(losses)[asked].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of each row softmax(logits) less the smoothed label."""
        logits, labels, asked, totals = ctx.saved_tensors
        scale = gradients[0] * asked
        of_label, of_all = (ctx.label_smoothing - 1) * scale, ctx.label_smoothing / logits.shape[1] * scale
        found = torch.empty_like(logits)
        for into, rows, *row in _chunks(found, logits, labels, totals, scale, of_label, of_all):
            label, total, factor, less, less_everywhere = row
            wide = into if into.dtype == total.dtype else torch.empty_like(into, dtype=total.dtype)
            torch.sub(_wide(rows), total, out=wide).exp_().mul_(factor).sub_(less_everywhere)
            wide.scatter_add_(1, label, less)
            if wide is not into:
                into.copy_(wide)
        return found, None, None, None


def _wide(rows: Tensor) -> Tensor:
    return rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """So many rows of each of the tensors; the first one's rows are the longest."""
    size = max(1, CHUNK // tensors[0].shape[1])
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)
