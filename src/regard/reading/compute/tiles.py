"""All weights of an attention call, tile by tile, in memory linear in length.

Each tile has few queries of the heads that share a key head; its weights are used and thrown away.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.softmax import FLOOR, SoftmaxRows
from regard.reading.call import AttentionCall, Visibility, grouped
from regard.reading.layouts import Layout

# scores of a tile for each thread: few enough for a cache, so many that calls cost little beside the work
TILE_SCORES = 3 << 18
LEAST_QUERIES, MOST_QUERIES = 16, 256
# a causal tile computes a triangle in vain, the smaller the more tiles there are
LEAST_TILES = 16
# of a short text the calls cost more than the triangle
SHORT_QUERIES = 64
# where a key is not seen; unlike -inf it may be multiplied by a weight of 0
HIDDEN = 2 * FLOOR


@dataclass(frozen=True, eq=False)
class Tile:
    """The weights of some heads and queries over a range of keys, outside which these queries see none.

    Weights are `numerators` / `totals`. `heads`, `rows` and `columns` say which of all heads, queries and keys these
    are. Positions, which `queries` and `keys` hold, count from the sequence's first token; `text` knows what the tokens
    are. `softmax` has the sums of all rows so far.
    """

    numerators: Float[Tensor, "head query key"]
    queries: Int[Tensor, " query"]
    keys: Int[Tensor, " key"]
    heads: slice
    rows: slice
    columns: slice
    softmax: SoftmaxRows
    text: "Text"
    has_sinks: bool

    @property
    def totals(self) -> Float[Tensor, "head query"]:
        """What the numerators of each row, and of its sink, sum to."""
        return self.softmax.totals[self.heads, self.rows]

    @property
    def products(self) -> Float[Tensor, "head query"]:
        """Σ numerators · logarithm of the numerator."""
        return self.softmax.products[self.heads, self.rows]

    @functools.cached_property
    def weights(self) -> Float[Tensor, "head query key"]:
        """Whoever divides sums by `totals` instead spares a pass over all pairs."""
        return self.numerators / self.totals[..., None]


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


def rows_of(call: AttentionCall, visibility: Visibility, layout: Layout, *, k: int) -> SoftmaxRows:
    """Room for the sums of all rows, and for their k strongest keys, which are counted as the call has them."""
    slots = torch.arange(layout.queries.start, layout.queries.stop, device=call.value.device)
    seen = (Visibility() if call.weights is not None else visibility).seen(slots, layout.keys.stop)
    dtype = torch.float64 if call.weights is None and call.query.dtype == torch.float64 else torch.float32
    return SoftmaxRows(call.num_heads, k, seen=seen.clamp_(min=layout.keys.start), dtype=dtype)


def tiles(
    call: AttentionCall, visibility: Visibility, layout: Layout, softmax: SoftmaxRows, *, item: int, text: Text
) -> Iterator[Tile]:
    """All tiles in turn, whose sums are entered into `softmax`."""
    device = call.value.device
    queries = torch.arange(len(softmax.seen), device=device) + layout.query_position
    keys = torch.arange(layout.keys.stop - layout.keys.start, device=device) + layout.key_position
    for scores, heads, rows, low in _scores(call, visibility, layout, softmax.seen, item):
        numerators = softmax.numerators_(scores, heads=heads, queries=rows, first_key=low)
        if call.sinks is not None:
            outside = call.sinks[heads, None].to(scores.dtype) - softmax.shifts[heads, rows]
            softmax.totals[heads, rows] += outside.exp_()
        columns = slice(low - layout.keys.start, low - layout.keys.start + scores.shape[-1])
        sinks = call.sinks is not None
        yield Tile(numerators, queries[rows], keys[columns], heads, rows, columns, softmax, text, sinks)


def _scores(
    call: AttentionCall, visibility: Visibility, layout: Layout, seen: Tensor, item: int
) -> Iterator[tuple[Float[Tensor, "head query key"], slice, slice, int]]:
    """Scores with the heads, the rows counted from the layout's first query, and the first key, as the call has it."""
    num_queries, num_keys = len(seen), layout.keys.stop - layout.keys.start
    if call.weights is not None:
        per_tile = max(1, TILE_SCORES // max(1, num_keys))
        for start in range(0, num_queries, per_tile):
            rows = slice(start, min(start + per_tile, num_queries))
            own = slice(layout.queries.start + rows.start, layout.queries.start + rows.stop)
            for head in range(call.num_heads):
                scores = call.weights[item, head : head + 1, own, layout.keys].float().log().clamp_(min=HIDDEN)
                yield scores, slice(head, head + 1), rows, layout.keys.start
        return
    dtype = torch.float64 if call.query.dtype == torch.float64 else torch.float32
    query = grouped(call.query[item].to(dtype) * call.scale, call.key[item]).unflatten(1, (-1, call.num_queries))
    group = query.shape[1]
    # dense in the order in which the product goes through it
    key = call.key[item].to(dtype).mT.contiguous()
    step, together = _sizes(num_queries, num_keys, group, len(key))
    for start in range(0, num_queries, step):
        rows = slice(start, min(start + step, num_queries))
        # no query sees an earlier key than the query before it, and none fewer
        low, high = int(seen[rows.start, 0]), int(seen[rows.stop - 1, 1])
        if high <= low:
            continue
        own = slice(layout.queries.start + rows.start, layout.queries.start + rows.stop)
        for first in range(0, len(key), together):
            some = slice(first, first + together)
            heads = slice(first * group, min(first + together, len(key)) * group)
            scores = query[some, :, own].flatten(1, 2) @ key[some, :, low:high]
            scores = scores.view(-1, rows.stop - rows.start, high - low)
            if call.softcap is not None:
                scores = call.softcap * (scores / call.softcap).tanh()
            slots = torch.arange(own.start, own.stop, device=scores.device)
            scores = visibility.add(scores, item=item, heads=heads, queries=slots, first_key=low, hidden=HIDDEN)
            yield scores, heads, rows, low


def _sizes(num_queries: int, num_keys: int, group: int, key_heads: int) -> tuple[int, int]:
    """How many queries, and of how many key heads, a tile has."""
    fitting = TILE_SCORES * torch.get_num_threads() // max(1, group * num_keys)
    step = min(fitting // key_heads, max(SHORT_QUERIES, math.ceil(num_queries / LEAST_TILES)), MOST_QUERIES)
    # vectors begin where rows do
    step = max(1, step // LEAST_QUERIES) * LEAST_QUERIES
    return step, min(max(1, fitting // step), key_heads)
