"""From one attention call to what is read of it: kept rows, what proves them, and what a pass over all rows gives."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.errors import RegardError
from regard.kernels.memory import give_back_freed_memory
from regard.reading import assemble, labels
from regard.reading.call import AttentionCall, Visibility, exact_weights
from regard.reading.compute.rollout import rollout
from regard.reading.compute.statistics import ROLLOUT, ROW_STATISTICS, STATISTICS
from regard.reading.compute.tiles import Text, sweep
from regard.reading.compute.verify import SAMPLE, check_rows, complaint, worst
from regard.reading.options import ReadOptions, Rows
from regard.reading.record import Check
from regard.reading.runs import Forward, Piece

# pairs of queries and keys from which on a layer leaves much free memory behind
LONG = 1 << 25
# rows in double precision are large: of so many weights at a time
ROW_WEIGHTS = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Wanted(ReadOptions):
    """What is to be read of every call, and the tokenizer that knows its text."""

    rows: Rows = "last"
    tokenizer: Any

    def __post_init__(self) -> None:
        if {"segments", "received_by_segment"} & set(self.statistics) and self.tokenizer is None:
            raise RegardError("segments are found in the text: give watching the model's tokenizer=")

    @property
    def swept(self) -> dict[str, Any]:
        return {name: STATISTICS[name] for name in self.statistics if name in STATISTICS}

    @property
    def of_rows(self) -> dict[str, Any]:
        return {name: ROW_STATISTICS[name] for name in self.statistics if name in ROW_STATISTICS}


def read_call(forward: Forward, kind: str, call: AttentionCall, wanted: Wanted) -> dict[int, Piece] | str:
    """What a call gives of each item of the batch, or why it cannot be read."""
    if (why := _unfit(forward, kind, call)) is not None:
        return why
    frames = [assemble.frame(forward, kind, call, item) for item in range(forward.batch_size)]
    complaints = []
    for visibility in call.visibilities:
        pieces: dict[int, Piece] = {}
        for item, frame in enumerate(frames):
            try:
                pieces[item] = _rows(forward, kind, call, visibility, item, frame, wanted)
            except RegardError as error:
                # what a statistic cannot do is told with the reading, not in the midst of the model's run
                return str(error)
            if (why := complaint(pieces[item].check, call.value.dtype)) is not None:
                complaints.append(why)
                break
        else:
            try:
                for item, frame in enumerate(frames):
                    _sweep(pieces[item], forward, kind, call, visibility, item, frame, wanted)
            except RegardError as error:
                return str(error)
            if ROLLOUT in wanted.statistics and kind != "cross":
                forward.layers.setdefault(kind, []).append((call, visibility, frames, pieces))
            if call.num_queries * call.num_keys >= LONG:
                give_back_freed_memory()
            return pieces
    return complaints[0]


def note_rollout(forward: Forward, wanted: Wanted) -> None:
    """Enter the rollout of the kept rows into the pieces of a run that is over, and let go of its queries and keys."""
    for kind, layers in forward.layers.items():
        *_, frames, pieces = layers[-1]
        whole = forward.start == 0 and not any(key[0] == kind for key in forward.refused)
        for item, piece in pieces.items() if whole else ():
            flows = rollout(
                [(call, visibility) for call, visibility, *_ in layers],
                frames[item],
                item=item,
                rows=piece.rows,
                text=_text(forward, kind, item, wanted, layers[0][0].value.device),
            )
            for (*_, own), flow in zip(reversed(layers), flows, strict=True):
                own[item].row_statistics[ROLLOUT] = flow[None].cpu()
    forward.layers.clear()


def _unfit(forward: Forward, kind: str, call: AttentionCall) -> str | None:
    if call.context.shape[0] != forward.batch_size:
        return (
            f"it attends within {call.context.shape[0]} windows or parts, not over the {forward.batch_size} sequences "
            "of the batch"
        )
    if not (call.query.shape[0] == call.key.shape[0] == call.context.shape[0]):
        return "its queries and keys are not of the same batch"
    own = call.weights is not None
    if own and kind != "cross" and forward.start == 0 and call.num_queries != call.num_keys:
        return f"its {call.num_queries} queries look at {call.num_keys} keys, which are not the sequence's own"
    if kind in ("decoder", "cross") and forward.length != call.num_queries:
        return f"it has {call.num_queries} queries for {forward.length} tokens"
    return None


def _rows(
    forward: Forward,
    kind: str,
    call: AttentionCall,
    visibility: Visibility,
    item: int,
    frame: assemble.Frame,
    wanted: Wanted,
) -> Piece:
    """The kept rows of an item, and how well they and some others prove themselves."""
    device, of_rows = call.value.device, wanted.of_rows
    kept = assemble.kept_slots(wanted.rows, forward, kind, frame)
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
    # what stays has its place before what comes and goes: memory that is given back in between is whole
    piece.weights = torch.empty(call.num_heads, len(kept), piece.num_keys)
    outsides = torch.empty(call.num_heads, len(kept))
    by_row: dict[str, list[Tensor]] = {name: [piece.weights[:, :0]] for name in of_rows}
    slots = [*kept, *sorted(sample)]
    step = max(1, ROW_WEIGHTS // (call.num_heads * max(1, call.num_keys)))
    for start in range(0, len(slots), step):
        queries = torch.tensor(slots[start : start + step], device=device)
        weights, outside = exact_weights(call, visibility, item=item, queries=queries)
        found = check_rows(call, visibility, weights, outside, item=item, queries=queries, keys=frame.keys)
        piece.check = worst(piece.check, found)
        count = max(0, len(kept) - start)
        rows = weights[:, :count, frame.keys]
        piece.weights[:, start : start + step] = rows
        outsides[:, start : start + step] = outside[:, :count]
        for name, statistic in of_rows.items():
            by_row[name].append(statistic(rows, call, item, frame.keys).float().cpu())
    piece.outside = None if call.sinks is None else outsides
    piece.row_statistics = {name: torch.cat(found, dim=1) for name, found in by_row.items()}
    return piece


def _sweep(
    piece: Piece,
    forward: Forward,
    kind: str,
    call: AttentionCall,
    visibility: Visibility,
    item: int,
    frame: assemble.Frame,
    wanted: Wanted,
) -> None:
    """Enter what a pass over all rows gives."""
    if wanted.top_k is None and not wanted.swept:
        return
    swept = sweep(
        call,
        visibility,
        item=item,
        queries=frame.queries,
        keys=frame.keys,
        query_position=frame.query_position,
        key_position=frame.key_position,
        text=_text(forward, kind, item, wanted, call.value.device),
        top_k=wanted.top_k,
        statistics=wanted.swept,
    )
    piece.top = None if swept.top is None else (swept.top[0].cpu(), swept.top[1].cpu())
    piece.statistics = {name: found.cpu() for name, found in swept.statistics.items()}


def _text(forward: Forward, kind: str, item: int, wanted: Wanted, device: torch.device) -> Text:
    """Tokens at all positions so far, and the segment of each: the same for all layers."""
    key = (kind, item)
    if key not in forward.texts:
        sides = [labels.tokens(forward, kind, side, item) for side in ("query", "key")]
        by_segment = any("segment" in STATISTICS[name].axis for name in wanted.swept)
        segments = [
            labels.segments(ids, wanted.segments, wanted.tokenizer) if by_segment else torch.zeros_like(ids)
            for ids in sides
        ]
        count = 1 + max(int(each.max()) if len(each) else 0 for each in segments)
        forward.texts[key] = Text(*(each.to(device) for each in (*sides, *segments)), num_segments=count)
    return forward.texts[key]


def _spread(queries: slice) -> list[int]:
    """Some queries of a range, the first and the last among them."""
    count = min(SAMPLE, queries.stop - queries.start)
    return torch.linspace(queries.start, max(queries.start, queries.stop - 1), count).long().tolist()
