"""Dropout, with random numbers that do not cost more than the layer they stand behind.

Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting". On a CPU
torch draws each number by itself from a Mersenne twister; here one draw of 64 bits decides on four.
"""

from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# a 16-bit number decides on one value: the share that is dropped is exact to 1/65,536
RANGE = 1 << 16


@final
class Dropout(nn.Module):
    """In training each number is put to zero with probability `share`, the others grow by 1 / (1 - share)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        if not self.training or not self.share:
            return inputs
        if inputs.device.type != "cpu" or torch.compiler.is_compiling():
            return functional.dropout(inputs, self.share)
        return _Dropout.apply(inputs, _factors(inputs, self.share))  # pyright: ignore[reportReturnType]


def _factors(inputs: Tensor, share: float) -> Tensor:
    """0 or 1 / (1 - share) for each number, drawn from a stream that torch's seed decides."""
    count = inputs.numel()
    stream = np.random.SFC64(int(torch.randint(1 << 62, ())))
    draws = stream.random_raw(-(-count // 4)).view(np.int16)[:count]
    # torch compares and converts truth values one by one, numpy compares and torch converts bytes by whole vectors
    kept = torch.from_numpy(draws >= round(share * RANGE) - RANGE // 2).view(torch.int8)
    return kept.view(inputs.shape).to(inputs.dtype).mul_(1 / (1 - share))


@final
class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        return inputs * factors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = gradients
        (factors,) = ctx.saved_tensors
        return gradient * factors, None
