"""Where the tokens of a sequence stand in an attention call, and at which positions: padding has none."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.reading.call import AttentionCall, Visibility
from regard.reading.parts import Part, placeholders
from regard.reading.runs import Run


@dataclass(frozen=True)
class Layout:
    """The queries and keys of a call that are tokens of an item, and the positions of the first of each.

    Where padding stands between tokens, `call` is the call without it, of that item alone; else None.
    """

    item: int
    queries: slice
    keys: slice
    query_position: int
    key_position: int
    call: AttentionCall | None = None


def layouts_of(
    run: Run, part: Part | None, kind: str, call: AttentionCall, before: tuple[int, int]
) -> dict[int, Layout] | str:
    """Where the tokens of each item stand that a call of this kind, made for `part`, is about, or why none is known.

    `before` counts the queries and keys of calls of the same layer that saw other parts of the input.
    """
    patches = _patches(run, part, call) if kind == "vision" else None
    if patches is not None:
        ends = patches.cumsum(0)
        item = int((ends <= before[0]).sum())
        if int(ends[-1]) != call.total or before[0] + call.num_queries > int(ends[item]):
            return "its pictures have other patches than the text has places for, and no sequence is known to be theirs"
        run.batch_size, start = len(patches), int(ends[item] - patches[item])
        return {item: _layout(run, part, kind, call, 0, (before[0] - start, before[1] - start))}
    if call.context.shape[0] != run.batch_size:
        return (
            f"it attends within {call.context.shape[0]} windows or parts, not over the {run.batch_size} sequences of "
            "the batch"
        )
    return {item: _layout(run, part, kind, call, item, before) for item in range(run.batch_size)}


def _patches(run: Run, part: Part | None, call: AttentionCall) -> Int[Tensor, " item"] | None:
    """How many patches the pictures of each sequence have, in models that attend within one picture at a time.

    Qwen2-VL is one: each of its image tokens stands for a square of patches. None for other models.
    """
    config = getattr(getattr(part, "module", None), "config", None)
    merged = getattr(getattr(config, "vision_config", config), "spatial_merge_size", None)
    tokens, modules = run.tokens, [] if run.own is None else [each.module for each in run.own.chain]
    # `generate` runs the vision model before the text
    generation = run.generation if tokens is None else None
    if generation is not None:
        tokens, modules = generation.ids, [generation.model]
    if tokens is None or len(call.context) != 1 or call.total is None or not isinstance(merged, int):
        return None
    ids = [id for module in modules for id in placeholders(module)]
    counts = torch.isin(tokens, torch.tensor(ids, dtype=tokens.dtype)).sum(1) * merged**2
    # beams and samples of one prompt follow each other
    copies = 1 if generation is None else max(1, call.total // max(1, int(counts.sum())))
    # one sequence alone has all of them, also where its text is fed in parts
    return counts.repeat_interleave(copies) if len(tokens) * copies > 1 else torch.tensor([call.total])


def _layout(run: Run, part: Part | None, kind: str, call: AttentionCall, item: int, before: tuple[int, int]) -> Layout:
    if kind in ("decoder", "cross") and run.length == call.num_queries:
        real = run.real(item)
        query_real, query_position = real[run.start :], int(real[: run.start].sum())
    else:
        query_real, query_position = torch.ones(call.num_queries, dtype=torch.bool), before[0]
    if kind == "decoder":
        real = run.real(item)
        base = max(0, len(real) - call.num_keys)
        key_real, key_position = real[base:], int(real[:base].sum())
        # a static cache has room for more
        key_real = torch.cat([key_real, key_real.new_zeros(call.num_keys - len(key_real))])
    else:
        key_real, key_position = _real_keys(part, call, item), before[1]
        if kind != "cross" and call.num_queries == call.num_keys:
            query_real = key_real
    queries, keys = _range(query_real), _range(key_real)
    if queries is not None and keys is not None:
        return Layout(item, queries, keys, query_position, key_position)
    compact = _compact(call, item, query_real.nonzero()[:, 0], key_real.nonzero()[:, 0])
    queries, keys = slice(0, compact.num_queries), slice(0, compact.num_keys)
    return Layout(item, queries, keys, query_position, key_position, call=compact)


def _real_keys(part: Part | None, call: AttentionCall, item: int) -> Bool[Tensor, " key"]:
    """Which keys of an encoder, or of what a decoder looks at, are tokens."""
    if call.padding is not None:
        return call.padding[item].cpu()
    everything = torch.ones(call.num_keys, dtype=torch.bool)
    if part is None or part.mask is None:
        return everything
    mask = part.mask[min(item * len(part.mask) // len(call.context), len(part.mask) - 1)]
    if len(mask) == call.num_keys:
        return mask
    if mask.all() or part.modality == "vision":
        return everything
    # sound is shorter behind its convolutions, and so is its mask: what stands at an end and nobody sees is padding
    seen = _seen(call, item)
    return everything if seen is None or _range(seen) is None else seen


def _seen(call: AttentionCall, item: int) -> Bool[Tensor, " key"] | None:
    """Which keys any query of an item sees, by its mask; None where there is none."""
    visibility = call.visibilities[0]
    if visibility.mask is not None:
        mask = visibility.mask[(None,) * (4 - visibility.mask.dim())]
        own = mask[item if len(mask) > 1 else 0]
        seen = own if own.dtype == torch.bool else ~Visibility.hides(own)
        return seen.flatten(0, -2).any(0).expand(call.num_keys).cpu()
    if visibility.mask_mod is None:
        return None
    found = torch.zeros(call.num_keys, dtype=torch.bool, device=call.value.device)
    for queries in torch.arange(call.num_queries, device=found.device).split(256):
        scores = torch.zeros(1, len(queries), call.num_keys, device=found.device, dtype=torch.float32)
        scores = visibility.apply(scores, item=item, heads=slice(0, 1), queries=queries, first_key=0)
        found |= (scores > -torch.inf)[0].any(0)
    return found.cpu()


def _range(real: Bool[Tensor, " slot"]) -> slice | None:
    """The slots that are tokens, if no padding stands between them."""
    places = real.nonzero()[:, 0]
    if not len(places):
        return slice(0, 0)
    start, stop = int(places[0]), int(places[-1]) + 1
    return slice(start, stop) if stop - start == len(places) else None


def _compact(
    call: AttentionCall, item: int, queries: Int[Tensor, " query"], keys: Int[Tensor, " key"]
) -> AttentionCall:
    """A call of one item without the queries and keys between its tokens."""
    queries, keys = queries.to(call.value.device), keys.to(call.value.device)

    def picked(tensor: Tensor, slots: Tensor) -> Tensor:
        return tensor[item : item + 1].index_select(2, slots)

    own = call.weights is not None
    weights = None if call.weights is None else picked(call.weights, queries).index_select(3, keys)
    return replace(
        call,
        query=weights if own else picked(call.query, queries),
        key=weights if own else picked(call.key, keys),
        value=picked(call.value, keys),
        context=picked(call.context, queries),
        weights=weights,
        visibilities=tuple(_picked(each, call, item, queries, keys) for each in call.visibilities),
        padding=None,
    )


def _picked(visibility: Visibility, call: AttentionCall, item: int, queries: Tensor, keys: Tensor) -> Visibility:
    """The same visibility by one mask over these queries and keys."""
    mask, bias = _item(visibility.mask, item), _item(visibility.bias, item)
    heads = 1 if mask is None else mask.shape[1]
    added = torch.zeros(heads, len(queries), call.num_keys, device=keys.device, dtype=torch.float32)
    without = replace(visibility, mask=mask, bias=None, score_mod=None)
    place = 0 if visibility.mask_mod is None else item
    added = without.apply(added, item=place, heads=slice(0, heads), queries=queries, first_key=0)
    if bias is not None:
        bias = bias.expand(*bias.shape[:2], call.num_queries, call.num_keys)
        bias = bias.index_select(2, queries).index_select(3, keys)
    score_mod = visibility.score_mod

    def moved(score: Tensor, _: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert score_mod is not None
        return score_mod(score, torch.tensor(item, device=score.device), head, queries[query], keys[key])

    seen = added.index_select(2, keys)[None]
    return Visibility(mask=seen, bias=bias, score_mod=None if score_mod is None else moved)


def _item(tensor: Tensor | None, item: int) -> Tensor | None:
    if tensor is None:
        return None
    tensor = tensor[(None,) * (4 - tensor.dim())]
    return tensor[item : item + 1] if len(tensor) > 1 else tensor
