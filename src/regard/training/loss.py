"""What a training step minimises, and its gradient."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from regard.attention.output import ModelOutput
from regard.data.batch import IGNORED, Batch, TextBatch
from regard.evaluation.likelihood import BATCH_TOKENS, likelihood
from regard.kernels.cross_entropy import cross_entropy
from regard.training.distributed import Group
from regard.training.guided import alignment_loss
from regard.training.train_config import TrainConfig


def add_gradients(
    model: Callable[..., ModelOutput], parts: Iterable[Batch | TextBatch], config: TrainConfig, *, seed: int, count: int
) -> float:
    """Add to each parameter's gradient what these parts of a step give, and return their share of its loss.

    The step has `count` target tokens in all, of all ranks; what is dropped out depends on `seed` alone.
    """
    torch.manual_seed(seed)
    total = 0.0
    for part in parts:
        loss = batch_loss(model, part, config) / count
        loss.backward()
        total += loss.item()
    return total


def batch_loss(model: Callable[..., ModelOutput], batch: Batch | TextBatch, config: TrainConfig) -> Tensor:
    """`smoothed_loss` of what the model writes, by the precision that is set, and `alignment_loss` of a guided head."""
    guide = batch.guide if isinstance(batch, Batch) else None
    asked = {} if guide is None else {"read": "cross"}
    with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
        output = model(*batch.arguments, **asked)
    loss = smoothed_loss(output.logits, batch, config.label_smoothing)
    return loss if guide is None else loss + config.guided_alignment * alignment_loss(output.attention, guide)


def smoothed_loss(logits: Tensor, batch: Batch | TextBatch, label_smoothing: float) -> Tensor:
    """Cross-entropy summed over the target tokens; what is IGNORED has no part in it."""
    return cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore=IGNORED, label_smoothing=label_smoothing)


def dev_loss(model: nn.Module, dev: Any, config: TrainConfig, group: Group) -> float:
    """The loss on dev, in batches no larger than a step's: it needs no more memory than the step.

    Each rank of `group` computes its share of them.
    """
    tokens = min(config.batch_tokens, BATCH_TOKENS)
    found = likelihood(model, dev, batch_tokens=tokens, device=group.device, rank=group.rank, size=group.size)
    log_prob, count = group.sum(found.log_probs.sum(), found.token_counts.sum())
    return -float(log_prob / count)
