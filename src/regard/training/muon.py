"""Muon, with its matrices made orthogonal in the precision that the processor multiplies fast.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks", with the step sizes of Liu et al. 2025,
"Muon is scalable for LLM training". torch's Muon rounds to bfloat16 everywhere. A processor without bfloat16 takes some
fifty times as long for such products as for float32's.
"""

import math
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

# of torch's Muon
MOMENTUM = "momentum_buffer"


@final
class Muon(torch.optim.Muon):
    """torch's Muon in all but the precision of its products; its state is the same."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step for each matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for matrix in (each for each in group["params"] if each.grad is not None):
                state, momentum = self.state[matrix], group["momentum"]
                buffer = state.setdefault(MOMENTUM, torch.zeros_like(matrix.grad))
                buffer.lerp_(matrix.grad, 1 - momentum)
                update = orthogonal(
                    matrix.grad.lerp(buffer, momentum), group["ns_coefficients"], group["ns_steps"], group["eps"]
                )
                # the root of the mean of squares is then as of AdamW's steps
                size = 0.2 * math.sqrt(max(matrix.shape))
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)


def orthogonal(
    matrix: Float[Tensor, "row column"], coefficients: tuple[float, float, float], steps: int, least: float
) -> Float[Tensor, "row column"]:
    """About the nearest matrix with orthogonal rows or columns, by a quintic Newton–Schulz iteration."""
    a, b, c = coefficients
    found = matrix.to(product_dtype(matrix))
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = found.T if is_tall else found
    found = found / found.norm().clamp(min=least)
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if is_tall else found


def product_dtype(matrix: Tensor) -> torch.dtype:
    """bfloat16 where the device multiplies it in units of its own, else the matrix's precision."""
    if matrix.device.type == "cpu":
        has_units = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:
        has_units = True
    return torch.bfloat16 if has_units and matrix.dtype == torch.float32 else matrix.dtype
