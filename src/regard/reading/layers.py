"""Which kind of attention a call is and which layer, call by call: from the module tree and the call's own shapes."""

import re
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from regard.reading.call import AttentionCall, exact_weights
from regard.reading.parts import Part
from regard.reading.runs import LayerKey

Place = tuple[str, int]
# the last pairs of neighbours that are asked whether a query sees the key after it
NEIGHBOURS = 8


def kind_of(call: AttentionCall, model: Any, part: Part | None, *, is_writing: bool) -> str:
    """`cross` where queries and keys are of different sequences, else `decoder` where no query sees a later key.

    `resampler` is what gathers a picture into a few queries (Q-Former, Perceiver), `queries` what a Q-Former's queries
    see of each other; what is none of these is `vision` where it looks at a picture, else `encoder`.
    """
    path = call.path.lower()
    side = re.search(r"(?:^|\.)(decoder|encoder)(?:\.|$)", path)
    is_cross = crosses(call)
    if re.search(r"q_?former", path) and not is_cross and call.num_queries == call.num_keys:
        return "queries"
    if re.search(r"q_?former|perceiver|resampler|abstractor|image_to_text", path):
        return "resampler"
    if is_cross:
        # one learned query, or a few, may look at all patches
        return "resampler" if side is None and part is not None and part.modality == "vision" else "cross"
    if not hasattr(model, "config") and call.num_queries != call.num_keys and call.refused is None:
        return "cross"
    if re.search(r"vision|visual|image", path):
        return "vision"
    if part is not None and part.modality == "vision":
        looks = next(each.module for each in part.chain if each.pixels is not None)
        # what finds objects has a decoder beside its encoder
        return side[1] if side is not None and hasattr(looks, "decoder") else "vision"
    if part is not None and part.modality == "audio":
        return "encoder"
    if side is not None and any(_is_pair(each.module) for each in ([] if part is None else part.chain)):
        return side[1]
    if side is not None and _is_pair(model):
        return side[1]
    if is_writing or (part is not None and part.cache is not None) or _shows_pictures(model):
        return "decoder"
    causal = call.causal
    if causal is None:
        causal = getattr(call.module, "is_decoder", None)
    if not isinstance(causal, bool) and call.refused is None:
        sees_later = _sees_later(call, None if part is None else part.mask)
        causal = _writes(model) if sees_later is None else not sees_later
    return "decoder" if causal else "encoder"


def crosses(call: AttentionCall) -> bool:
    """Whether the keys are of another sequence than the queries, by what the call or its module's name says."""
    return call.cross or re.search(r"cross_?att|encoder_attn|encdec|enc_dec", call.path.lower()) is not None


def _is_pair(model: Any) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _shows_pictures(model: Any) -> bool:
    """Whether a model writes text about pictures: its prompt may be seen both ways, its answer is not."""
    return hasattr(getattr(model, "config", None), "vision_config") and _writes(model)


def _writes(model: Any) -> bool:
    return getattr(model, "can_generate", lambda: False)()


def _sees_later(call: AttentionCall, mask: Bool[Tensor, "batch slot"] | None) -> bool | None:
    """Whether a token sees the one after it, at the end: a prefix may be seen both ways; None where each is alone."""
    size, count = len(call.context), call.num_queries
    if count != call.num_keys:
        return True
    # padding, which sees nothing, may have been given weights all the same
    real = mask if mask is not None and mask.shape == (size, count) else torch.ones(size, count, dtype=torch.bool)
    is_shown = False
    for item, pairs in enumerate(real[:, :-1] & real[:, 1:]):
        queries = pairs.nonzero()[-NEIGHBOURS:, 0].to(call.value.device)
        weights, _ = exact_weights(call, call.visibilities[0], item=item, queries=queries)
        if (weights[:, torch.arange(len(queries)), queries + 1] > 0).any():
            return True
        is_shown |= len(queries) > 0
    return False if is_shown else None


def is_ahead(call: AttentionCall, count: int) -> bool:
    """Whether the first `count` positions are a block that sees itself both ways, such as a picture before its text."""
    if not 0 < count < call.num_keys or call.num_queries != call.num_keys:
        return False
    first = torch.zeros(1, dtype=torch.long, device=call.value.device)
    for item in range(len(call.context)):
        weights, _ = exact_weights(call, call.visibilities[0], item=item, queries=first)
        seen = (weights > 0).any(0)[0]
        if not seen[:count].all() or seen[count:].any():
            return False
    return True


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


def name_unseen(model: Any, wanted: Collection[int] | None, read: Collection[Place], refused: dict[Place, str]) -> None:
    """Enter the layers that never attended into what was refused, as far as the model's configuration counts them."""
    config = getattr(model, "config", None)
    if config is None:
        return
    known = {*read, *refused}
    try:
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
    except ValueError:
        # several texts in one model, such as MusicGen's, and nothing says whose layers are meant
        return
    if getattr(config, "is_encoder_decoder", False):
        counts = {
            "encoder": _count(config, "encoder_layers", "num_encoder_layers", "num_layers", "num_hidden_layers"),
            "decoder": _count(config, "decoder_layers", "num_decoder_layers", "num_layers", "num_hidden_layers"),
        }
        # only where nothing is known of a side: counts of parts that several families put together differ
        counts = {kind: count for kind, count in counts.items() if all(name != kind for name, _ in known)}
        if any(kind == "vision" for kind, _ in known):
            counts.pop("encoder", None)
    else:
        kinds = {kind for kind, _ in known} & {"decoder", "encoder"}
        if len(kinds) > 1 or (not kinds and any(kind == "vision" for kind, _ in known)):
            return
        counts = {next(iter(kinds), "decoder" if _writes(model) else "encoder"): _count(text, "num_hidden_layers")}
    sorts = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    cross = {number for kind, number in known if kind == "cross"}
    for kind, count in counts.items():
        for number in range(count):
            # a layer of a decoder may look at a picture alone
            is_cross = kind == "decoder" and number in cross and not getattr(config, "is_encoder_decoder", False)
            if (kind, number) not in known and not is_cross and (wanted is None or number in wanted):
                sort = f" ({sorts[number]})" if number < len(sorts) else ""
                refused[kind, number] = f"it{sort} did not attend by a softmax over keys that could be seen"


def _count(config: Any, *names: str) -> int:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), 0)
