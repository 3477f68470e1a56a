"""Scaled dot-product attention in one kernel that never stores the weights.

Dao et al. 2022, "FlashAttention", through torch's own dispatch.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def attend(
    query: Float[Tensor, "batch head query head_dim"],
    key: Float[Tensor, "batch head key head_dim"],
    value: Float[Tensor, "batch head key value_dim"],
    *,
    mask: Bool[Tensor, "batch #head #query key"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head query value_dim"]:
    """The context: weights times values."""
    if causal and mask is not None:
        # torch's kernels take one or the other
        visible = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        mask, causal = mask & visible, False
    if query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        # torch's kernel on a CPU takes twice as long in bfloat16, forward and backward, as in float32
        with torch.autocast("cpu", enabled=False):
            wide = (tensor.float() for tensor in (query, key, value))
            context = functional.scaled_dot_product_attention(*wide, attn_mask=mask, is_causal=causal)
        return context.bfloat16()
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
