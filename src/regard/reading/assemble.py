"""From what single calls gave to the reading of one sequence: padding taken away, steps and beams put together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError
from regard.reading.call import AttentionCall
from regard.reading.compute.statistics import ROLLOUT, STATISTICS
from regard.reading.compute.verify import worst
from regard.reading.labels import sequence, tokens
from regard.reading.record import Check, Reading, Sequence, Top
from regard.reading.runs import Forward, Generation, LayerKey, Piece, Step, follow, path_of
from regard.reading.unseen import name_unseen

if TYPE_CHECKING:
    from regard.reading.options import Rows
    from regard.reading.watch import Watch


@dataclass(frozen=True)
class Frame:
    """The queries and keys of a call that are tokens of an item, and the positions of the first of each."""

    queries: slice
    keys: slice
    query_position: int
    key_position: int


def frame(forward: Forward, kind: str, call: AttentionCall, item: int) -> Frame:
    """Where an item's tokens stand in a call."""
    size = forward.batch_size
    if kind == "decoder":
        total = forward.start + call.num_queries
        base = max(0, total - call.num_keys)
        low, high = _token_range(forward.mask, item, total, call, batch_size=size, needs=total)
        queries = slice(max(0, low - forward.start), max(0, min(call.num_queries, high - forward.start)))
        keys = slice(max(0, low - base), max(0, min(call.num_keys, high - base)))
        return Frame(queries, keys, forward.start + queries.start - low, base + keys.start - low)
    source_mask = forward.mask if forward.source_mask is None else forward.source_mask
    low, high = _token_range(source_mask, item, call.num_keys, call, batch_size=size)
    keys = slice(low, high)
    if kind != "cross":
        return Frame(keys, keys, 0, 0)
    total = forward.start + call.num_queries
    low, high = _token_range(forward.mask, item, total, None, batch_size=size, needs=total)
    queries = slice(max(0, low - forward.start), max(0, min(call.num_queries, high - forward.start)))
    return Frame(queries, keys, forward.start + queries.start - low, 0)


