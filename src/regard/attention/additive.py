"""Additive attention: a small feed-forward network scores each query against each key.

Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and
translate", appendix A.1.2.
"""

from typing import final

from jaxtyping import Float
from torch import Tensor

from regard.attention.mechanism import AttentionMechanism
from regard.kernels.linear import Linear


@final
class AdditiveAttention(AttentionMechanism):
    """score = v · tanh(W query + U key).

    Luong's *concat*, v · tanh(W [query; key]), is the same function: W cut into its two halves.
    """

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.query_proj = Linear(query_dim, query_dim, bias=False)
        self.key_proj = Linear(key_dim, query_dim, bias=False)
        self.score_proj = Linear(query_dim, 1, bias=False)

    def prepare(self, key: Float[Tensor, "batch key key_dim"]) -> Float[Tensor, "batch key query_dim"]:
        return self.key_proj(key)

    def scores(
        self, query: Float[Tensor, "batch query query_dim"], prepared: Float[Tensor, "batch key query_dim"]
    ) -> Float[Tensor, "batch query key"]:
        pairs = self.query_proj(query)[:, :, None] + prepared[:, None]
        return self.score_proj(pairs.tanh()).squeeze(-1)
