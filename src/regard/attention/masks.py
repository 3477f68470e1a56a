"""Which keys a query may look at: True where it may.

Every mask made here leaves each query at least one key, so that no softmax over it meets 0/0.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.errors import RegardError


def padding_mask(lengths: Int[Tensor, " batch"], size: int) -> Bool[Tensor, "batch key"]:
    """True for the first `lengths[i]` of `size` positions.

    Raises RegardError for a length below one or above `size`.
    """
    if lengths.numel() and not (int(lengths.min()) >= 1 and int(lengths.max()) <= size):
        raise RegardError(f"sequence lengths must lie in 1 to {size}, not {lengths.tolist()}; leave empty ones out")
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def causal_mask(size: int, *, device: torch.device | str | None = None) -> Bool[Tensor, "query key"]:
    """Each position may look at itself and at what came before it."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()
