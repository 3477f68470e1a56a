"""From one attention call to what is read of it: kept rows, what proves them, and what a pass over all rows gives."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError
from regard.kernels.memory import give_back_freed_memory
from regard.reading import labels
from regard.reading.call import AttentionCall, Visibility, exact_scores, exact_weights
from regard.reading.compute.output_norm import OUTPUT_NORM, OutputNorm
from regard.reading.compute.rollout import rollout
from regard.reading.compute.statistics import ROLLOUT, STATISTICS
from regard.reading.compute.sweep import sweep
from regard.reading.compute.tiles import Text
from regard.reading.compute.verify import SAMPLE, check_rows, complaint, worst
from regard.reading.layouts import Layout
from regard.reading.options import ReadOptions, Rows
from regard.reading.record import Check, Sequence
from regard.reading.runs import Piece, Run

# pairs of queries and keys from which on a layer leaves much free memory behind
LONG = 1 << 25
# weights in double precision at a time
ROW_WEIGHTS = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Wanted(ReadOptions):
    """What is to be read of every call, and the tokenizer that knows its text.

    `prompt` is how many of the tokens of a single run were given, where it runs over those that were written as well.
    `known` are sequences by name, used where the run has as many positions; the text may have one more, not fed.
    """

    rows: Rows = "last"
    tokenizer: Any
    prompt: int | None = None
    known: Mapping[str, Sequence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(STATISTICS[each].by_segment for each in self.statistics) and self.tokenizer is None:
            raise RegardError("segments are found in the text: give watching the model's tokenizer=")

    @property
    def swept(self) -> dict[str, Any]:
        return {name: STATISTICS[name] for name in self.statistics if STATISTICS[name].is_swept}

    @property
    def of_rows(self) -> dict[str, Any]:
        found = {name: STATISTICS[name] for name in self.statistics if not STATISTICS[name].is_swept}
        return {name: statistic.compute for name, statistic in found.items() if statistic.compute is not None}


# of a kind and an item the ids at so many positions that look and that are looked at
Ids = Callable[[Run, str, int, tuple[int, int]], tuple[Tensor, Tensor]]


def read_call(
    run: Run, kind: str, call: AttentionCall, layouts: list[Layout], wanted: Wanted, ids: Ids
) -> dict[int, Piece] | str:
    """What a call gives of each item of the batch, or why it cannot be read."""
    if (why := _unfit(run, kind, call)) is not None:
        return why
    complaints = []
    for index in range(len(call.visibilities)):
        pieces: dict[int, Piece] = {}
        for item, layout in enumerate(layouts):
            own, place = (call, item) if layout.call is None else (layout.call, 0)
            try:
                pieces[item] = _rows(run, kind, own, own.visibilities[index], place, layout, wanted)
            except RegardError as error:
                # what a statistic cannot do is told with the reading, not in the midst of the model's run
                return str(error)
            if (why := complaint(pieces[item].check, call.value.dtype)) is not None:
                complaints.append(why)
                break
        else:
            try:
                for item, layout in enumerate(layouts):
                    own, place = (call, item) if layout.call is None else (layout.call, 0)
                    text = functools.partial(_text, run, kind, layout, wanted, ids, call.value.device)
                    _sweep(pieces[item], own, own.visibilities[index], place, layout, wanted, text)
            except RegardError as error:
                return str(error)
            if ROLLOUT in wanted.statistics and kind != "cross":
                run.layers.setdefault(kind, []).append((call, index, layouts, pieces))
            if OUTPUT_NORM in wanted.statistics:
                run.outputs.append(OutputNorm(call, layouts, pieces))
            if call.num_queries * call.num_keys >= LONG:
                give_back_freed_memory()
            return pieces
    return _without_softcap(run, kind, call, layouts, wanted) or complaints[0]


def _without_softcap(run: Run, kind: str, call: AttentionCall, layouts: list[Layout], wanted: Wanted) -> str | None:
    """Whether a kernel left out the softcap that its caller gave it, in words."""
    if call.softcap is None or layouts[0].call is not None:
        return None
    plain = replace(call, softcap=None)
    found = [_rows(run, kind, plain, each, 0, layouts[0], wanted).check for each in call.visibilities]
    if all(complaint(check, call.value.dtype) for check in found):
        return None
    remedy = "; take attn_implementation='eager', or a version of transformers whose kernel has it"
    return (
        f"its kernel leaves out the softcap of {call.softcap:g} that the model asks for, so that this run is not the "
        f"model's own{remedy if call.module is not None else ''}"
    )


def note_rollout(run: Run, wanted: Wanted, ids: Ids) -> None:
    """Enter the rollout of the kept rows into the pieces of a run that is over, and let go of its queries and keys."""
    run.close()
    for kind, layers in run.layers.items():
        *_, layouts, pieces = layers[-1]
        whole = run.start == 0 and not any(key[0] == kind for key in run.refused)
        whole = whole and all(len(parts) == 1 for key, parts in run.pieces.items() if key[0] == kind)
        for item, piece in pieces.items() if whole else ():
            calls = []
            for call, index, own_layouts, _ in layers:
                own = own_layouts[item].call or call
                calls.append((own, own.visibilities[index]))
            flows = rollout(
                calls,
                layouts[item],
                item=item if layouts[item].call is None else 0,
                rows=piece.rows,
                text=_text(run, kind, layouts[item], wanted, ids, layers[0][0].value.device),
            )
            for (*_, own), flow in zip(reversed(layers), flows, strict=True):
                own[item].row_statistics[ROLLOUT] = flow[None].cpu()
    run.layers.clear()


def unflattened(call: AttentionCall, batch_size: int) -> AttentionCall:
    """A call whose batch and heads are one axis, with two."""

    def parted(tensor: Tensor) -> Tensor:
        return tensor[0].unflatten(0, (batch_size, -1)) if tensor.shape[1] % batch_size == 0 else tensor

    parts = {name: parted(getattr(call, name)) for name in ("query", "key", "value", "context", "weights")}
    return replace(call, **parts, flat=False)


def _unfit(run: Run, kind: str, call: AttentionCall) -> str | None:
    if not (call.query.shape[0] == call.key.shape[0] == call.context.shape[0]):
        return "its queries and keys are not of the same batch"
    own = call.weights is not None
    if own and kind not in ("cross", "resampler") and run.start == 0 and not _is_own_sequence(run, kind, call):
        return f"its {call.num_queries} queries look at {call.num_keys} keys, which are not the sequence's own"
    if kind in ("decoder", "cross") and run.length not in (0, call.num_queries):
        return f"it has {call.num_queries} queries for {run.length} tokens"
    return None


def _is_own_sequence(run: Run, kind: str, call: AttentionCall) -> bool:
    """Whether keys are the queries' own tokens, and no other but room in a static cache that nobody sees."""
    if call.num_queries == call.num_keys:
        return True
    if kind != "decoder" or not run.length == call.num_queries < call.num_keys or call.weights is None:
        return False
    return not any(
        weights[:, run.real(item)[run.start :], run.start + run.length :].any()
        for item, weights in enumerate(call.weights)
    )


