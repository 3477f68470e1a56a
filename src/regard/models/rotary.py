"""Rotary positions: queries and keys are turned by angles that grow with their position.

Su et al. 2021, "RoFormer: enhanced Transformer with rotary position embedding", section 3.2.2; longer contexts by
linear scaling, Chen et al. 2023, "Extending context window of large language models via position interpolation", or by
Llama 3's, Grattafiori et al. 2024, "The Llama 3 herd of models".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from regard.config import setting
from regard.errors import RegardError


@dataclass(frozen=True)
class RotaryConfig:
    """Wavelengths run from 2π to 2π · base; `scaling` stretches them, for contexts longer than `original_length`."""

    base: float = setting(10_000.0, above=1)
    scaling: str = setting("none", choices=("none", "linear", "llama3"))
    factor: float = setting(1.0, least=1)
    low_frequency_factor: float = setting(1.0, above=0)
    high_frequency_factor: float = setting(4.0, above=0)
    original_length: int = setting(8192, least=1)

    def __post_init__(self) -> None:
        if self.scaling == "llama3" and self.low_frequency_factor >= self.high_frequency_factor:
            raise RegardError("low_frequency_factor must be less than high_frequency_factor")


def frequencies(config: RotaryConfig, head_dim: int) -> Float[Tensor, " half"]:
    """Radians by which each pair of numbers turns from one position to the next."""
    rates = config.base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if config.scaling == "linear":
        return rates / config.factor
    if config.scaling == "llama3":
        # waves that a context held several times stay as they are, those longer than it are stretched
        waves_per_context = config.original_length * rates / (2 * math.pi)
        low, high = config.low_frequency_factor, config.high_frequency_factor
        kept = ((waves_per_context - low) / (high - low)).clamp(0, 1)
        return rates * (kept + (1 - kept) / config.factor)
    return rates


def angles(
    config: RotaryConfig, head_dim: int, length: int
) -> tuple[Float[Tensor, "position head_dim"], Float[Tensor, "position head_dim"]]:
    """Cosines and sines of all positions, for the first half of a head, where sines are negative, and the second."""
    turns = torch.outer(torch.arange(length, dtype=torch.float32), frequencies(config, head_dim))
    sines = turns.sin()
    return turns.cos().repeat(1, 2), torch.cat([-sines, sines], dim=1)


def rotate(
    x: Float[Tensor, "batch head position head_dim"],
    cosines: Float[Tensor, "*batch position head_dim"],
    sines: Float[Tensor, "*batch position head_dim"],
) -> Float[Tensor, "batch head position head_dim"]:
    """Each pair (x[i], x[i + half]) turned by its angle."""
    return torch.addcmul(x * cosines, x.roll(x.shape[-1] // 2, dims=-1), sines)
