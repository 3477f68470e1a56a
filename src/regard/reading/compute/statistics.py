"""The statistics: numbers about all weights of a layer, which are never kept, and about each kept weight.

A new one is a function and one entry in `STATISTICS`: tables, pictures, the viewer and the checks on files follow it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from regard.reading.call import AttentionCall
from regard.reading.compute.tiles import Text, Tile

Axis = Literal["head", "query", "key", "row", "segment"]


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """What a statistic is, how it is computed, and what a reader is shown of it.

    `axes` name its shape: [head, query], [head, key], [head, query, segment] and [head, segment, key] are computed by
    `compute(tile)` over all queries; where they have "key" but not "query", tiles are added up. [head, row, key] is
    computed of kept rows by `compute(weights, call, item, keys)` and is at least 0. Where `compute` is None,
    another module computes it. `unit` is "share" for parts of a row's weight, which are shown in percent, the unit's
    name, or empty for a pure number. `by_segment` says that it needs the text's segments. `meaning` is a formula or a
    sentence, `source` author and year.
    """

    axes: tuple[Axis, ...]
    label: str
    label_zh: str
    meaning: str
    unit: str = ""
    source: str = ""
    by_segment: bool = False
    compute: Callable[..., Tensor] | None = None

    @property
    def axis(self) -> str:
        """The axes of one head, such as "query segment"."""
        return " ".join(axis for axis in self.axes if axis != "head")

    @property
    def is_swept(self) -> bool:
        """Whether a pass over all queries computes it."""
        return "row" not in self.axes

    def shape(self, num_queries: int, num_keys: int, text: Text) -> tuple[int, ...]:
        """Of one head."""
        sizes = {"query": num_queries, "key": num_keys, "segment": text.num_segments}
        return tuple(sizes[axis] for axis in self.axes if axis != "head")

    def note(self, tile: Tile, total: Tensor) -> None:
        """Enter what a tile gives."""
        assert self.compute is not None
        found = self.compute(tile).to(total.dtype)
        if "query" in self.axes:
            total[tile.heads, tile.rows] = found
        else:
            total[tile.heads, ..., tile.columns] += found


def received(tile: Tile) -> Float[Tensor, "head key"]:
    """Σ over queries i of weights[i, j]: how much key j was looked at. Its sum over keys is the number of queries."""
    return ((1 / tile.totals)[:, None] @ tile.numerators)[:, 0]


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
    found = tile.totals.log() * sums - tile.products / tile.totals
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


def local(tile: Tile) -> Float[Tensor, "head query"]:
    """Σ of weights[i, j] over keys j at most 8 tokens away, the token itself among them.

    Sukhbaatar et al. 2019, "Adaptive attention span in Transformers": most heads look at what is near.
    """
    return _where(tile, (tile.queries[:, None] - tile.keys).abs() <= LOCAL)


def own_segment(tile: Tile) -> Float[Tensor, "head query"]:
    """Σ of weights[i, j] over the keys of the segment, such as a sentence, that token i is in."""
    return _where(tile, tile.text.key_segments[tile.keys] == tile.text.query_segments[tile.queries][:, None])


def _where(tile: Tile, chosen: Tensor) -> Float[Tensor, "head query"]:
    return (tile.weights * chosen).sum(-1)


# of chosen rows: what each key's value added to the output, not the weight alone


def value_norm(
    weights: Float[Tensor, "head row key"], call: AttentionCall, item: int, keys: slice
) -> Float[Tensor, "head row key"]:
    """‖weights[i, j] · value[j]‖ (Kobayashi et al. 2020, "Attention is not only a weight", section 3, before W^O)."""
    norms = call.value[item, :, keys].to(weights.dtype).norm(dim=-1)
    return weights * norms.repeat_interleave(call.num_heads // len(norms), dim=0)[:, None]


# tokens from a query to the keys that are near it
LOCAL = 8
# over all layers at once, by rollout.py
ROLLOUT = "rollout"
# of itself, where a model has sinks
SINK_SHARE = "sink_share"

STATISTICS: dict[str, Statistic] = {
    "received": Statistic(
        axes=("head", "key"),
        label="received",
        label_zh="所得",
        meaning="Σ over i of weights[i, j]: how much key j was looked at; causal masks let early keys receive more",
        compute=received,
    ),
    "received_by_segment": Statistic(
        axes=("head", "segment", "key"),
        by_segment=True,
        label="received by segment",
        label_zh="各段所给",
        meaning="the same, apart for the queries of each segment",
        compute=received_by_segment,
    ),
    "segments": Statistic(
        axes=("head", "query", "segment"),
        by_segment=True,
        label="segments",
        label_zh="各段",
        unit="share",
        meaning="Σ over the keys of each segment of weights[i, j]; rows sum to 1",
        compute=segments,
    ),
    "entropy": Statistic(
        axes=("head", "query"),
        label="entropy",
        label_zh="熵",
        unit="nats",
        meaning="−Σ over j of weights[i, j] · ln weights[i, j]: 0 for one key, ln n for n alike",
        source="Shannon 1948",
        compute=entropy,
    ),
    "distance": Statistic(
        axes=("head", "query"),
        label="distance",
        label_zh="距离",
        unit="tokens",
        meaning="Σ over j of weights[i, j] · |i − j|",
        source="Vig and Belinkov 2019",
        compute=distance,
    ),
    "first_token": Statistic(
        axes=("head", "query"),
        label="first token",
        label_zh="首词元",
        unit="share",
        meaning="weights[i, 0]: what goes to the sink of many models",
        source="Xiao et al. 2024",
        compute=first_token,
    ),
    "previous_token": Statistic(
        axes=("head", "query"),
        label="previous token",
        label_zh="前一词元",
        unit="share",
        meaning="weights[i, i − 1]",
        source="Elhage et al. 2021",
        compute=previous_token,
    ),
    "induction": Statistic(
        axes=("head", "query"),
        label="induction",
        label_zh="归纳",
        unit="share",
        meaning="Σ of weights[i, j] over keys j that follow an earlier token equal to token i",
        source="Olsson et al. 2022",
        compute=induction,
    ),
    "duplicate_token": Statistic(
        axes=("head", "query"),
        label="duplicate token",
        label_zh="重复词元",
        unit="share",
        meaning="Σ of weights[i, j] over earlier keys j whose token equals token i",
        source="Wang et al. 2023",
        compute=duplicate_token,
    ),
    "local": Statistic(
        axes=("head", "query"),
        label="local",
        label_zh="近处",
        unit="share",
        meaning=f"Σ of weights[i, j] over keys j at most {LOCAL} tokens away",
        source="Sukhbaatar et al. 2019",
        compute=local,
    ),
    "own_segment": Statistic(
        axes=("head", "query"),
        label="own segment",
        label_zh="本段",
        unit="share",
        meaning="Σ of weights[i, j] over the keys of the segment that token i is in",
        by_segment=True,
        compute=own_segment,
    ),
    "value_norm": Statistic(
        axes=("head", "row", "key"),
        label="‖weight · value‖",
        label_zh="‖权重·值‖",
        meaning="‖weights[i, j] · value[j]‖",
        source="Kobayashi et al. 2020",
        compute=value_norm,
    ),
    "output_norm": Statistic(
        axes=("head", "row", "key"),
        label="‖weight · value · W‖",
        label_zh="‖权重·值·W‖",
        meaning="‖weights[i, j] · value[j] · W‖, W the head's part of the output projection",
        source="Kobayashi et al. 2020, eq. 5",
    ),
    ROLLOUT: Statistic(
        axes=("row", "key"),
        label="rollout",
        label_zh="逐层展开",
        unit="share",
        meaning=(
            "½ (mean of heads + identity), multiplied from the last layer down to this one; layer 0 goes down to the "
            "tokens"
        ),
        source="Abnar and Zuidema 2020",
    ),
    SINK_SHARE: Statistic(
        axes=("head", "row"),
        label="outside the text",
        label_zh="文本之外",
        unit="share",
        meaning="what goes to a sink outside the sequence; there of itself where a model has one",
    ),
}
