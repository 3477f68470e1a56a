"""Attention that a module writes out: a softmax, and the product of its weights with values."""

from typing import Any

import torch
from torch import Tensor, nn

from regard.reading.call import AttentionCall
from regard.reading.meaning import DROPOUT, refused


def same_weights(weights: Tensor, other: Tensor) -> bool:
    """Whether the second holds the first, perhaps in another shape or dtype."""
    if other is weights:
        return True
    if other.numel() != weights.numel() or other.shape[-2:] != weights.shape[-2:] or other.is_nested:
        return False
    step = max(1, weights.numel() // 4096)
    with torch.no_grad():
        sample = weights.detach().reshape(-1)[::step].to(other.dtype)
        return torch.equal(sample, other.detach().reshape(-1)[::step])


def of_softmax(module: nn.Module, path: str, weights: Tensor, value: Tensor, context: Tensor) -> AttentionCall:
    """A softmax whose result a module multiplied by values itself."""
    weights, value, context = (tensor.detach() for tensor in (weights, value, context))
    hints: dict[str, Any] = {"own": True, "causal": getattr(module, "is_causal", None)}
    if weights.dim() > 4:
        return refused(module, path, value, f"its softmax has {weights.dim()} axes, for parts or streams", hints)
    if weights.dim() == 3 or value.dim() == 3:
        # of as many sequences as are being run, each with all its heads
        hints["flat"] = True
        weights = weights.reshape(-1, *weights.shape[-2:])[None]
        value, context = (tensor.reshape(-1, *tensor.shape[-2:])[None] for tensor in (value, context))
    return AttentionCall(
        module=module,
        path=path,
        query=weights,
        key=weights,
        value=value,
        context=context,
        weights=weights,
        hints=hints,
    )


def of_dropout(module: nn.Module, path: str, weights: Tensor) -> AttentionCall:
    """A softmax of which a module hides part at random."""
    return refused(module, path, weights, DROPOUT, {"causal": getattr(module, "is_causal", None)})


def einsum_as_product(equation: Any, operands: tuple[Any, ...], result: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weights, values and context of an einsum that sums over the last axis of its first operand; None of another."""
    if not isinstance(equation, str) or len(operands) != 2 or "->" not in equation or "." in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    first, second = inputs.split(",")
    *leading, query, key = first
    (rest,) = (set(second) - {*leading, key},)
    if len(rest) != 1 or set(second) != {*leading, key, *rest} or set(output) != {*leading, query, *rest}:
        return None
    (dim,) = rest
    value = operands[1].permute([second.index(letter) for letter in (*leading, key, dim)])
    context = result.permute([output.index(letter) for letter in (*leading, query, dim)])
    return operands[0], value, context
