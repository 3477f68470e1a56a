"""The rows by which written tokens were chosen, in two ways: from a captured run of `generate`, and teacher-forced.

The row of a written token is the query whose logits chose it; positions count from the first real token, so
padding is gone from queries and keys.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import witness
from benchmarks.zoo import Architecture
from benchmarks.zoo.architecture import END
from benchmarks.zoo.inputs import picked

# inputs by position and what they say of written tokens; None where that is what they say of the last of the prompt
CONTINUED = {
    "token_type_ids": None,
    "mm_token_type_ids": 0,
    "image_embeds_position_mask": 0,
    "cross_attention_mask": None,
}
Rows = dict[tuple[str, int], Tensor]


def num_written(architecture: Architecture, sequences: Tensor) -> list[int]:
    """How many tokens each returned sequence [item, position] has after its prompt, its end included."""
    written = sequences[:, prompt_length(architecture) :]
    return [row.tolist().index(END) + 1 if END in row else len(row) for row in written]


def from_run(
    architecture: Architecture,
    calls: Sequence[witness.Call],
    sequences: Tensor,
    beam_indices: Tensor | None = None,
    *,
    before: int = 0,
) -> list[Rows]:
    """For each returned sequence, by kind and layer, [head, row, key] in float64, as the run with a cache had them.

    `calls` are those of one `generate`; `beam_indices` [item, row] is its output where it searched with beams;
    `before` counts the forwards before the one that chose the first token. A sliding cache keeps few keys: the others
    get 0. Not for static caches.
    """
    sequences = with_picture(architecture, sequences)
    found = {(call.forward, call.kind, call.layer): witness.truth(call)[:, :, -1] for call in calls if call.forward}
    masks = prompt_masks(architecture, len(sequences))
    readings = []
    for item, (count, mask) in enumerate(zip(num_written(architecture, sequences), masks, strict=True)):
        rows: Rows = {}
        for kind, layer in dict.fromkeys((kind, layer) for _, kind, layer in found):
            if kind not in architecture.layers or kind not in ("decoder", "cross"):
                continue
            sources = range(count) if beam_indices is None else beam_indices[item].tolist()
            # a layer that finds nothing in the cache may be left out of some steps
            if any((before + step + 1, kind, layer) not in found for step in range(count)):
                continue
            steps = [
                found[before + step + 1, kind, layer][item if beam_indices is None else sources[step]]
                for step in range(count)
            ]
            num_keys = steps[-1].shape[-1] if kind == "cross" else prompt_length(architecture) + count - 1
            weights = steps[0].new_zeros(len(steps[0]), count, num_keys)
            for step, row in enumerate(steps):
                end = num_keys if kind == "cross" else num_keys - count + 1 + step
                # a static cache has room behind, which nobody sees
                row = row[:, :end]
                weights[:, step, end - row.shape[-1] : end] = row
            rows[kind, layer] = weights[..., _real(architecture, kind, mask, weights)]
        readings.append(rows)
    return readings


@torch.no_grad()
def teacher_forced(
    architecture: Architecture, sequences: Tensor, *, implementation: str = "eager", model: Any = None
) -> list[Rows]:
    """The same rows from one plain float32 forward, without a cache, over prompt and returned sequences.

    `model` is run where the rows are not those of `architecture.build(implementation)`.
    """
    model = architecture.build(implementation) if model is None else model
    prompt = architecture.prompt()
    copies = len(sequences) // len(next(iter(prompt.values())))
    inputs = picked(prompt, [item // copies for item in range(len(sequences))])
    counts = num_written(architecture, with_picture(architecture, sequences))
    start = prompt_length(architecture)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = sequences[:, :-1]
    else:
        # ended sequences are followed by padding: no earlier row sees it
        prompted = inputs["attention_mask"].shape[1]
        ones = inputs["attention_mask"].new_ones(len(sequences), sequences.shape[1] - prompted)
        inputs |= {"input_ids": sequences, "attention_mask": torch.cat([inputs["attention_mask"], ones], dim=1)}
        inputs |= {name: _continued(name, inputs[name], len(ones[0])) for name in CONTINUED if name in inputs}
        # positions in a picture are the model's own
        if "position_ids" in arguments(model) and "image_grid_thw" not in inputs:
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    calls = witness.capture(model, lambda: model(**inputs, use_cache=False), kinds=architecture.kinds)
    masks = prompt_masks(architecture, len(sequences))
    readings: list[Rows] = [{} for _ in sequences]
    for call in calls:
        if call.kind not in architecture.layers or call.kind not in ("decoder", "cross"):
            continue
        weights = witness.truth(call)
        for item, count in enumerate(counts):
            num_keys = weights.shape[-1] if call.kind == "cross" else start + count - 1
            rows = weights[item, :, start - 1 : start - 1 + count, :num_keys]
            readings[item][call.kind, call.layer] = rows[..., _real(architecture, call.kind, masks[item], rows)]
    return readings


def _continued(name: str, given: Tensor, count: int) -> Tensor:
    """What is said of each position of a prompt, and then of `count` written ones."""
    last = given[:, -1:] if CONTINUED[name] is None else torch.full_like(given[:, -1:], CONTINUED[name])
    return torch.cat([given, *[last] * count], dim=1)


def prompt_masks(architecture: Architecture, num_sequences: int) -> Tensor:
    """Which positions of each returned sequence's prompt or source are real, [item, position]."""
    prompt = architecture.prompt()
    mask = prompt.get("attention_mask", torch.ones(len(next(iter(prompt.values()))), 1, dtype=torch.long))
    mask = with_picture(architecture, mask, fill=1)
    return mask.bool().repeat_interleave(num_sequences // len(mask), dim=0)


def with_picture(architecture: Architecture, sequences: Tensor, *, fill: int = -1) -> Tensor:
    """What is known by position of the text, with the positions that the model puts before it."""
    return functional.pad(sequences, (architecture.before_text, 0), value=fill)


def prompt_length(architecture: Architecture) -> int:
    """Of the sequence that is written on: encoder–decoders write on their start token."""
    return 1 if architecture.is_pair else architecture.before_text + architecture.prompt()["input_ids"].shape[1]


def arguments(model: Any) -> Sequence[str]:
    return list(inspect.signature(model.forward).parameters)


def _real(architecture: Architecture, kind: str, mask: Tensor, weights: Tensor) -> Tensor:
    """Which keys of an item's weights [head, row, key] are no padding."""
    num_keys = weights.shape[-1]
    if kind == "decoder" and architecture.is_pair:
        # a translator's own tokens have no padding before them
        return torch.ones(num_keys, dtype=torch.bool)
    if kind == "cross" and not architecture.is_pair:
        # patches of tiles that a picture has not stay
        return torch.ones(num_keys, dtype=torch.bool)
    if kind == "cross" and len(mask) != num_keys:
        # sound is shorter behind its convolutions, which keep its mask to themselves: what nobody sees is padding
        return weights.amax((0, 1)) > 0
    return torch.cat([mask, mask.new_ones(num_keys - len(mask))])
