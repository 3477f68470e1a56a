"""What an attention call is of a model: its kind, and the number of its layer."""

import re
from typing import Any

import torch

from regard.reading import assemble
from regard.reading.call import AttentionCall, exact_weights
from regard.reading.runs import Forward, LayerKey


def kind_of(call: AttentionCall, model: Any, forward: Forward) -> str:
    """`cross` where queries and keys are of different sequences, else `decoder` where no query sees a later key.

    What is neither is `vision` where it looks at a picture, else `encoder`.
    """
    path, config = call.path.lower(), getattr(model, "config", None)
    if call.hints.get("cross") or re.search(r"cross_?att|encoder_attn|encdec|enc_dec", path):
        return "cross"
    if config is None and call.num_queries != call.num_keys and call.refused is None:
        return "cross"
    side = re.search(r"(?:^|\.)(decoder|encoder)(?:\.|$)", path)
    if getattr(config, "is_encoder_decoder", False) and side is not None:
        return side[1]
    if re.search(r"vision|visual|image", path) or getattr(model, "main_input_name", "") == "pixel_values":
        return "vision"
    causal = call.hints.get("causal")
    causal = getattr(call.module, "is_decoder", None) if causal is None else causal
    if causal is None and call.refused is None:
        causal = _first_token_sees_no_other(call, forward)
    return "decoder" if causal else "encoder"


def _first_token_sees_no_other(call: AttentionCall, forward: Forward) -> bool:
    frame = assemble.frame(forward, "encoder", call, 0)
    first = torch.tensor([frame.queries.start], device=call.value.device)
    weights, _ = exact_weights(call, call.visibilities[0], item=0, queries=first)
    return call.num_keys > 1 and not bool((weights[..., frame.keys.start + 1 :] > 0).any())


def number_of(key: LayerKey, module: Any, paths: list[str], numbers: dict[LayerKey, int]) -> int:
    """The model's own number of a layer, or, where it has none or gives it twice, how many came before it.

    `paths` are the places of the module in the model: one that stands in several is a layer in each.
    """
    kind, _, count = key
    taken = {number for (other, *_), number in numbers.items() if other == kind}
    own = getattr(module, "layer_idx", None)
    if not isinstance(own, int) or own < 0 or len(paths) > 1:
        place = paths[min(count, len(paths) - 1)]
        own = next((int(part) for part in place.split(".") if part.isdigit()), None)
    number = len(taken) if own is None or own in taken else own
    while number in taken:
        number += 1
    return number


def same_attention(first: AttentionCall, second: AttentionCall) -> bool:
    """Whether two calls of a module ask with the same queries for the same keys, and differ in values only."""
    if first.path != second.path or first.weights is not None or first.refused or second.refused:
        return False
    return all(
        one.shape == other.shape and (one.data_ptr() == other.data_ptr() or torch.equal(one, other))
        for one, other in ((first.query, second.query), (first.key, second.key))
    )
