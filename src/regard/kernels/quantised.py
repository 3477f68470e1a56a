"""Products with weights of 8 or 4 bits: a model that writes one token at a time waits for its weights to be read.

Weights only: each row, or each group of a row, has a scale (and a zero) of its own; inputs and sums stay as they are.
Dettmers et al. 2022, "LLM.int8()", section 2, and Frantar et al. 2023, "GPTQ", section 3, describe the roundings.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from regard.errors import RegardError

# numbers of a row that share a scale at 4 bits, as in GGUF's Q4_1, whose weights so stay what they are
GROUP = 32
# with more rows than these the product, not the reading of weights, takes the time
FEW_ROWS = 16
# and from these on, to make the weight of 4 bits and take a plain product
MANY_ROWS = 256
# what torch's 4-bit kernel wants the number of outputs to be a multiple of, and its 8-bit kernel, which does not check
# and reads what is not there, the number of inputs
OUTPUTS = INPUTS = 16


@final
class Int8Linear(nn.Module):
    """x · weightᵀ + bias, the weight rounded to 8 bits, a scale for each output."""

    weight: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Float[Tensor, "output input"], bias: Float[Tensor, " output"] | None) -> None:
        super().__init__()
        scales = (weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127).bfloat16()
        self.padding = -weight.shape[1] % INPUTS
        # by the scale that is kept; a scale that lost its last digits can ask for a little more than 127 of it
        rounded = (weight.float() / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.register_buffer("weight", functional.pad(rounded, (0, self.padding)))
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    def forward(self, inputs: Float[Tensor, "*batch input"]) -> Float[Tensor, "*batch output"]:
        rows = inputs.reshape(-1, inputs.shape[-1])
        rows = functional.pad(rows, (0, self.padding)) if self.padding else rows
        if len(rows) <= FEW_ROWS:
            found = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scales)
        else:
            found = functional.linear(rows, self.weight.to(rows.dtype) * self.scales[:, None])
        found = found if self.bias is None else found + self.bias
        return found.view(*inputs.shape[:-1], -1)


@final
class Int4Linear(nn.Module):
    """x · weightᵀ + bias, the weight rounded to 4 bits, a scale and a zero for each group of a row.

    It is kept twice: as torch's kernel for few rows wants it, and in pairs from which the weight is made for many.
    """

    packed: Tensor
    pairs: Tensor
    scales_and_zeros: Tensor
    bias: Tensor | None

    def __init__(self, weight: Float[Tensor, "output input"], bias: Float[Tensor, " output"] | None) -> None:
        super().__init__()
        groups = weight.float().unflatten(1, (-1, GROUP))
        low, high = groups.amin(dim=2), groups.amax(dim=2)
        scales = ((high - low) / 15).clamp(min=1e-12)
        levels = ((groups - low[..., None]) / scales[..., None]).round().clamp(0, 15).to(torch.int32).flatten(1)
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1))
        # counted from 8, as the kernel does, so that four bits have a sign
        first, second = (levels - 8).to(torch.int8).unflatten(1, (-1, 2)).unbind(2)
        self.register_buffer("pairs", (first << 4) | (second & 15))
        scaling = torch.stack([scales, low + 8 * scales], dim=2).transpose(0, 1)
        self.register_buffer("scales_and_zeros", scaling.contiguous().bfloat16())
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the kernel takes a weight of this shape."""
        return weight.shape[1] % GROUP == 0 and weight.shape[0] % OUTPUTS == 0

    def forward(self, inputs: Float[Tensor, "*batch input"]) -> Float[Tensor, "*batch output"]:
        rows = inputs.reshape(-1, inputs.shape[-1])
        if len(rows) > MANY_ROWS:
            found = functional.linear(rows, self._weight(rows.dtype))
        else:
            found = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales_and_zeros)
        found = found if self.bias is None else found + self.bias
        return found.view(*inputs.shape[:-1], -1)

    def _weight(self, dtype: torch.dtype) -> Float[Tensor, "output input"]:
        levels = torch.stack([self.pairs >> 4, (self.pairs << 4) >> 4], dim=2).flatten(1)
        scales, zeros = self.scales_and_zeros.to(dtype).transpose(0, 1)[..., None].unbind(2)
        return torch.addcmul(zeros, levels.unflatten(1, (-1, GROUP)).to(dtype), scales).flatten(1)


def quantised(weight: Tensor, bias: Tensor | None, dtype: str) -> nn.Module:
    """A linear layer with a weight of `dtype`, int8 or int4. Raises RegardError elsewhere than on a CPU."""
    if weight.device.type != "cpu":
        raise RegardError(f"{dtype} weights are for a CPU; on {weight.device.type} load bfloat16")
    return Int4Linear(weight, bias) if dtype == "int4" and Int4Linear.fits(weight) else Int8Linear(weight, bias)
