"""Scaled dot-product attention as it is written in the paper: the truth that other kernels are held to.

Vaswani et al. 2017, "Attention is all you need", equation 1.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def weights(
    query: Float[Tensor, "batch head query head_dim"],
    key: Float[Tensor, "batch head key head_dim"],
    *,
    mask: Bool[Tensor, "#batch #head #query key"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head query key"]:
    """softmax(query · keyᵀ / sqrt(head_dim)) over the keys that a query may look at; hidden keys are exactly 0."""
    scores = query * query.shape[-1] ** -0.5 @ key.mT
    if mask is not None:
        scores = scores.masked_fill_(~mask, -torch.inf)
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill_(~visible, -torch.inf)
    return scores.softmax(dim=-1)


def attend(
    query: Float[Tensor, "batch head query head_dim"],
    key: Float[Tensor, "batch head key head_dim"],
    value: Float[Tensor, "batch head key value_dim"],
    *,
    mask: Bool[Tensor, "#batch #head #query key"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head query value_dim"]:
    """The context: weights times values."""
    return weights(query, key, mask=mask, causal=causal) @ value
