"""Multiplicative attention: a query scores a key by their product.

Luong, Pham and Manning 2015, "Effective approaches to attention-based neural machine translation",
equation 8, and Vaswani et al. 2017, "Attention is all you need", equation 1. Luong's third score,
concat, is additive: additive.py.
"""

from typing import final

from jaxtyping import Float
from torch import Tensor

from regard.attention.mechanism import AttentionMechanism
from regard.errors import RegardError
from regard.kernels.linear import Linear


@final
class DotAttention(AttentionMechanism):
    """score = query · key; where `scaled`, over sqrt(query_dim), as in scaled dot-product attention.

    Raises RegardError for queries and keys of different size.

    >>> import torch
    >>> query, key = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> DotAttention(2, 2).scores(query, key)
    tensor([[[2., 0.]]])
    """

    def __init__(self, query_dim: int, key_dim: int, *, scaled: bool = False) -> None:
        super().__init__()
        if query_dim != key_dim:
            raise RegardError(
                f"dot attention needs queries and keys of one size, not {query_dim} and {key_dim}; use general, "
                "or make the sizes equal"
            )
        self.scale = query_dim**-0.5 if scaled else 1.0

    def prepare(self, key: Float[Tensor, "batch key dim"]) -> Float[Tensor, "batch key dim"]:
        return key

    def scores(
        self, query: Float[Tensor, "batch query dim"], prepared: Float[Tensor, "batch key dim"]
    ) -> Float[Tensor, "batch query key"]:
        return self.scale * query @ prepared.mT


@final
class GeneralAttention(AttentionMechanism):
    """score = query · W key."""

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = Linear(key_dim, query_dim, bias=False)

    def prepare(self, key: Float[Tensor, "batch key key_dim"]) -> Float[Tensor, "batch key query_dim"]:
        return self.key_proj(key)

    def scores(
        self, query: Float[Tensor, "batch query query_dim"], prepared: Float[Tensor, "batch key query_dim"]
    ) -> Float[Tensor, "batch query key"]:
        return query @ prepared.mT
