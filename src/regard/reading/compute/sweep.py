"""All queries of an attention call in one pass over its tiles: statistics and strongest keys."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.kernels.softmax import FLOOR
from regard.reading.call import AttentionCall, Visibility
from regard.reading.compute.statistics import Statistic
from regard.reading.compute.tiles import Text, rows_of, tiles
from regard.reading.layouts import Layout


@dataclass(frozen=True, eq=False)
class Swept:
    """Of all queries: the strongest keys, [head, query, k], −1 for none, and each statistic."""

    top: tuple[Int[Tensor, "head query k"], Float[Tensor, "head query k"]] | None
    statistics: dict[str, Tensor]


def sweep(
    call: AttentionCall,
    visibility: Visibility,
    layout: Layout,
    *,
    item: int,
    text: Text,
    top_k: int | None,
    statistics: Mapping[str, Statistic],
) -> Swept:
    """One pass over the queries and keys of a sequence."""
    softmax = rows_of(call, visibility, layout, k=top_k or 0)
    size = layout.queries.stop - layout.queries.start, layout.keys.stop - layout.keys.start
    how = {"dtype": torch.float32, "device": call.value.device}
    sums = {
        name: torch.zeros(call.num_heads, *statistic.shape(*size, text), **how)
        for name, statistic in statistics.items()
    }
    for tile in tiles(call, visibility, layout, softmax, item=item, text=text):
        for name, statistic in statistics.items():
            statistic.note(tile, sums[name])
    if top_k is None:
        return Swept(None, sums)
    seen = softmax.values > FLOOR
    strengths = (softmax.values - softmax.shifts[..., None]).exp_().div_(softmax.totals[..., None])
    positions = softmax.indices + (layout.key_position - layout.keys.start)
    return Swept((positions.where(seen, -1), strengths.where(seen, 0.0).float()), sums)
