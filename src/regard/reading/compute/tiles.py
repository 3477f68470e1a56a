"""All queries of an attention call in one pass: statistics and strongest keys, in memory linear in length.

Each tile has few queries of the heads that share a key head; its weights are used and thrown away.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.reading.call import AttentionCall, Visibility, grouped
from regard.reading.compute.strongest import strongest

if TYPE_CHECKING:
    from regard.reading.compute.statistics import Statistic

# scores of a tile for each thread: few enough to stay in a core's cache, enough for a fast product
TILE_SCORES = 3 << 17
LEAST_QUERIES, MOST_QUERIES = 16, 256
# a causal tile computes a triangle in vain, the smaller the more tiles there are
LEAST_TILES = 16
# where a key is not seen; unlike -inf it may be multiplied by a weight of 0
HIDDEN = -1e30
# of rows whose highest score is between these, exp(score) neither overflows in a sum nor vanishes sooner than a weight
# that float32 could hold beside it
LEAST_MODERATE, MOST_MODERATE = -8.0, 64.0


@dataclass(frozen=True, eq=False)
class Tile:
    """The weights of some heads and queries over a range of keys, outside which these queries see none.

    Weights are `numerators` / `totals`, and also exp(`scores` - `log_sums`). `top` has the highest weights and the
    positions of their keys, −1 for a key that is not seen. Positions count from the sequence's first token; `text`
    knows what the tokens are.
    """

    numerators: Float[Tensor, "head query key"]
    totals: Float[Tensor, "head query 1"]
    scores: Float[Tensor, "head query key"]
    log_sums: Float[Tensor, "head query 1"]
    queries: Int[Tensor, " query"]
    keys: Int[Tensor, " key"]
    heads: slice
    text: "Text"
    has_sinks: bool = False
    top: tuple[Float[Tensor, "head query k"], Int[Tensor, "head query k"]] | None = None

    @functools.cached_property
    def weights(self) -> Float[Tensor, "head query key"]:
        """Whoever divides sums by `totals` instead spares a pass over all pairs."""
        return self.numerators / self.totals


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
            if tile.top is not None and tops is not None:
                weights, positions = tile.top
                tops[0][tile.heads, rows, : weights.shape[-1]] = positions
                tops[1][tile.heads, rows, : weights.shape[-1]] = weights.float()
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
        key_positions = torch.arange(num_keys, device=call.weights.device) + key_position
        for start in range(queries.start, queries.stop, per_tile):
            stop = min(start + per_tile, queries.stop)
            rows = slice(start - queries.start, stop - queries.start)
            positions = torch.arange(rows.start, rows.stop, device=call.weights.device) + query_position
            for head in range(call.num_heads):
                heads = slice(head, head + 1)
                scores = call.weights[item, heads, start:stop, keys].float().log().clamp_(min=HIDDEN)
                yield _tile(scores, None, positions, key_positions, heads, text, top_k), rows
        return
    dtype = torch.float64 if call.query.dtype == torch.float64 else torch.float32
    query = grouped(call.query[item].to(dtype) * call.scale, call.key[item]).unflatten(1, (-1, call.num_queries))
    group = query.shape[1]
    # dense in the order in which the product goes through it
    key = call.key[item].to(dtype).mT.contiguous()
    step, together = _sizes(queries.stop - queries.start, num_keys, group, len(key))
    for start in range(queries.start, queries.stop, step):
        stop = min(start + step, queries.stop)
        low, high = visibility.key_range(slice(start, stop), keys.stop)
        low, high = max(low, keys.start), max(high, keys.start)
        if high > low:
            slots = torch.arange(start, stop, device=key.device)
            rows = slice(start - queries.start, stop - queries.start)
            positions = slots + (query_position - queries.start)
            key_positions = torch.arange(low, high, device=key.device) + (key_position - keys.start)
            for first in range(0, len(key), together):
                some = slice(first, first + together)
                heads = slice(first * group, min(first + together, len(key)) * group)
                scores = query[some, :, start:stop].flatten(1, 2) @ key[some, :, low:high]
                scores = scores.view(-1, stop - start, high - low)
                if call.softcap is not None:
                    scores = call.softcap * (scores / call.softcap).tanh()
                scores = visibility.apply(scores, item=item, heads=heads, queries=slots, first_key=low, hidden=HIDDEN)
                sinks = None if call.sinks is None else call.sinks[heads]
                yield _tile(scores, sinks, positions, key_positions, heads, text, top_k), rows


def _sizes(num_queries: int, num_keys: int, group: int, key_heads: int) -> tuple[int, int]:
    """How many queries, and of how many key heads, a tile has."""
    fitting = TILE_SCORES * torch.get_num_threads() // max(1, group * num_keys)
    step = min(fitting // key_heads, math.ceil(num_queries / LEAST_TILES), MOST_QUERIES)
    # vectors begin where rows do
    step = max(1, step // LEAST_QUERIES) * LEAST_QUERIES
    return step, min(max(1, fitting // step), key_heads)


def _tile(
    scores: Tensor, sinks: Tensor | None, queries: Tensor, keys: Tensor, heads: slice, text: Text, k: int
) -> Tile:
    highest, top = strongest(scores, k)
    # exp(scores) is as exact, and spares a pass over all pairs, where nothing overflows or vanishes
    shift = None if _is_moderate(highest) else highest.clamp(min=HIDDEN / 2)
    numerators = scores.exp() if shift is None else (scores - shift).exp_()
    totals = numerators.sum(-1, keepdim=True)
    if sinks is not None:
        outside = sinks.to(scores.dtype)[:, None, None]
        totals += (outside if shift is None else outside - shift).exp()
    # of a row that sees no key all numerators are 0
    totals.masked_fill_(totals == 0, 1.0)
    log_sums = totals.log() if shift is None else totals.log() + shift
    if top is not None:
        values, indices = top
        strengths = (values if shift is None else values - shift).exp() / totals
        seen = values > HIDDEN / 2
        top = strengths.where(seen, 0.0), (indices + keys[0]).where(seen, -1)
    return Tile(numerators, totals, scores, log_sums, queries, keys, heads, text, sinks is not None, top)


def _is_moderate(highest: Tensor) -> bool:
    least, most = highest.aminmax()
    return bool(least >= LEAST_MODERATE and most <= MOST_MODERATE)
