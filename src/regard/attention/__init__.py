"""How one position looks at others."""

from collections.abc import Callable
from functools import partial

from regard.attention.additive import AdditiveAttention
from regard.attention.mechanism import AttentionMechanism
from regard.attention.multiplicative import DotAttention, GeneralAttention

# each is made with (query_dim, key_dim) and called with (query, key, value, mask)
MECHANISMS: dict[str, Callable[[int, int], AttentionMechanism]] = {
    "additive": AdditiveAttention,
    "dot": DotAttention,
    "general": GeneralAttention,
    "concat": AdditiveAttention,
    "scaled_dot_product": partial(DotAttention, scaled=True),
}
