"""How likely a language model finds a text."""

from collections.abc import Sequence
from typing import Any

import torch

from regard.attention.key_values import KeyValues
from regard.models.gpt import GPT

# those of a whole context would fill gigabytes
LOGITS_AT_ONCE = 512


@torch.inference_mode()
def log_probabilities(module: Any, ids: Sequence[int], *, most: int, device: torch.device) -> list[float]:
    """The log-probability of every token but the first, given those before it.

    More than `most` tokens are read in windows of so many that overlap by half.
    """
    found: list[float] = []
    start = 0
    while len(found) < len(ids) - 1:
        tokens = torch.tensor([ids[start : start + most]], device=device)
        found += _window(module, tokens)[len(found) - start :]
        start += max(1, most // 2)
    return found


def _window(module: Any, tokens: torch.Tensor) -> list[float]:
    length = tokens.shape[1]
    past = KeyValues(length) if isinstance(module, GPT) else None
    size = length if past is None else LOGITS_AT_ONCE
    found: list[float] = []
    for start in range(0, length - 1, size):
        chunk = tokens[:, start : start + size]
        logits = (module(chunk) if past is None else module(chunk, past)).logits[0]
        wanted = tokens[0, start + 1 : start + 1 + size, None]
        found += logits[: len(wanted)].float().log_softmax(-1).gather(1, wanted)[:, 0].tolist()
    return found
