"""Multi-head attention: several small attentions side by side, each with projections of its own.

Vaswani et al. 2017, "Attention is all you need", section 3.2.2. Self-attention where a sequence is
its own memory, cross-attention where the memory is another sequence; self_attention.py leads up to
it step by step.
"""

from typing import NamedTuple, final

from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention.output import AttentionOutput
from regard.errors import RegardError
from regard.kernels import fused, reference


class Memory(NamedTuple):
    """What a sequence offers to those who look at it."""

    key: Float[Tensor, "batch head key head_dim"]
    value: Float[Tensor, "batch head key head_dim"]


@final
class MultiHeadAttention(nn.Module):
    """`remember` a sequence once, then look at it with as many queries as there are."""

    def __init__(self, model_dim: int, num_heads: int) -> None:
        super().__init__()
        if model_dim % num_heads:
            raise RegardError(f"model_dim {model_dim} cannot be cut into {num_heads} heads of equal size")
        self.num_heads = num_heads
        self.query_proj = nn.Linear(model_dim, model_dim)
        self.key_proj = nn.Linear(model_dim, model_dim)
        self.value_proj = nn.Linear(model_dim, model_dim)
        self.out_proj = nn.Linear(model_dim, model_dim)

    def remember(self, inputs: Float[Tensor, "batch key model_dim"]) -> Memory:
        return Memory(key=self._split(self.key_proj(inputs)), value=self._split(self.value_proj(inputs)))

    def forward(
        self,
        query: Float[Tensor, "batch query model_dim"],
        memory: Memory,
        *,
        mask: Bool[Tensor, "batch #query key"] | None = None,
        causal: bool = False,
        read: bool = False,
    ) -> tuple[Float[Tensor, "batch query model_dim"], AttentionOutput]:
        """The output, and each head's context and (where `read`) weights.

        The context comes from the fused kernel either way, so that reading changes no output.
        """
        heads = self._split(self.query_proj(query))
        head_mask = None if mask is None else mask[:, None]
        context = fused.attend(heads, *memory, mask=head_mask, causal=causal)
        weights = reference.weights(heads, memory.key, mask=head_mask, causal=causal) if read else None
        output = self.out_proj(context.transpose(1, 2).flatten(2))
        return output, AttentionOutput(context=context, weights=weights)

    def _split(
        self, projected: Float[Tensor, "batch position model_dim"]
    ) -> Float[Tensor, "batch head position head_dim"]:
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