def kept_slots(rows: Rows, run: Run, kind: str, layout: Layout, prompt: int | None = None) -> list[int]:
    """The queries of a call whose rows are to be kept, as slots."""
    slots = range(layout.queries.start, layout.queries.stop)
    if rows == "all" or not slots:
        return list(slots)
    if rows == "last":
        return [slots[-1]]
    is_step = (run.start > 0 and kind in ("decoder", "cross")) or layout.query_position > 0
    if rows == "generated":
        if kind not in ("decoder", "cross"):
            return []
        if prompt is not None:
            return list(slots[max(0, prompt - 1 - layout.query_position) :])
        if run.generation is not None and run.generation.runs:
            # a prompt may be fed in parts, and without a cache each step runs over all of it
            first = run.position(layout.item, max(0, run.generation.prompt_length - 1))
            return list(slots[max(0, first - layout.query_position) :])
        return list(slots if is_step else slots[-1:])
    assert not isinstance(rows, str)
    if is_step and _counts_from_end(rows):
        # which they are is known at the end only
        return list(slots)
    first = layout.query_position
    return [slots[row - first] for row in chosen(rows, first + len(slots)) if row >= first]


def _counts_from_end(rows: Rows) -> bool:
    if isinstance(rows, slice):
        return any(end is not None and end < 0 for end in (rows.start, rows.stop)) or (rows.step or 1) < 0
    return not isinstance(rows, str | int) and any(row < 0 for row in rows)


def chosen(rows: Rows, count: int) -> list[int]:
    """Positions among `count` queries."""
    if isinstance(rows, slice):
        return sorted(range(*rows.indices(count)))
    assert not isinstance(rows, str | int)
    return sorted({row + count if row < 0 else row for row in rows if -count <= row < count})


