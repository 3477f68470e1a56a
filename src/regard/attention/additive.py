"""Additive attention: a small feed-forward network scores each query against each key.

Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
translate", appendix A.1.2.
"""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention.output import AttentionOutput


@final
class AdditiveAttention(nn.Module):
    """score = v · tanh(W query + U key).

    Luong's *concat*, v · tanh(W [query; key]), is the same function: W cut into its two halves.
    """

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.query_proj = nn.Linear(query_dim, query_dim, bias=False)
        self.key_proj = nn.Linear(key_dim, query_dim, bias=False)
        self.score_proj = nn.Linear(query_dim, 1, bias=False)

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
        pairs = self.query_proj(query)[:, :, None] + prepared[:, None]
        scores = self.score_proj(pairs.tanh()).squeeze(-1)
        # masks.py leaves every query a key, so this softmax never meets 0/0
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        return AttentionOutput(context=weights @ value, weights=weights)

    def forward(
        self,
        query: Float[Tensor, "batch query query_dim"],
        key: Float[Tensor, "batch key key_dim"],
        value: Float[Tensor, "batch key value_dim"],
        mask: Bool[Tensor, "batch #query key"],
    ) -> AttentionOutput:
        """Context and weights of each query; `mask` is True where it may look."""
        return self.attend(query, self.prepare(key), value, mask)
