"""How likely a language model finds a text."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# those of a whole context would fill gigabytes
LOGITS_AT_ONCE = 512
# from a window's tokens and a number of tokens at once to the logits after each, part by part
Logits = Callable[[Int[Tensor, "1 token"], int], Iterator[Float[Tensor, "token vocabulary"]]]


@torch.inference_mode()
def log_probabilities(logits: Logits, ids: Sequence[int], *, most: int, device: torch.device) -> list[float]:
    """The log-probability of every token but the first, given those before it.

    More than `most` tokens are read in windows of `most` tokens that overlap by half.
    """
    found: list[float] = []
    start = 0
    while len(found) < len(ids) - 1:
        tokens = torch.tensor([ids[start : start + most]], device=device)
        found += _window(logits, tokens)[len(found) - start :]
        start += max(1, most // 2)
    return found


def _window(logits: Logits, tokens: Int[Tensor, "1 token"]) -> list[float]:
    found: list[float] = []
    for part in logits(tokens, LOGITS_AT_ONCE):
        following = tokens[0, len(found) + 1 : len(found) + 1 + len(part), None]
        found += part[: len(following)].float().log_softmax(-1).gather(1, following)[:, 0].tolist()
    return found
