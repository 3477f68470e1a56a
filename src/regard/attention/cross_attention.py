"""Cross-attention: the target asks, the source answers.

Vaswani et al. 2017, "Attention is all you need", section 3.2.3. Written to be read, as self_attention.py is, of
which this is step 2 with two sequences; multi_head.py is the same attention on the kernels that the models use.
"""

import math
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from regard.attention.output import AttentionOutput


@final
class CrossAttention(nn.Module):
    """Queries come from the target, keys and values from the source; all of the source is visible.

    Context is [*batch target head_dim], weights are [*batch target source].
    Vaswani et al. 2017, equation 1 and section 3.2.3.
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.query_proj = nn.Linear(dim, head_dim, bias=False)
        self.key_proj = nn.Linear(dim, head_dim, bias=False)
        self.value_proj = nn.Linear(dim, head_dim, bias=False)

    def forward(
        self, target: Float[Tensor, "*batch target dim"], source: Float[Tensor, "*batch source dim"]
    ) -> AttentionOutput:
        query, key, value = self.query_proj(target), self.key_proj(source), self.value_proj(source)
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        weights = scores.softmax(dim=-1)
        return AttentionOutput(context=weights @ value, weights=weights)
