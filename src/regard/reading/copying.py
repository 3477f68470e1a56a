"""Heads that copy: what they look at is what an answer takes over.

Olsson et al. 2022, "In-context learning and induction heads".
"""

import weakref
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from regard.errors import RegardError
from regard.reading.answer_run import AnswerRun
from regard.reading.probe import Probe

# nats that a token of the answer loses without what copying heads look at, where they look at nothing else
COPIED = 4.0
# heads that copy, and the random tokens of a text that is given twice to find them
COPYING_HEADS, RANDOM_TOKENS = 5, 48

_HEADS: "weakref.WeakKeyDictionary[nn.Module, list[tuple[str, int]]]" = weakref.WeakKeyDictionary()


def copied(probe: Probe) -> Float[np.ndarray, " part"]:
    """What each part did by being copied, roughly, by what the answer's rows give to it in the probe's heads.

    The gradient of hiding a part from a row has the factor w · (1 − w), where w is what the row gives to it: it is
    silent about w², so squares are what is added to it. They are of the mean of heads that copy: where one looks by
    itself, it copies nothing.
    """
    return -COPIED * probe.given.square().sum(0).numpy()


def copying_heads(module: nn.Module) -> list[tuple[str, int]]:
    """Heads that copy, by the path of their layer; none where the model takes too few tokens for them to be found."""
    if module not in _HEADS:
        try:
            _HEADS[module] = _found(module)
        except RegardError:
            _HEADS[module] = []
    return _HEADS[module]


@torch.inference_mode()
def _found(module: nn.Module) -> list[tuple[str, int]]:
    """Heads that, in a text given twice, look at what came after the token the first time, as if to copy it."""
    embedding: Any = next(each for each in module.modules() if isinstance(each, nn.Embedding))
    draw = torch.Generator().manual_seed(0)
    text = torch.randint(embedding.num_embeddings, (RANDOM_TOKENS,), generator=draw).tolist()
    scores: dict[tuple[str, int], float] = {}
    for place in range(0, RANDOM_TOKENS, RANDOM_TOKENS // 4):
        fed = [*text, *text[: place + 1]]
        probe = Probe(module, torch.full((len(fed),), -1), [len(fed) - 1])
        with probe.watched():
            AnswerRun(module, fed, [text[(place + 1) % RANDOM_TOKENS]]).run()
        for path, rows in probe.rows.items():
            for head, row in enumerate(rows):
                scores[path, head] = scores.get((path, head), 0.0) + float(row[place + 1])
    return sorted(scores, key=lambda each: -scores[each])[:COPYING_HEADS]
