"""Self-attention in four steps: every token looks at the tokens of its own sentence, each step adding one idea.

1. `simple_self_attention`: scores are the products of the inputs themselves.
2. `SelfAttention`: queries, keys and values are projections that training can change.
3. `CausalSelfAttention`: no token looks ahead, and training drops some weights at random.
4. `MultiHeadSelfAttention`: several attentions side by side, then one projection over them.

Vaswani et al. 2017, "Attention is all you need", section 3.2. The steps and their six-token example
are those of Raschka 2024, "Build a large language model (from scratch)", chapter 3. Written to be
read: multi_head.py is the same attention on the kernels that the models use.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.attention.masks import causal_mask
from regard.attention.output import AttentionOutput
from regard.errors import RegardError


def simple_self_attention(inputs: Float[Tensor, "*batch position dim"]) -> AttentionOutput:
    """Step 1: tokens score each other by the product of their embeddings; nothing is learned.

    Context is [*batch position dim], weights are [*batch query key].
    Raschka 2024, section 3.3.

    >>> two = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> simple_self_attention(two).weights  # e / (e + 1) and 1 / (e + 1)
    tensor([[0.7311, 0.2689],
            [0.2689, 0.7311]])
    """
    scores = inputs @ inputs.mT
    weights = scores.softmax(dim=-1)
    return AttentionOutput(context=weights @ inputs, weights=weights)


@final
class SelfAttention(nn.Module):
    """Step 2: trainable matrices make a query, a key and a value of each token; scores are scaled.

    Context is [*batch position head_dim], weights are [*batch query key].
    Vaswani et al. 2017, equation 1; Raschka 2024, section 3.4.

    >>> output = SelfAttention(dim=3, head_dim=2)(torch.rand(6, 3))
    >>> output.context.shape, output.weights.shape
    (torch.Size([6, 2]), torch.Size([6, 6]))
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.query_proj = nn.Linear(dim, head_dim, bias=False)
        self.key_proj = nn.Linear(dim, head_dim, bias=False)
        self.value_proj = nn.Linear(dim, head_dim, bias=False)

    def forward(self, inputs: Float[Tensor, "*batch position dim"]) -> AttentionOutput:
        query, key, value = self.query_proj(inputs), self.key_proj(inputs), self.value_proj(inputs)
        # unscaled products grow with head_dim and would push softmax to where its gradient vanishes
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        weights = scores.softmax(dim=-1)
        return AttentionOutput(context=weights @ value, weights=weights)


@final
class CausalSelfAttention(nn.Module):
    """Step 3: no token looks at a later one, and in training `dropout` of the weights are put to zero.

    Context is [*batch position head_dim]. Weights are [*batch query key], before dropout: every row
    sums to 1, in training too, where the context comes from the dropped ones.
    Vaswani et al. 2017, section 3.2.3; Raschka 2024, section 3.5.
    """

    def __init__(self, dim: int, head_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.query_proj = nn.Linear(dim, head_dim, bias=False)
        self.key_proj = nn.Linear(dim, head_dim, bias=False)
        self.value_proj = nn.Linear(dim, head_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "*batch position dim"]) -> AttentionOutput:
        query, key, value = self.query_proj(inputs), self.key_proj(inputs), self.value_proj(inputs)
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        visible = causal_mask(inputs.shape[-2], device=inputs.device)
        weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        return AttentionOutput(context=self.dropout(weights) @ value, weights=weights)


@final
class MultiHeadSelfAttention(nn.Module):
    """Step 4: each head attends with its own slice of the projections; one more projection joins them.

    Heads have `head_dim` numbers, where nothing is said model_dim / num_heads. Context is the joined
    output, [*batch position model_dim]; weights are [*batch head query key], before dropout.
    Raises RegardError where num_heads does not divide model_dim and no head_dim is given.
    Vaswani et al. 2017, section 3.2.2; Raschka 2024, section 3.6.
    """

    def __init__(self, model_dim: int, num_heads: int, *, head_dim: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if num_heads < 1:
            raise RegardError(f"num_heads must be at least 1, not {num_heads}")
        if head_dim is None and model_dim % num_heads:
            raise RegardError(
                f"model_dim {model_dim} cannot be cut into {num_heads} heads of equal size; "
                "change one of them, or give head_dim"
            )
        self.num_heads = num_heads
        heads_dim = model_dim if head_dim is None else num_heads * head_dim
        self.query_proj = nn.Linear(model_dim, heads_dim, bias=False)
        self.key_proj = nn.Linear(model_dim, heads_dim, bias=False)
        self.value_proj = nn.Linear(model_dim, heads_dim, bias=False)
        self.out_proj = nn.Linear(heads_dim, model_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "*batch position model_dim"]) -> AttentionOutput:
        query = self._split(self.query_proj(inputs))
        key = self._split(self.key_proj(inputs))
        value = self._split(self.value_proj(inputs))
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        visible = causal_mask(inputs.shape[-2], device=inputs.device)
        weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        heads = self.dropout(weights) @ value
        return AttentionOutput(context=self.out_proj(heads.transpose(-3, -2).flatten(-2)), weights=weights)

    def _split(
        self, projected: Float[Tensor, "*batch position heads_dim"]
    ) -> Float[Tensor, "*batch head position head_dim"]:
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)
