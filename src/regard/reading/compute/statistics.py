"""What is summed up of all weights of a layer without ever keeping them.

A new one is a function of a `Tile` and one line in `STATISTICS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.reading.call import AttentionCall
from regard.reading.compute.tiles import Text, Tile

Axis = Literal["query", "key", "query segment", "segment key"]


@dataclass(frozen=True)
class Statistic:
    """`compute` gives, of a tile, [head, query] or [head, query, segment], or, to be summed, [head, key] or
    [head, segment, key], as `axis` says."""

    axis: Axis
    compute: Callable[[Tile], Tensor]

    def shape(self, num_queries: int, num_keys: int, text: Text) -> tuple[int, ...]:
        """Of one head."""
        return {
            "query": (num_queries,),
            "key": (num_keys,),
            "query segment": (num_queries, text.num_segments),
            "segment key": (text.num_segments, num_keys),
        }[self.axis]

    def note(self, tile: Tile, rows: slice, first_key: int, total: Tensor) -> None:
        """Enter what a tile of these queries, whose keys begin at `first_key`, gives."""
        found = self.compute(tile).to(total.dtype)
        if self.axis.startswith("query"):
            total[tile.heads, rows] = found
        else:
            total[tile.heads, ..., first_key : first_key + found.shape[-1]] += found


def received(tile: Tile) -> Float[Tensor, "head key"]:
    """Σ over queries i of weights[i, j]: how much key j was looked at. Its sum over keys is the number of queries."""
    return tile.weights.sum(1)


def received_by_segment(tile: Tile) -> Float[Tensor, "head segment key"]:
    """Σ over the queries i of each segment of weights[i, j]: which part of the text looked at key j."""
    return tile.text.membership(tile.text.query_segments[tile.queries], tile.weights).mT @ tile.weights


def segments(tile: Tile) -> Float[Tensor, "head query segment"]:
    """Σ over the keys j of each segment of weights[i, j]: how much of row i went to each part of the text."""
    return tile.weights @ tile.text.membership(tile.text.key_segments[tile.keys], tile.weights)


def entropy(tile: Tile) -> Float[Tensor, "head query"]:
    """−Σ over keys j of weights[i, j] · ln weights[i, j], in nats: 0 for one key, ln n for n keys alike.

    Shannon 1948, "A mathematical theory of communication", section 6. What goes to a sink outside the sequence is no
    part of the sum.
    """
    sums = tile.weights.sum(-1) if tile.has_sinks else 1.0
    found = tile.log_sums[..., 0] * sums - (tile.weights * tile.scores).sum(-1)
    # rounding may leave a row of one key a little below 0
    return found.clamp(min=0)


def distance(tile: Tile) -> Float[Tensor, "head query"]:
    """Σ over keys j of weights[i, j] · |i − j|, in tokens: how far row i looked, on average.

    Vig and Belinkov 2019, "Analyzing the structure of attention in a Transformer language model", section 3.
    """
    away = (tile.queries[:, None] - tile.keys).abs().to(tile.weights.dtype)
    return (tile.weights * away).sum(-1)


def first_token(tile: Tile) -> Float[Tensor, "head query"]:
    """weights[i, 0]: what went to the first token, an attention sink in many models.

    Xiao et al. 2024, "Efficient streaming language models with attention sinks", section 3.
    """
    return _where(tile, (tile.keys == 0).expand(len(tile.queries), -1))


def previous_token(tile: Tile) -> Float[Tensor, "head query"]:
    """weights[i, i − 1]: 0 for the first token.

    Elhage et al. 2021, "A mathematical framework for Transformer circuits".
    """
    return _where(tile, tile.keys == tile.queries[:, None] - 1)


def induction(tile: Tile) -> Float[Tensor, "head query"]:
    """Σ of weights[i, j] over keys j that follow an earlier token equal to token i.

    Olsson et al. 2022, "In-context learning and induction heads": the head looks at what came next the last time. NaN
    where the token is not known, but only its embedding.
    """
    keys, tokens = tile.keys, tile.text.key_tokens
    before = torch.where(keys > 0, tokens[(keys - 1).clamp(min=0)], -1)
    own = tile.text.query_tokens[tile.queries][:, None]
    return _where(tile, (before == own) & (keys <= tile.queries[:, None])).where(own[:, 0] >= 0, torch.nan)


def duplicate_token(tile: Tile) -> Float[Tensor, "head query"]:
    """Σ of weights[i, j] over earlier keys j whose token equals token i.

    Wang et al. 2023, "Interpretability in the wild: a circuit for indirect object identification in GPT-2 small". NaN
    where the token is not known.
    """
    own = tile.text.query_tokens[tile.queries][:, None]
    same = tile.text.key_tokens[tile.keys] == own
    return _where(tile, same & (tile.keys < tile.queries[:, None])).where(own[:, 0] >= 0, torch.nan)


def _where(tile: Tile, chosen: Tensor) -> Float[Tensor, "head query"]:
    return (tile.weights * chosen).sum(-1)


STATISTICS: dict[str, Statistic] = {
    "received": Statistic("key", received),
    "received_by_segment": Statistic("segment key", received_by_segment),
    "segments": Statistic("query segment", segments),
    "entropy": Statistic("query", entropy),
    "distance": Statistic("query", distance),
    "first_token": Statistic("query", first_token),
    "previous_token": Statistic("query", previous_token),
    "induction": Statistic("query", induction),
    "duplicate_token": Statistic("query", duplicate_token),
}


# of chosen rows: what each key's value added to the output, not the weight alone


def value_norm(
    weights: Float[Tensor, "head row key"], call: AttentionCall, item: int, keys: slice
) -> Float[Tensor, "head row key"]:
    """‖weights[i, j] · value[j]‖ (Kobayashi et al. 2020, "Attention is not only a weight", section 3, before W^O)."""
    norms = call.value[item, :, keys].to(weights.dtype).norm(dim=-1)
    return weights * norms.repeat_interleave(call.num_heads // len(norms), dim=0)[:, None]


def output_norm(
    weights: Float[Tensor, "head row key"], call: AttentionCall, item: int, keys: slice
) -> Float[Tensor, "head row key"]:
    """‖weights[i, j] · value[j] · W^O‖, W^O the head's part of the output projection (Kobayashi et al. 2020, eq. 5).

    Raises RegardError for a module whose output projection is not known.
    """
    projection = _output_projection(call).to(weights.dtype)
    value = call.value[item, :, keys].to(weights.dtype)
    value = value.repeat_interleave(call.num_heads // len(value), dim=0)
    return weights * (value @ projection).norm(dim=-1)[:, None]


def _output_projection(call: AttentionCall) -> Float[Tensor, "head value_dim model_dim"]:
    size = call.num_heads * call.value.shape[-1]
    for name in OUTPUT_PROJECTIONS:
        weight = getattr(getattr(call.module, name, None), "weight", None)
        if weight is None or weight.dim() != 2 or size not in weight.shape:
            continue
        # GPT-2's Conv1D keeps its matrix the other way round
        matrix = weight if type(getattr(call.module, name)).__name__ == "Conv1D" else weight.T
        if matrix.shape[0] == size:
            return matrix.detach().unflatten(0, (call.num_heads, -1))
    raise RegardError(f"the output projection of {call.path} is not known; leave out the statistic 'output_norm'")


OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "o", "out_lin", "wo", "proj", "projection", "linear_out")
ROW_STATISTICS: dict[str, Callable[[Tensor, AttentionCall, int, slice], Tensor]] = {
    "value_norm": value_norm,
    "output_norm": output_norm,
}
# of chosen rows too, but over all layers at once: see rollout.py
ROLLOUT = "rollout"
