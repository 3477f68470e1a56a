"""All queries of an attention call in one pass: statistics and strongest keys, in memory linear in length.

Each tile has few queries of the heads that share a key head; its weights are used and thrown away.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.linear import linear
from regard.reading.call import AttentionCall, Visibility, grouped

if TYPE_CHECKING:
    from regard.reading.compute.statistics import Statistic

# scores of a tile are about so many at most: few enough for the processor's cache, enough for a fast product
TILE_SCORES = 1 << 21
LEAST_QUERIES, MOST_QUERIES = 16, 512
# where a key is not seen; unlike -inf it may be multiplied by a weight of 0
HIDDEN = -1e30


@dataclass(frozen=True, eq=False)
class Tile:
    """The weights of some heads and queries over a range of keys, outside which these queries see none.

    `scores` are what was exponentiated and `log_sums` the logarithms of each row's sum: weights are exp(scores -
    log_sums). `top` says which of the keys are the strongest, where they are wanted. Positions count from the
    sequence's first token; `text` knows what the tokens are.
    """

    weights: Float[Tensor, "head query key"]
    scores: Float[Tensor, "head query key"]
    log_sums: Float[Tensor, "head query 1"]
    queries: Int[Tensor, " query"]
    keys: Int[Tensor, " key"]
    heads: slice
    text: "Text"
    has_sinks: bool = False
    top: Int[Tensor, "head query k"] | None = None


@dataclass(frozen=True, eq=False)
class Text:
    """What statistics may know of the tokens at all positions: ids, −1 where unknown, and the segment of each."""

    query_tokens: Int[Tensor, " query"]
    key_tokens: Int[Tensor, " key"]
    query_segments: Int[Tensor, " query"]
    key_segments: Int[Tensor, " key"]
    num_segments: int

    def membership(self, segments: Int[Tensor, " token"], like: Tensor) -> Float[Tensor, "token segment"]:
        """1 where a token is of a segment, else 0."""
        return (segments[:, None] == torch.arange(self.num_segments, device=like.device)).to(like.dtype)


@dataclass(frozen=True, eq=False)
class Swept:
    """Of all queries: the strongest keys, [head, query, k], −1 for none, and each statistic."""

    top: tuple[Int[Tensor, "head query k"], Float[Tensor, "head query k"]] | None
    statistics: dict[str, Tensor]


def sweep(
    call: AttentionCall,
    visibility: Visibility,
    *,
    item: int,
    queries: slice,
    keys: slice,
    query_position: int,
    key_position: int,
    text: Text,
    top_k: int | None,
    statistics: Mapping[str, "Statistic"],
) -> Swept:
    """One pass over the queries and keys in these ranges, whose first are at these positions of the sequence."""
    num_queries, num_keys, num_heads = queries.stop - queries.start, keys.stop - keys.start, call.num_heads
    device = call.value.device
    tops = None
    if top_k is not None:
        shape = (num_heads, num_queries, top_k)
        tops = (
            torch.full(shape, -1, dtype=torch.int64, device=device),
            torch.zeros(shape, dtype=torch.float32, device=device),
        )
    sums = {
        name: torch.zeros(num_heads, *statistic.shape(num_queries, num_keys, text), dtype=torch.float32, device=device)
        for name, statistic in statistics.items()
    }
    if top_k is not None or statistics:
        for tile, rows in tiles(
            call,
            visibility,
            item=item,
            queries=queries,
            keys=keys,
            query_position=query_position,
            key_position=key_position,
            text=text,
            top_k=top_k or 0,
        ):
            if tops is not None:
                _note_top(tile, rows, tops)
            for name, statistic in statistics.items():
                statistic.note(tile, rows, int(tile.keys[0]) - key_position, sums[name])
    return Swept(tops, sums)


def tiles(
    call: AttentionCall,
    visibility: Visibility,
    *,
    item: int,
    queries: slice,
    keys: slice,
    query_position: int,
    key_position: int,
    text: Text,
    top_k: int,
) -> Iterator[tuple[Tile, slice]]:
    """Each tile with the range of its queries, counted from the first."""
    num_keys = keys.stop - keys.start
    if call.weights is not None:
        per_tile = max(1, TILE_SCORES // max(1, num_keys))
        for start in range(queries.start, queries.stop, per_tile):
            stop = min(start + per_tile, queries.stop)
            for head in range(call.num_heads):
                weights = call.weights[item, head : head + 1, start:stop, keys].float()
                scores = weights.log().clamp(min=HIDDEN)
                rows = slice(start - queries.start, stop - queries.start)
                yield (
                    Tile(
                        weights=weights,
                        scores=scores,
                        log_sums=torch.zeros_like(scores[..., :1]),
                        queries=torch.arange(rows.start, rows.stop, device=weights.device) + query_position,
                        keys=torch.arange(num_keys, device=weights.device) + key_position,
                        heads=slice(head, head + 1),
                        text=text,
                        top=scores.topk(min(top_k, num_keys), dim=-1).indices if top_k else None,
                    ),
                    rows,
                )
        return
    dtype = torch.float64 if call.query.dtype == torch.float64 else torch.float32
    query = grouped(call.query[item], call.key[item]).unflatten(1, (-1, call.num_queries))
    group = query.shape[1]
    key = call.key[item].to(dtype)
    step = min(max(LEAST_QUERIES, TILE_SCORES // (group * num_keys)), MOST_QUERIES) if num_keys else 1
    for start in range(queries.start, queries.stop, step):
        stop = min(start + step, queries.stop)
        low, high = visibility.key_range(slice(start, stop), keys.stop)
        low, high = max(low, keys.start), max(high, keys.start)
        if high > low:
            slots = torch.arange(start, stop, device=key.device)
            rows = slice(start - queries.start, stop - queries.start)
            positions = slots + (query_position - queries.start)
            key_positions = torch.arange(low, high, device=key.device) + (key_position - keys.start)
            for index in range(len(key)):
                heads = slice(index * group, (index + 1) * group)
                scores = _scores(call, query[index, :, start:stop].to(dtype), key[index, low:high])
                scores = visibility.apply(scores, item=item, heads=heads, queries=slots, first_key=low, hidden=HIDDEN)
                sinks = None if call.sinks is None else call.sinks[heads]
                weights, log_sums, top = _softmax(scores, sinks, top_k)
                has_sinks = sinks is not None
                yield Tile(weights, scores, log_sums, positions, key_positions, heads, text, has_sinks, top), rows


def _scores(call: AttentionCall, query: Tensor, key: Tensor) -> Float[Tensor, "head query key"]:
    rows = (query * call.scale).flatten(0, 1).contiguous()
    scores = linear(rows, key.contiguous()).unflatten(0, query.shape[:2])
    return scores if call.softcap is None else call.softcap * (scores / call.softcap).tanh()


def _softmax(scores: Tensor, sinks: Tensor | None, k: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weights, the logarithms of the sums that they were divided by, and where the k highest are."""
    weights = scores.softmax(-1)
    if k:
        highest, indices = scores.topk(min(k, scores.shape[-1]), dim=-1)
        highest, place = highest[..., :1], indices[..., :1]
    else:
        indices = None
        highest, place = scores.max(-1, keepdim=True)
    # the highest weight is exp(highest − log_sum), and is never 0
    log_sums = highest - weights.gather(-1, place).log()
    if sinks is not None:
        with_sinks = torch.logaddexp(log_sums, sinks.to(scores.dtype)[:, None, None])
        weights *= (log_sums - with_sinks).exp()
        log_sums = with_sinks
    blind = highest <= HIDDEN / 2
    if blind.any():
        weights.masked_fill_(blind, 0.0)
    return weights, log_sums, indices


def _note_top(tile: Tile, rows: slice, tops: tuple[Tensor, Tensor]) -> None:
    positions, weights = tops
    assert tile.top is not None
    seen = tile.scores.gather(-1, tile.top) > HIDDEN / 2
    k = tile.top.shape[-1]
    positions[tile.heads, rows, :k] = torch.where(seen, tile.keys[0] + tile.top, -1)
    weights[tile.heads, rows, :k] = tile.weights.gather(-1, tile.top).where(seen, 0.0).float()
