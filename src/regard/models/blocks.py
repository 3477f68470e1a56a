"""Parts that several models are built of."""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.data.batch import PAD, UNKNOWN
from regard.kernels.linear import Linear, linear


@final
class Embedding(nn.Module):
    """Token vectors times sqrt(dim), and, where `tied`, the output layer that shares them.

    The scale lets one matrix serve both ends (Vaswani et al. 2017, section 3.4; Press and Wolf 2017).
    """

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim).normal_(std=dim**-0.5))
        self.scale = math.sqrt(dim)

    def forward(self, tokens: Int[Tensor, "batch step"]) -> Float[Tensor, "batch step dim"]:
        return nn.functional.embedding(tokens, self.weight, padding_idx=PAD) * self.scale

    def logits(self, features: Float[Tensor, "batch step dim"]) -> Float[Tensor, "batch step vocabulary"]:
        """The tied output layer."""
        return linear(features, self.weight)


@final
class TokenDropout(nn.Module):
    """In training each token is unknown with probability `share`.

    A decoder that cannot rely on what was written so far must look at the source (Bowman et al. 2016, "Generating
    sentences from a continuous space", section 3.1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, tokens: Int[Tensor, "batch step"]) -> Int[Tensor, "batch step"]:
        if not self.training or not self.share:
            return tokens
        return tokens.masked_fill(torch.rand(tokens.shape, device=tokens.device) < self.share, UNKNOWN)


def sinusoidal_positions(length: int, dim: int) -> Float[Tensor, "position dim"]:
    """sin and cos of each position at wavelengths from 2π to 10,000 · 2π (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim].float()


def initialise(module: nn.Module) -> None:
    """Glorot-uniform matrices and zero biases; recurrent matrices orthogonal, each gate by itself."""
    for name, child in module.named_modules():
        if isinstance(child, Linear):
            # query, key and value are three matrices, though they stand in one
            for matrix in child.weight.data.chunk(3) if name.endswith("in_proj") else [child.weight.data]:
                nn.init.xavier_uniform_(matrix)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.RNNBase):
            for parameter_name, parameter in child.named_parameters():
                if parameter_name.startswith("bias"):
                    nn.init.zeros_(parameter)
                else:
                    start = nn.init.orthogonal_ if parameter_name.startswith("weight_hh") else nn.init.xavier_uniform_
                    for gate in parameter.data.split(child.hidden_size):
                        start(gate)
