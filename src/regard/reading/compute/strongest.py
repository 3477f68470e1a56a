"""The highest scores of each row, exactly, in about one pass over them.

The k highest of a row are in the k blocks that have the highest maxima: only these are looked through.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# a double holds a float exactly and has as many bits to spare
SPARE = (1 << 29) - 1
# rows of up to so many keys are sorted whole
SHORT_ROW = 256

Top = tuple[Float[Tensor, "head query k"], Int[Tensor, "head query k"]]


def strongest(scores: Float[Tensor, "head query key"], k: int) -> tuple[Float[Tensor, "head query 1"], Top | None]:
    """The highest score of each row; the k highest or all, the highest first, with their indices, None for k = 0."""
    num_keys = scores.shape[-1]
    if not k:
        return scores.amax(-1, keepdim=True), None
    size = 8 if num_keys < 1024 else 16 if num_keys <= 4096 else 32
    if scores.dtype != torch.float32 or scores.device.type != "cpu" or SHORT_ROW < num_keys < 4 * k * size:
        top = scores.topk(min(k, num_keys), dim=-1)
    elif num_keys <= SHORT_ROW:
        top = _highest(scores, torch.arange(num_keys), k)
    else:
        count = num_keys // size
        # block b has the keys b, b + count, b + 2 · count, …: so the maxima of all blocks are found side by side
        maxima = scores[..., : count * size].unflatten(-1, (size, count)).amax(-2)
        _, blocks = _highest(maxima, torch.arange(count), k)
        members = (blocks[..., None, :] + torch.arange(0, count * size, count)[:, None]).flatten(-2)
        if count * size < num_keys:
            rest = torch.arange(count * size, num_keys).expand(*members.shape[:-1], -1)
            members = torch.cat((members, rest), -1)
        top = _highest(scores.gather(-1, members), members, k)
    return top[0][..., :1], (top[0], top[1])


def _highest(values: Tensor, names: Tensor, k: int) -> Top:
    """The k highest values of each row, the highest first, and their names.

    Each name is written into the bits of its value that float32 leaves free. Then to sort the values alone, which numpy
    does with vector instructions, sorts the names too.
    """
    packed = values.double()
    packed.view(torch.int64).bitwise_or_(names)
    packed.numpy().sort(-1)
    bits = packed.view(torch.int64)[..., -k:].flip(-1)
    found = bits & SPARE
    return (bits ^ found).view(torch.float64).float(), found