def _rows(
    run: Run, kind: str, call: AttentionCall, visibility: Visibility, item: int, frame: Layout, wanted: Wanted
) -> Piece:
    """The kept rows of an item, and how well they and some others prove themselves."""
    device, of_rows = call.value.device, wanted.of_rows
    kept = kept_slots(wanted.rows, run, kind, frame, wanted.prompt)
    piece = Piece(
        check=Check(0.0, 0.0, 0),
        first_query=frame.query_position,
        num_queries=frame.queries.stop - frame.queries.start,
        first_key=frame.key_position,
        num_keys=frame.keys.stop - frame.keys.start,
        rows=[slot - frame.queries.start + frame.query_position for slot in kept],
    )
    # kept rows prove themselves; those of other queries are known by a sample
    alone = not wanted.swept and wanted.top_k is None and len(kept) >= SAMPLE
    sample = set() if alone else set(_spread(frame.queries)) - set(kept)
    # what stays has its place before what comes and goes: memory that is given back in between is whole. numpy asks the
    # system for large pages, which fill sooner
    piece.weights = torch.from_numpy(np.empty((call.num_heads, len(kept), piece.num_keys), dtype=np.float32))
    outsides = torch.empty(call.num_heads, len(kept), dtype=torch.float32)
    if wanted.scores and call.weights is None:
        piece.scores = torch.empty_like(piece.weights)
    elif wanted.scores:
        piece.left_out["scores"] = "the module computes its softmax itself, and its scores were not seen"
    by_row: dict[str, list[Tensor]] = {name: [piece.weights[:, :0]] for name in of_rows}
    slots = [*kept, *sorted(sample)]
    step = max(1, ROW_WEIGHTS // (call.num_heads * max(1, call.num_keys)))
    for start in range(0, len(slots), step):
        queries = torch.tensor(slots[start : start + step], device=device)
        weights, outside = exact_weights(call, visibility, item=item, queries=queries)
        # single precision is fine enough to tell rounding from error, and twice as fast
        rounded = weights if call.value.dtype == torch.float64 else weights.float()
        found = check_rows(call, visibility, rounded, outside, item=item, queries=queries, keys=frame.keys)
        piece.check = worst(piece.check, found)
        count = max(0, len(kept) - start)
        rows = weights[:, :count, frame.keys]
        piece.weights[:, start : start + step] = rounded[:, :count, frame.keys]
        outsides[:, start : start + step] = outside[:, :count]
        if piece.scores is not None:
            scores = exact_scores(call, visibility, item=item, queries=queries[:count])
            piece.scores[:, start : start + step] = scores[..., frame.keys]
        for name, statistic in of_rows.items():
            try:
                by_row[name].append(statistic(rows, call, item, frame.keys).float().cpu())
            except RegardError as error:
                piece.left_out[name] = str(error)
    piece.outside = None if call.sinks is None else outsides
    piece.row_statistics = {
        name: torch.cat(found, dim=1) for name, found in by_row.items() if name not in piece.left_out
    }
    return piece


def _sweep(
    piece: Piece,
    call: AttentionCall,
    visibility: Visibility,
    item: int,
    frame: Layout,
    wanted: Wanted,
    text: Callable[[], Text],
) -> None:
    """Enter what a pass over all rows gives."""
    if wanted.top_k is None and not wanted.swept:
        return
    swept = sweep(call, visibility, frame, item=item, text=text(), top_k=wanted.top_k, statistics=wanted.swept)
    piece.top = None if swept.top is None else (swept.top[0].cpu(), swept.top[1].cpu())
    piece.statistics = {name: found.cpu() for name, found in swept.statistics.items()}


def _text(run: Run, kind: str, layout: Layout, wanted: Wanted, ids: Ids, device: torch.device) -> Text:
    """Tokens at all positions so far, and the segment of each: the same for all layers that look at as many."""
    sizes = (
        layout.query_position + layout.queries.stop - layout.queries.start,
        layout.key_position + layout.keys.stop - layout.keys.start,
    )
    key = (kind, layout.item, sizes)
    if key not in run.texts:
        sides = list(ids(run, kind, layout.item, sizes))
        by_segment = any(STATISTICS[name].by_segment for name in wanted.swept)
        segments = [
            labels.segments(each, wanted.segments, wanted.tokenizer) if by_segment else torch.zeros_like(each)
            for each in sides
        ]
        count = 1 + max(int(each.max()) if len(each) else 0 for each in segments)
        run.texts[key] = Text(*(each.to(device) for each in (*sides, *segments)), num_segments=count)
    return run.texts[key]


def _spread(queries: slice) -> list[int]:
    """Some queries of a range, the first and the last among them."""
    count = min(SAMPLE, queries.stop - queries.start)
    return torch.linspace(queries.start, max(queries.start, queries.stop - 1), count).long().tolist()
