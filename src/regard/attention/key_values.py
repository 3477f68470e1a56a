"""What a language model keeps of the tokens it was fed: keys and values of every layer, in room made once."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor


@final
class Queries:
    """The query of each run's newest token and its context, layer by layer: with the keys they give the weights."""

    def __init__(self) -> None:
        # of each run what all layers asked and what they got
        self._runs: list[tuple[Sequence[Tensor] | Tensor, Sequence[Tensor] | Tensor]] = []

    def add(
        self,
        layer: int,
        query: Float[Tensor, "batch head new head_dim"],
        context: Float[Tensor, "batch head new head_dim"],
    ) -> None:
        """Enter what one layer did."""
        if layer == 0:
            self._runs.append(([], []))
        for found, new in zip(self._runs[-1], (query, context), strict=True):
            assert isinstance(found, list)
            found.append(new[:, :, -1:])

    def add_run(
        self,
        queries: Float[Tensor, "layer batch head 1 head_dim"],
        contexts: Float[Tensor, "layer batch head 1 head_dim"],
    ) -> None:
        """Enter what all layers did with one token."""
        self._runs.append((queries, contexts))

    def layers(self) -> list[tuple[Float[Tensor, "batch head row head_dim"], Float[Tensor, "batch head row head_dim"]]]:
        """Queries and contexts of every layer, a row a run."""
        queries, contexts = (
            torch.cat([_stacked(run) for run in runs], dim=3) for runs in zip(*self._runs, strict=True)
        )
        return list(zip(queries, contexts, strict=True))


def _stacked(layers: Sequence[Tensor] | Tensor) -> Float[Tensor, "layer ..."]:
    return layers if isinstance(layers, Tensor) else torch.stack(list(layers))


@final
class KeyValues:
    """Keys and values of at most `room` tokens of each sequence, written in place and never moved.

    `layers` are the keys and values of each layer with all their room. `padding` says how many slots at the beginning
    of each sequence hold no token; `queries` notes who looked, where that is wanted.
    """

    def __init__(
        self, room: int, *, padding: Int[Tensor, " batch"] | None = None, queries: Queries | None = None
    ) -> None:
        self.room = room
        self.length = 0
        self.padding = padding
        self.queries = queries
        self.layers: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def of(cls, layers: list[tuple[Tensor, Tensor]], length: int, queries: Queries | None = None) -> "KeyValues":
        """Over tensors that are there, [batch head slot head_dim], of which so many slots are filled."""
        past = cls(layers[0][0].shape[2], queries=queries)
        past.layers, past.length = layers, length
        return past

    def add(
        self,
        layer: int,
        key: Float[Tensor, "batch head new head_dim"],
        value: Float[Tensor, "batch head new head_dim"],
    ) -> tuple[Float[Tensor, "batch head key head_dim"], Float[Tensor, "batch head key head_dim"]]:
        """Enter what a layer made of the newest tokens; all that it may look at. The model moves `length` on."""
        if layer == len(self.layers):
            size = (key.shape[0], key.shape[1], self.room, key.shape[3])
            # a CPU's kernels for a single query are slow in half precision
            dtype = torch.float32 if key.device.type == "cpu" and key.dtype.itemsize == 2 else key.dtype
            self.layers.append((key.new_empty(size, dtype=dtype), key.new_empty(size, dtype=dtype)))
        end = self.length + key.shape[2]
        assert end <= self.room, (end, self.room)
        for kept, new in zip(self.layers[layer], (key, value), strict=True):
            kept[:, :, self.length : end] = new.detach()
        if self.length and key.requires_grad:
            # gradients flow through the newest tokens; what is kept has none
            past = (kept[:, :, : self.length] for kept in self.layers[layer])
            return tuple(torch.cat(parts, dim=2) for parts in zip(past, (key, value), strict=True))  # pyright: ignore
        # of a first run all that there is, which for many queries is better in the model's own precision
        return (key, value) if self.length == 0 else self.layer(layer, end)

    def layer(
        self, layer: int, end: int
    ) -> tuple[Float[Tensor, "batch head key head_dim"], Float[Tensor, "batch head key head_dim"]]:
        """Keys and values of the first slots."""
        keys, values = self.layers[layer]
        return keys[:, :, :end], values[:, :, :end]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these sequences only, each as often as it is named."""
        self.layers = [(key[rows], value[rows]) for key, value in self.layers]
        if self.padding is not None:
            self.padding = self.padding[rows]

    def longest(self, end: int) -> int:
        """How many tokens the longest sequence has in so many slots."""
        return end if self.padding is None else end - int(self.padding.min())
