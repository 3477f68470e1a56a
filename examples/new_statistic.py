"""A statistic of your own: one entry in STATISTICS, and it is in readings, tables, pictures and the viewer."""

import torch

import regard
from regard.reading.compute.statistics import STATISTICS, Statistic
from regard.reading.compute.tiles import Tile


def previous(tile: Tile) -> torch.Tensor:
    """Weight on the token just before: weights[i, i - 1], computed tile by tile, [head, query]."""
    before = tile.queries[:, None] - 1 == tile.keys
    return (tile.weights * before).sum(-1)


STATISTICS["previous_token"] = Statistic(
    axes=("head", "query"),
    label="previous token",
    label_zh="前一词元",
    unit="share",
    meaning="weights[i, i − 1]",
    compute=previous,
)

model = regard.load("smollm2")
assert isinstance(model, regard.LanguageModel)
reading = model.read(text="The lamp was mended, and the lamp burned.", rows="all", statistics=("previous_token",))
for layer in reading.layers("decoder"):
    print(layer, reading.statistic("previous_token", "decoder", layer)[:, 1:].mean(axis=1).round(3))
reading.plot("heads", "previous.png", statistic="previous_token")
