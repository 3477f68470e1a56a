"""What readings must hold, from rows that the witness saw: weights and token ids by real position."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from benchmarks import witness, written
from benchmarks.judging import Ids, Place, Truth
from benchmarks.zoo.architecture import Architecture, Inputs

# [item, head, query, key], or [head, query, key] of each item, where pictures differ in size
Weights = Tensor | list[Tensor]


def _text(architecture: Architecture, ids: Tensor, mask: Tensor | None = None) -> Ids:
    """The ids of real positions; -1 where a position holds a patch of a picture or a frame."""
    found = (ids if mask is None else ids[mask.bool()]).tolist()
    return [-1 if token == architecture.medium_id else token for token in found]


def _source(architecture: Architecture, item: int, num_keys: int) -> Ids:
    inputs = architecture.prompt()
    if "input_ids" not in inputs or not architecture.is_pair:
        return [-1] * num_keys
    return list(inputs["input_ids"][item][inputs["attention_mask"][item].bool()].tolist())


def of_written(
    architecture: Architecture, sequences: Tensor, rows: Sequence[written.Rows], *, names: Tensor | None = None
) -> list[Truth]:
    """The truths of returned sequences; `names` are their ids where they are not all known."""
    truths = []
    sequences, names = (None if ids is None else written.with_picture(architecture, ids) for ids in (sequences, names))
    masks = written.prompt_masks(architecture, len(sequences))
    is_translator = architecture.is_pair
    start = written.prompt_length(architecture)
    copies = max(1, len(sequences) // len(next(iter(architecture.prompt().values()))))
    counts = written.num_written(architecture, sequences)
    named = sequences if names is None else names
    for item, (weights, count) in enumerate(zip(rows, counts, strict=True)):
        mask = torch.ones(1) if is_translator else masks[item]
        mask = torch.cat([mask.bool(), torch.ones(count, dtype=torch.bool)])
        ids = _text(architecture, named[item, : start + count], mask)
        first = len(ids) - count
        truth = Truth(weights, {}, {})
        for kind, layer in weights:
            truth.queries[kind], truth.written[kind] = ids[first - 1 : -1], ids[first:]
            truth.positions[kind] = list(range(first - 1, first - 1 + count))
            keys = weights[kind, layer].shape[-1]
            truth.keys[kind] = _source(architecture, item // copies, keys) if kind == "cross" else ids[:-1]
        truths.append(truth)
    return truths


def _in_full(architecture: Architecture, inputs: Inputs) -> Inputs:
    """With the positions that the model puts before its text."""
    fill = {"input_ids": -1, "attention_mask": 1} if architecture.before_text else {}
    return inputs | {name: written.with_picture(architecture, inputs[name], fill=fill[name]) for name in fill}


def without_padding(architecture: Architecture, inputs: Inputs, kind: str, whole: Weights, item: int) -> Tensor:
    """The truth [head, query, key] of an item at real positions alone."""
    inputs, weights = _in_full(architecture, inputs), whole[item]
    mask = inputs.get("attention_mask")
    own = inputs.get("decoder_attention_mask") if architecture.is_pair else mask
    source = mask if architecture.is_pair else None
    sides = {"decoder": (own, own), "encoder": (mask, mask), "cross": (own, source)}.get(kind, (None, None))
    # sound is shorter behind its convolutions: what nobody sees is padding
    seen = weights.amax((0, 1)) > 0
    real = [torch.ones(count, dtype=torch.bool) for count in weights.shape[1:]]
    for side, given in enumerate(sides):
        if given is not None and given.dim() == 2 and given.shape[1] == len(real[side]):
            real[side] = given[item].bool()
        elif given is not None and given.dim() == 2 and (side or kind == "encoder"):
            real[side] = seen
    return weights[:, real[0]][..., real[1]]


def by_place(calls: Sequence[witness.Call]) -> dict[Place, Weights]:
    """Of each layer the weights by item; the rows of steps on a cache below those before them."""
    found: dict[Place, list[witness.Call]] = {}
    for call in calls:
        own = found.setdefault((call.kind, call.layer), [])
        if not (own and witness.same(call, own[-1])):
            own.append(call)
    joined = {place: _joined(own) for place, own in found.items()}
    for (kind, layer), whole in joined.items():
        if isinstance(whole, list):
            own = (each for (of, _), each in joined.items() if of == kind)
            joined[kind, layer] = list(_pictures(whole, [len(part[0]) for part in min(own, key=len)]))
    return joined


def _pictures(windows: list[Tensor], sizes: Sequence[int]) -> Iterator[Tensor]:
    """The windows of each picture, which see themselves alone, as one table."""
    left = iter(windows)
    for size in sizes:
        own = [next(left)]
        while sum(part.shape[1] for part in own) < size:
            own.append(next(left))
        yield _blocks(own)


def _blocks(parts: Iterable[Tensor]) -> Tensor:
    """Parts [head, query, key] that see themselves alone, as one table."""
    return torch.stack([torch.block_diag(*heads) for heads in zip(*parts, strict=True)])


def _joined(calls: list[witness.Call]) -> Weights:
    parts = [witness.truth(call) for call in calls]
    if len(parts) == 1:
        return parts[0]
    if calls[0].forward == calls[-1].forward:
        # a picture each
        return [part[0] for part in parts]
    total = sum(part.shape[2] for part in parts)
    weights, end = parts[0].new_zeros(*parts[0].shape[:2], total, total), 0
    for part in parts:
        rows, keys = part.shape[2:]
        end += rows
        # a sliding cache keeps few keys: the others get 0
        weights[:, :, end - rows : end, end - keys : end] = part
    return weights


def of_forward(architecture: Architecture, given: Inputs, found: dict[Place, Weights]) -> list[Truth]:
    """The truths of a batch that was fed these inputs, by the weights of all its layers."""
    inputs = _in_full(architecture, given)
    truths, num_items = [], len(next(iter(given.values())))
    for item in range(num_items):
        truth = Truth({}, {}, {})
        for (kind, layer), whole in found.items():
            if layer not in architecture.layers.get(kind, ()):
                continue
            # a picture's tiles are parts of one, where they are told apart
            is_whole = isinstance(whole, list) or len(whole) == num_items
            own = whole if is_whole else [_blocks(parts) for parts in whole.chunk(num_items)]
            weights = without_padding(architecture, given, kind, own, item)
            truth.weights[kind, layer] = weights
            prefixes = {"decoder": ("decoder_", "decoder_"), "cross": ("decoder_", "")}.get(kind, ("", ""))
            if not architecture.is_pair:
                prefixes = ("", "")
            for side, prefix, count in zip((truth.queries, truth.keys), prefixes, weights.shape[1:], strict=True):
                ids, mask = inputs.get(f"{prefix}input_ids"), inputs.get(f"{prefix}attention_mask")
                # a text looks at a picture
                of_picture = kind == "cross" and side is truth.keys and not architecture.is_pair
                heard = kind == "encoder" and "input_features" in given
                if ids is None or of_picture or heard or kind in ("vision", "queries", "resampler"):
                    side[kind] = [-1] * count
                else:
                    real = mask[item] if mask is not None and mask.dim() == 2 else None
                    side[kind] = _text(architecture, ids[item], real)
        truths.append(truth)
    return truths


def eager_for(architecture: Architecture, implementation: str) -> str:
    """The implementation whose own calls are the truth."""
    # Falcon's two implementations of ALiBi differ, and Kosmos-2's where older versions take its queries for text
    return implementation if architecture.model.startswith(("Falcon", "Kosmos2")) else "eager"
