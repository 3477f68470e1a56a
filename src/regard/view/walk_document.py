"""The numbers of the walks through attention as one JSON document."""

import math
from typing import Any

import torch
from torch import Tensor

from regard.view.steps import (
    EXAMPLE_TARGET,
    causal_step,
    cross_step,
    draw_parameters,
    embed,
    multi_head_step,
    simple_step,
    trainable_step,
)


def self_attention_document(text: str | None) -> dict[str, Any]:
    """All that `walk_through` prints: tables by name below each step. Hidden scores, which are −∞, are null."""
    tokens, inputs = embed(text)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        parameters = draw_parameters()
        steps = {
            "simple": simple_step(inputs),
            "trainable": trainable_step(inputs, parameters),
            "causal": causal_step(inputs, parameters),
            "multi_head": multi_head_step(inputs, parameters),
        }
    return {
        "tokens": tokens,
        "inputs": _numbers(inputs),
        "parameters": _tables(parameters),
        **{name: _tables(step) for name, step in steps.items()},
    }


def cross_attention_document(texts: tuple[str, str] | None) -> dict[str, Any]:
    """All that `walk_across` prints: tokens, inputs, parameters and tables by name."""
    source, target = texts or (None, " ".join(EXAMPLE_TARGET))
    (keys, source_inputs), (tokens, target_inputs) = embed(source, "source"), embed(target, "target")
    with torch.no_grad():
        parameters = draw_parameters()
        step = cross_step(target_inputs, source_inputs, parameters)
    first = {name: getattr(parameters, name)[:, : step.key.shape[1]] for name in ("query", "key", "value")}
    return {
        "source": {"tokens": keys, "inputs": _numbers(source_inputs)},
        "target": {"tokens": tokens, "inputs": _numbers(target_inputs)},
        "parameters": {name: _numbers(table) for name, table in first.items()},
        "cross": _tables(step),
    }


def _tables(step: Any) -> dict[str, Any]:
    return {name: _numbers(table) for name, table in step._asdict().items()}


def _numbers(table: Tensor) -> Any:
    if table.ndim:
        return [_numbers(row) for row in table]
    # the shortest decimals that give this float32 again
    number = float(str(table.numpy()))
    return number if math.isfinite(number) else None