def _token_range(
    mask: Tensor | None,
    item: int,
    length: int,
    call: AttentionCall | None,
    *,
    batch_size: int,
    needs: int | None = None,
) -> tuple[int, int]:
    """From the first to after the last slot that is a token: by the mask, or else by what no query sees."""
    if mask is not None and (mask.shape[1] == length or (needs is not None and mask.shape[1] >= needs)):
        seen = mask[item * len(mask) // batch_size, :length]
    elif call is not None and call.num_keys == length and (found := call.visibilities[0].seen(call, item)) is not None:
        seen = found.cpu()
    else:
        return 0, length
    places = seen.nonzero()
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def unflattened(call: AttentionCall, batch_size: int) -> AttentionCall:
    """A call whose batch and heads are one axis, with two."""

    def parted(tensor: Tensor) -> Tensor:
        return tensor[0].unflatten(0, (batch_size, -1)) if tensor.shape[1] % batch_size == 0 else tensor

    parts = {name: parted(getattr(call, name)) for name in ("query", "key", "value", "context", "weights")}
    return replace(call, **parts)


def kept_slots(rows: "Rows", forward: Forward, kind: str, frame: Frame) -> list[int]:
    """The queries of a call whose rows are to be kept, as slots."""
    slots = list(range(frame.queries.start, frame.queries.stop))
    if rows == "all" or not slots:
        return slots
    if rows == "last":
        return slots[-1:]
    is_step = forward.start > 0 and kind in ("decoder", "cross")
    if rows == "generated":
        if kind not in ("decoder", "cross"):
            return []
        if forward.generation is not None:
            # a prompt may be fed in parts, and without a cache each step runs over all of it
            return [slot for slot in slots if forward.start + slot >= forward.generation.prompt_length - 1]
        return slots if is_step else slots[-1:]
    assert not isinstance(rows, str)
    if is_step and _counts_from_end(rows):
        # which they are is known at the end only
        return slots
    wanted = set(chosen(rows, frame.query_position + len(slots)))
    return [slot for slot in slots if slot - frame.queries.start + frame.query_position in wanted]


def _counts_from_end(rows: "Rows") -> bool:
    if isinstance(rows, slice):
        return any(end is not None and end < 0 for end in (rows.start, rows.stop)) or (rows.step or 1) < 0
    return not isinstance(rows, str | int) and any(row < 0 for row in rows)


def chosen(rows: "Rows", count: int) -> list[int]:
    """Positions among `count` queries."""
    if isinstance(rows, slice):
        return sorted(range(*rows.indices(count)))
    assert not isinstance(rows, str | int)
    return sorted({row + count if row < 0 else row for row in rows if -count <= row < count})


def reading(watch: "Watch", seen: Forward | Generation, item: int) -> Reading:
    """The reading of one sequence of what was seen."""
    steps, written = _steps(seen, item)
    leaf, row, _ = steps[-1]
    parts: dict[LayerKey, list[tuple[Piece, int]]] = {}
    refused: dict[LayerKey, str] = {}
    for forward, row_then, count in _with_encoder(steps):
        for key, why in forward.refused.items():
            refused.setdefault(key, why)
        for key, pieces in forward.pieces.items():
            end = forward.start + count - forward.first(row_then)
            parts.setdefault(key, []).append((pieces[row_then], end if key[0] in ("decoder", "cross") else 1 << 62))
    layers, lengths = {}, {}
    for key in sorted(parts, key=lambda key: watch.numbers[key]):
        if key in refused:
            continue
        kind = key[0]
        try:
            layer = _Layer(kind, parts[key])
        except RegardError as error:
            refused[key] = str(error)
            continue
        if lengths.setdefault(kind, (layer.num_queries, layer.num_keys)) != (layer.num_queries, layer.num_keys):
            refused[key] = (
                f"it is {layer.num_queries} queries by {layer.num_keys} keys, where the first {kind} layer that was "
                f"read is {lengths[kind][0]} by {lengths[kind][1]}"
            )
            continue
        layers[kind, watch.numbers[key]] = layer
    rows = _rows(watch, layers, lengths, _prompt_length(seen, steps))
    why = {(kind, watch.numbers[kind, path, count]): why for (kind, path, count), why in refused.items()}
    name_unseen(watch.model, watch.layers, layers.keys(), why)
    if watch.layers is not None and not (watch.layers & {number for _, number in [*layers, *why]}):
        raise RegardError(f"none of the layers {sorted(watch.layers)} attended")
    if not layers and not why:
        raise RegardError("nothing was read: the model ran, but attends in no way that is known here")
    is_translator = bool(getattr(getattr(watch.model, "config", None), "is_encoder_decoder", False))
    own = "target" if is_translator else "text"
    sides = {
        "vision": ("image", "image"),
        "encoder": ("source", "source") if is_translator else ("text", "text"),
        "decoder": (own, own),
        "cross": (own, "source"),
    }
    sequences: dict[str, Sequence] = {}
    for kind, (queries, keys) in lengths.items():
        for name, side, count in zip(sides[kind], ("query", "key"), (queries, keys), strict=True):
            if name not in sequences or len(sequences[name].tokens) < count:
                ids = tokens(leaf, kind, side, row)[:count].tolist()
                ids += [-1] * (count - len(ids))
                ends_here = name == own and kind != "encoder" and count == (queries if side == "query" else keys)
                ids += [written] if written is not None and ends_here else []
                sequences[name] = sequence(ids, watch.wanted.tokenizer, unknown="patch " if name == "image" else "")
    return Reading(
        model=watch.name,
        sequences=sequences,
        maps={place: layer.weights(rows[place[0]]) for place, layer in layers.items()},
        checks={place: layer.check for place, layer in layers.items()},
        refused=why,
        settings={"implementation": getattr(getattr(watch.model, "config", None), "_attn_implementation", None)},
        sides={kind: sides[kind] for kind in lengths},
        kept=rows,
        tops={place: layer.top() for place, layer in layers.items() if watch.wanted.top_k is not None},
        statistics={place: layer.statistics(rows[place[0]]) for place, layer in layers.items()},
    )


def _steps(seen: Forward | Generation, item: int) -> tuple[list[Step], int | None]:
    """The runs of a sequence, and the token that was written last, which no run was fed."""
    if isinstance(seen, Forward):
        if not 0 <= item < seen.batch_size:
            raise RegardError(f"there is no item {item}; the batch has {seen.batch_size}, counted from 0")
        return path_of(seen, item), None
    if seen.sequences is None:
        raise RegardError("generate returned no sequences, so that there is none to read")
    if not 0 <= item < len(seen.sequences):
        raise RegardError(f"there is no item {item}; generate returned {len(seen.sequences)} sequences, counted from 0")
    steps = follow(seen, item)
    if not steps:
        raise RegardError(
            f"sequence {item} cannot be followed through what generate ran; read it afterwards: run the model once on "
            "the returned tokens under watching"
        )
    forward, _, count = steps[-1]
    place = forward.start + count - seen.offset
    sequence = seen.sequences[item]
    return steps, int(sequence[place]) if place < len(sequence) else None


def _with_encoder(steps: list[Step]) -> list[Step]:
    first, row, _ = steps[0]
    encoder = first.encoder
    if encoder is None or any(key[0] == "encoder" for key in first.pieces | first.refused):
        return steps
    return [(encoder, row * encoder.batch_size // first.batch_size, 1 << 62), *steps]


def _prompt_length(seen: Forward | Generation, steps: list[Step]) -> int:
    forward, row, count = steps[0]
    if isinstance(seen, Generation):
        return max(1, seen.prompt_length - forward.first(row))
    return max(1, forward.start + count - forward.first(row))


class _Layer:
    """One layer of one sequence, of the pieces that its runs gave."""

    def __init__(self, kind: str, parts: list[tuple[Piece, int]]) -> None:
        self.parts = parts
        self.num_queries = min(parts[-1][1], parts[-1][0].first_query + parts[-1][0].num_queries)
        self.num_keys = max(piece.first_key + piece.num_keys for piece, _ in parts)
        if kind == "decoder":
            # beyond its queries are tokens that were tried and thrown away
            self.num_keys = min(self.num_keys, self.num_queries)
        self.check: Check = parts[0][0].check
        for piece, _ in parts[1:]:
            self.check = worst(self.check, piece.check)

    def rows(self) -> set[int]:
        """Positions of the rows that were kept."""
        return {row for piece, end in self.parts for row in piece.rows if row < end}

    def _over(self, pick: Callable[[Piece], Tensor | None], rows: list[int]) -> np.ndarray:
        """Rows, [head, row, key or not], from the pieces that have them."""
        if self._is_whole and self.parts[0][0].rows == rows and (values := pick(self.parts[0][0])) is not None:
            return values.numpy()
        place = {row: index for index, row in enumerate(rows)}
        found: Tensor | None = None
        for piece, end in self.parts:
            values = pick(piece)
            if values is None:
                continue
            by_key = values.dim() == 3
            if found is None:
                found = torch.zeros(len(values), len(rows), *([self.num_keys] if by_key else []))
            own = [(index, place[row]) for index, row in enumerate(piece.rows) if row in place and row < end]
            if not own:
                continue
            sources, targets = (torch.tensor(each) for each in zip(*own, strict=True))
            if by_key:
                stop = min(self.num_keys, piece.first_key + piece.num_keys)
                part = values[:, sources, : stop - piece.first_key]
                found[:, targets, piece.first_key : stop] = part
            else:
                found[:, targets] = values[:, sources]
        assert found is not None
        return found.numpy()

    def weights(self, rows: list[int]) -> np.ndarray:
        return self._over(lambda piece: piece.weights, rows)

    @property
    def _is_whole(self) -> bool:
        """Whether one run gave all of it, so that nothing needs to be put together, or copied."""
        ((piece, end), *others) = self.parts
        starts_and_ends = piece.first_query == piece.first_key == 0 and piece.num_queries == self.num_queries <= end
        return not others and starts_and_ends and piece.num_keys == self.num_keys

    def top(self) -> Top:
        if self._is_whole:
            (piece, _) = self.parts[0]
            assert piece.top is not None
            return Top(*(table.numpy() for table in piece.top))
        shape = None
        positions = weights = None
        for piece, end in self.parts:
            assert piece.top is not None
            if positions is None or weights is None:
                shape = (len(piece.top[0]), self.num_queries, piece.top[0].shape[-1])
                positions, weights = torch.full(shape, -1), torch.zeros(shape)
            stop = min(end, piece.first_query + piece.num_queries)
            positions[:, piece.first_query : stop] = piece.top[0][:, : stop - piece.first_query]
            weights[:, piece.first_query : stop] = piece.top[1][:, : stop - piece.first_query]
        assert positions is not None
        assert weights is not None
        return Top(positions.numpy(), weights.numpy())

    def statistics(self, rows: list[int]) -> dict[str, np.ndarray]:
        found = {name: self._statistic(name) for name in self.parts[0][0].statistics}
        for name in self.parts[0][0].row_statistics:
            if name == ROLLOUT and len(self.parts) > 1:
                # a token that is fed by itself finds no layer's queries of those before it
                continue
            found[name] = self._over(lambda piece, name=name: piece.row_statistics.get(name), rows)
        if ROLLOUT in found:
            found[ROLLOUT] = found[ROLLOUT][0]
        if any(piece.outside is not None for piece, _ in self.parts):
            found["sink_share"] = self._over(lambda piece: piece.outside, rows)
        return found

    def _statistic(self, name: str) -> np.ndarray:
        if self._is_whole:
            return self.parts[0][0].statistics[name].numpy()
        axis = STATISTICS[name].axis
        pieces = [(piece, piece.statistics[name], end) for piece, end in self.parts]
        heads = len(pieces[0][1])
        if axis == "query":
            total = torch.full((heads, self.num_queries), torch.nan)
        elif axis == "key":
            total = torch.zeros(heads, self.num_keys)
        elif axis == "query segment":
            total = torch.zeros(heads, self.num_queries, max(values.shape[2] for _, values, _ in pieces))
        else:
            total = torch.zeros(heads, max(values.shape[1] for _, values, _ in pieces), self.num_keys)
        for piece, values, end in pieces:
            if axis.startswith("query"):
                stop = min(end, piece.first_query + piece.num_queries)
                part = values[:, : stop - piece.first_query]
                total[(slice(None), slice(piece.first_query, stop), *(slice(size) for size in part.shape[2:]))] = part
            else:
                stop = min(self.num_keys, piece.first_key + piece.num_keys)
                if end < piece.first_query + piece.num_queries:
                    raise RegardError(f"{name} also sums over tokens that were tried and thrown away")
                part = values[..., : stop - piece.first_key]
                where = slice(piece.first_key, stop)
                if axis == "key":
                    total[:, where] += part
                else:
                    total[:, : part.shape[1], where] += part
        return total.numpy()


def _rows(
    watch: "Watch", layers: dict[tuple[str, int], _Layer], lengths: dict[str, tuple[int, int]], prompt: int
) -> dict[str, list[int]]:
    rows, spec = {}, watch.wanted.rows
    for kind, (count, _) in lengths.items():
        if spec == "all":
            wanted = list(range(count))
        elif spec == "last":
            wanted = [count - 1] if count else []
        elif spec == "generated":
            wanted = list(range(prompt - 1, count)) if kind in ("decoder", "cross") else []
        else:
            wanted = chosen(spec, count)
        kept = set.intersection(*(layer.rows() for (name, _), layer in layers.items() if name == kind))
        missing = [row for row in wanted if row not in kept]
        if missing and spec not in ("all", "generated"):
            raise RegardError(
                f"row {missing[0]} of the {kind} was not kept while it was being written; read rows='all'"
            )
        rows[kind] = [row for row in wanted if row in kept]
    if not isinstance(spec, str | slice):
        counts = {kind: count for kind, (count, _) in lengths.items()}
        for row in spec if not isinstance(spec, int) else ():
            if counts and not any(-count <= row < count for count in counts.values()):
                told = ", ".join(f"{kind} {count}" for kind, count in counts.items())
                raise RegardError(f"row {row} is out of range; numbers of queries: {told}")
    return rows
