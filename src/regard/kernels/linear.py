"""A matrix product with a weight, the sum that nearly all of a model's time goes into.

On a CPU torch hands float32 products to MKL, which on processors of other makers than Intel's leaves half of
their vector width unused; oneDNN, which torch carries too, does not. On Intel's own MKL is the faster one, above
all for the gradient of a weight.
"""

import functools
import math
import platform
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

# to put a weight in order takes as long as is gained in about so many products
LEAST_PRODUCTS = 8


@final
class Linear(nn.Module):
    """x · weightᵀ + bias, as `torch.nn.Linear`, with its initial values too."""

    def __init__(self, input_dim: int, output_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(output_dim, input_dim))
        self.bias = nn.Parameter(torch.empty(output_dim)) if bias else None
        bound = 1 / math.sqrt(input_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    # by these names peft finds how large its adapters are
    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    def forward(self, inputs: Float[Tensor, "*batch input_dim"]) -> Float[Tensor, "*batch output_dim"]:
        return linear(inputs, self.weight, self.bias)


def linear(
    inputs: Float[Tensor, "*batch input_dim"],
    weight: Float[Tensor, "output_dim input_dim"],
    bias: Float[Tensor, " output_dim"] | None = None,
) -> Float[Tensor, "*batch output_dim"]:
    """x · weightᵀ + bias by the fastest kernel there is for it."""
    if not _by_onednn(inputs):
        return functional.linear(inputs, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(inputs, weight, bias)  # pyright: ignore[reportReturnType]
    return product(inputs, weight, bias)


def matmul(left: Float[Tensor, "row inner"], right: Float[Tensor, "inner column"]) -> Float[Tensor, "row column"]:
    """left · right, inside a function that knows its own gradient."""
    if left.is_contiguous() or left.numel() < right.numel():
        return product(left, right.T)
    # oneDNN copies a first matrix that is transposed, but not a second one: the larger is better the second
    return product(right.T, left).T


def product(
    inputs: Float[Tensor, "*batch input_dim"],
    weight: Float[Tensor, "output_dim input_dim"],
    bias: Float[Tensor, " output_dim"] | None = None,
) -> Float[Tensor, "*batch output_dim"]:
    """`linear` inside a function that knows its own gradient."""
    if not weight.is_mkldnn and not _by_onednn(inputs):
        return functional.linear(inputs, weight, bias)
    rows = _dense(inputs.reshape(-1, inputs.shape[-1]))
    weight = weight if weight.is_mkldnn else _dense(weight)
    found = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found.view(*inputs.shape[:-1], len(weight))


def packed(weight: Float[Tensor, "output_dim input_dim"], *, rows: int, products: int) -> Tensor:
    """The weight of `products` products of `rows` rows each, in the order in which their kernel goes through it.

    Good for `product` alone, which by itself puts the weight in order each time. Of few products it is left as it is.
    """
    # in order, it is the fastest on every processor
    if products < LEAST_PRODUCTS or not _fits_onednn(weight):
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def _dense(matrix: Tensor) -> Tensor:
    # oneDNN has no fast kernel for a matrix with gaps between its rows
    return matrix if matrix.is_contiguous() or matrix.T.is_contiguous() else matrix.contiguous()


def _by_onednn(inputs: Tensor) -> bool:
    return not mkl_is_at_home() and _fits_onednn(inputs)


@functools.cache
def mkl_is_at_home() -> bool:
    """Whether torch has MKL, and the processor is of the maker that MKL is written for."""
    told = Path("/proc/cpuinfo")
    processor = told.read_text(errors="replace") if told.exists() else platform.processor()
    return torch.backends.mkl.is_available() and "GenuineIntel" in processor


def _fits_onednn(inputs: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == torch.float32
        # of no numbers oneDNN leaves the sum as it finds it
        and inputs.numel() > 0
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


@final
class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2) if gradient.ndim > 1 else gradient[None]
        return (
            matmul(rows, weight).view_as(inputs) if needs_inputs else None,
            matmul(rows.T, inputs.reshape(-1, inputs.shape[-1])) if needs_weight else None,
            rows.sum(dim=0) if needs_bias else None,
        )
