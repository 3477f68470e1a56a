"""Multiplicative attention: a query scores a key by their product.

Luong, Pham and Manning 2015, "Effective approaches to attention-based neural machine translation",
equation 8, and Vaswani et al. 2017, "Attention is all you need", equation 1. Luong's third score,
concat, is additive: additive.py.
"""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention.output import AttentionOutput
from regard.errors import RegardError


@final
class DotAttention(nn.Module):
    """score = query · key, times `scale`: 1 in Luong's dot, 1/sqrt(query_dim) in scaled dot-product attention."""

    def __init__(self, query_dim: int, key_dim: int, *, scaled: bool = False) -> None:
        super().__init__()
        if query_dim != key_dim:
            raise RegardError(
                f"dot attention needs queries and keys of one size, not {query_dim} and {key_dim}; use general, "
                "or make the sizes equal"
            )
        self.scale = query_dim**-0.5 if scaled else 1.0

    def prepare(self, key: Float[Tensor, "batch key dim"]) -> Float[Tensor, "batch key dim"]:
        """Keys are used as they are."""
        return key

    def attend(
        self,
        query: Float[Tensor, "batch query dim"],
        prepared: Float[Tensor, "batch key dim"],
        value: Float[Tensor, "batch key value_dim"],
        mask: Bool[Tensor, "batch #query key"],
    ) -> AttentionOutput:
        return _weigh(self.scale * query @ prepared.mT, value, mask)

    def forward(
        self,
        query: Float[Tensor, "batch query dim"],
        key: Float[Tensor, "batch key dim"],
        value: Float[Tensor, "batch key value_dim"],
        mask: Bool[Tensor, "batch #query key"],
    ) -> AttentionOutput:
        """Context and weights of each query; `mask` is True where it may look."""
        return self.attend(query, key, value, mask)


@final
class GeneralAttention(nn.Module):
    """score = query · W key."""

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Linear(key_dim, query_dim, bias=False)

    def prepare(self, key: Float[Tensor, "batch key key_dim"]) -> Float[Tensor, "batch key query_dim"]:
        """The part of the score that depends on the keys alone: once a sentence, not once a step."""
        return self.key_proj(key)

    def attend(
        self,
        query: Float[Tensor, "batch query query_dim"],
        prepared: Float[Tensor, "batch key query_dim"],
        value: Float[Tensor, "batch key value_dim"],
        mask: Bool[Tensor, "batch #query key"],
    ) -> AttentionOutput:
        return _weigh(query @ prepared.mT, value, mask)

    def forward(
        self,
        query: Float[Tensor, "batch query query_dim"],
        key: Float[Tensor, "batch key key_dim"],
        value: Float[Tensor, "batch key value_dim"],
        mask: Bool[Tensor, "batch #query key"],
    ) -> AttentionOutput:
        """Context and weights of each query; `mask` is True where it may look."""
        return self.attend(query, self.prepare(key), value, mask)


def _weigh(
    scores: Float[Tensor, "batch query key"],
    value: Float[Tensor, "batch key value_dim"],
    mask: Bool[Tensor, "batch #query key"],
) -> AttentionOutput:
    # masks.py leaves every query a key, so this softmax never meets 0/0
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return AttentionOutput(context=weights @ value, weights=weights)
