"""What a language model keeps of the tokens it was fed: keys and values of every layer, in room made once."""

from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor


@final
class KeyValues:
    """Keys and values of at most `room` tokens of each sequence, written in place and never moved.

    `padding` says how many slots at the beginning of each sequence hold no token, `hidden` which slots no token that is
    still to come may look at.
    """

    def __init__(self, room: int, *, padding: Int[Tensor, " batch"] | None = None) -> None:
        self.room = room
        self.length = 0
        self.padding = padding
        self.hidden: Bool[Tensor, "batch slot"] | None = None
        self._layers: list[tuple[Tensor, Tensor]] = []

    def add(
        self,
        layer: int,
        key: Float[Tensor, "batch head new head_dim"],
        value: Float[Tensor, "batch head new head_dim"],
    ) -> tuple[Float[Tensor, "batch head key head_dim"], Float[Tensor, "batch head key head_dim"]]:
        """Enter what a layer made of the newest tokens; all that it may look at. The model moves `length` on."""
        if layer == len(self._layers):
            size = (key.shape[0], key.shape[1], self.room, key.shape[3])
            self._layers.append((key.new_empty(size), key.new_empty(size)))
        end = self.length + key.shape[2]
        assert end <= self.room, (end, self.room)
        for kept, new in zip(self._layers[layer], (key, value), strict=True):
            kept[:, :, self.length : end] = new
        keys, values = self._layers[layer]
        return keys[:, :, :end], values[:, :, :end]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these sequences only, each as often as it is named."""
        self._layers = [(key[rows], value[rows]) for key, value in self._layers]
        if self.padding is not None:
            self.padding = self.padding[rows]
        if self.hidden is not None:
            self.hidden = self.hidden[rows]

    def longest(self, end: int) -> int:
        """How many tokens the longest sequence has in so many slots."""
        return end if self.padding is None else end - int(self.padding.min())
