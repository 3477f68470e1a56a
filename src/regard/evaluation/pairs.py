"""Given sentence pairs, scored as if the model had written each target."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from regard.data.formats import Pair
from regard.data.pair_tokenizer import PairTokenizer
from regard.data.prepare import SIDES, tokenize
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.generation.result import Generation


def check_pairs(
    tokenizer: PairTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    max_length: int,
    name: Callable[[int], str],
) -> None:
    """Raises RegardError for lists of unequal length, and for a pair with a side longer than the model's limit."""
    if len(sources) != len(targets):
        raise RegardError(f"{len(sources)} sources for {len(targets)} targets; give one for each")
    each = zip(SIDES, (tokenizer, tokenizer.target), (sources, targets), tokenizer.frames.sides, strict=True)
    for side, tokenizes, texts, frame in each:
        for index, ids in enumerate(tokenizes.encode_batch(texts)):
            if (length := len(ids) + frame.size) > max_length:
                raise RegardError(
                    f"{name(index)}: its {side} has {length} tokens, the model takes at most {max_length}; "
                    "split it, or train with a larger model.max_length"
                )


def score_pairs(
    module: nn.Module,
    tokenizer: PairTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    max_length: int,
    device: torch.device,
) -> list[Generation]:
    """Each target as if the model had written it: its natural log-probability, EOS counted, and that per token."""
    if not sources:
        return []
    pairs = [Pair(*pair) for pair in zip(sources, targets, strict=True)]
    tokenized, _ = tokenize(pairs, tokenizer, max_length=max_length)
    likely = likelihood(module, tokenized, device=device)
    return [
        Generation(
            text=pair.target,
            tokens=tokenizer.target.encode(pair.target),
            score=log_probability / count,
            finished=True,
            log_probability=log_probability,
        )
        for pair, log_probability, count in zip(
            pairs, likely.log_probs.tolist(), likely.token_counts.tolist(), strict=True
        )
    ]
