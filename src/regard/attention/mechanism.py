"""What every attention mechanism shares: scores become weights, and weights a context. They differ in the score."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention.output import AttentionOutput


class AttentionMechanism(nn.Module, ABC):
    """Give it `prepare` and `scores`, and it attends."""

    @abstractmethod
    def prepare(self, key: Float[Tensor, "batch key key_dim"]) -> Float[Tensor, "batch key prepared_dim"]:
        """The part of the score that depends on the keys alone: once a sentence, not once a step."""

    @abstractmethod
    def scores(
        self, query: Float[Tensor, "batch query query_dim"], prepared: Float[Tensor, "batch key prepared_dim"]
    ) -> Float[Tensor, "batch query key"]:
        """How well each prepared key answers each query."""

    def attend(
        self,
        query: Float[Tensor, "batch query query_dim"],
        prepared: Float[Tensor, "batch key prepared_dim"],
        value: Float[Tensor, "batch key value_dim"],
        mask: Bool[Tensor, "batch #query key"],
    ) -> AttentionOutput:
        """Context and weights of each query; `mask` is True where it may look."""
        scores = self.scores(query, prepared)
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
        """`attend` with keys as they come."""
        return self.attend(query, self.prepare(key), value, mask)
