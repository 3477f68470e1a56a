"""Attention rollout: where a row's information comes from when what every layer mixes is followed down to the tokens.

Abnar and Zuidema 2020, "Quantifying attention flow in Transformers", section 3: each layer mixes by ½ · (A + I), A
the mean of its heads. Of chosen rows it takes one pass over each layer, from the last to the first, and no table of all
pairs.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from regard.reading.call import AttentionCall, Visibility
from regard.reading.compute.tiles import Text, rows_of, tiles
from regard.reading.layouts import Layout


def rollout(
    layers: Sequence[tuple[AttentionCall, Visibility]], frame: Layout, *, item: int, rows: Sequence[int], text: Text
) -> Iterator[Float[Tensor, "row key"]]:
    """Of each layer, from the last of `layers` to the first: what of each row came from each position of its input."""
    device = layers[0][0].value.device
    count = frame.queries.stop - frame.queries.start
    flow = torch.zeros(len(rows), count, dtype=torch.float32, device=device)
    flow[torch.arange(len(rows)), torch.tensor(rows, device=device) - frame.query_position] = 1.0
    for call, visibility in reversed(layers):
        mixed = torch.zeros_like(flow)
        for tile in tiles(call, visibility, frame, rows_of(call, visibility, frame, k=0), item=item, text=text):
            mixed[:, tile.columns] += flow[:, tile.rows] @ tile.weights.sum(0).float() / call.num_heads
        flow = (flow + mixed) / 2
        yield flow
