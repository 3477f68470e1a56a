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
from regard.kernels.linear import Linear, linear


class Memory(NamedTuple):
    """What a sequence offers to those who look at it."""

    key: Float[Tensor, "batch head key head_dim"]
    value: Float[Tensor, "batch head key head_dim"]


@final
class MultiHeadAttention(nn.Module):
    """`remember` a sequence once, then look at it with the queries that `ask` or `ask_and_remember` gives."""

    def __init__(self, model_dim: int, num_heads: int) -> None:
        super().__init__()
        if model_dim % num_heads:
            raise RegardError(f"model_dim {model_dim} cannot be cut into {num_heads} heads of equal size")
        self.num_heads = num_heads
        # rows for query, key and value, one under the other: self-attention needs one product
        self.in_proj = Linear(model_dim, 3 * model_dim)
        self.out_proj = Linear(model_dim, model_dim)

    def ask(self, inputs: Float[Tensor, "batch query model_dim"]) -> Float[Tensor, "batch head query head_dim"]:
        (query,) = self._project(inputs, slice(0, 1))
        return query

    def remember(self, inputs: Float[Tensor, "batch key model_dim"]) -> Memory:
        return Memory(*self._project(inputs, slice(1, 3)))

    def ask_and_remember(
        self, inputs: Float[Tensor, "batch position model_dim"]
    ) -> tuple[Float[Tensor, "batch head position head_dim"], Memory]:
        """Both of one sequence: self-attention."""
        query, key, value = self._project(inputs, slice(0, 3))
        return query, Memory(key=key, value=value)

    def forward(
        self,
        query: Float[Tensor, "batch head query head_dim"],
        memory: Memory,
        *,
        mask: Bool[Tensor, "batch #query key"] | None = None,
        causal: bool = False,
        read: bool = False,
    ) -> tuple[Float[Tensor, "batch query model_dim"], AttentionOutput]:
        """The output, and each head's context and (where `read`) weights.

        The context comes from the fused kernel either way, so that reading changes no output.
        """
        head_mask = None if mask is None else mask[:, None]
        context = fused.attend(query, *memory, mask=head_mask, causal=causal)
        weights = reference.weights(query, memory.key, mask=head_mask, causal=causal) if read else None
        output = self.out_proj(context.transpose(1, 2).flatten(2))
        return output, AttentionOutput(context=context, weights=weights)

    def _project(
        self, inputs: Float[Tensor, "batch position model_dim"], parts: slice
    ) -> tuple[Float[Tensor, "batch head position head_dim"], ...]:
        """Of query, key and value those that are wanted."""
        model_dim = inputs.shape[-1]
        rows = slice(parts.start * model_dim, parts.stop * model_dim)
        weight, bias = self.in_proj.weight, self.in_proj.bias
        assert bias is not None
        # query, key and value are cut apart before the heads are: one copy puts their gradients side by side
        projected = linear(inputs, weight[rows], bias[rows]).split(model_dim, dim=-1)
        return tuple(part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in projected)
