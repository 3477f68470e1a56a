"""What decoding keeps between steps: one row a sentence of the source, one row a hypothesis of the target."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.attention.multi_head import Memory

# steps for which a past that is full makes room
ROOM = 8


@final
class Past:
    """What each step of each hypothesis left to look back at: written once, never moved.

    The beams of a sentence share one memory, a slot for each of their steps. `mask` is True for the slots that a
    hypothesis descends from: where hypotheses move, it moves alone. Slots that nothing descends from any more are
    dropped when room is needed.
    """

    mask: Bool[Tensor, "batch beam slot"]

    def __init__(self, batch_size: int, *, device: torch.device) -> None:
        self.steps = 0
        self.mask = torch.zeros(batch_size, 1, 0, dtype=torch.bool, device=device)
        self._layers: list[Memory] = []

    def begin_step(self) -> None:
        """A slot more for each hypothesis, which looks at it too."""
        batch_size, num_beams, used = self.mask.shape
        if self._layers and used + num_beams > self._layers[0].key.shape[2]:
            self._pack(torch.arange(batch_size, device=self.mask.device))
        own = torch.eye(num_beams, dtype=torch.bool, device=self.mask.device).expand(batch_size, -1, -1)
        self.mask = torch.cat([self.mask, own], dim=2)
        self.steps += 1

    def recall(self, layer: int, memory: Memory) -> tuple[Memory, Bool[Tensor, "batch beam slot"]]:
        """Add what the newest step left in a layer; returns all that the layer may look at, and who at what."""
        used, num_beams = self.mask.shape[2], self.mask.shape[1]
        if layer == len(self._layers):
            self._layers.append(Memory(*(_roomy(part, part.shape[2] + ROOM * num_beams) for part in memory)))
        for kept, new in zip(self._layers[layer], memory, strict=True):
            kept[:, :, used - num_beams : used] = new
        return Memory(*(kept[:, :, :used] for kept in self._layers[layer])), self.mask

    def select(self, sentences: Int[Tensor, " kept"], beams: Int[Tensor, "kept beam"]) -> None:
        """As `Cache.select`."""
        fewer = len(sentences) < len(self.mask)
        self.mask = self.mask[sentences[:, None], beams]
        if fewer:
            self._pack(sentences)

    def _pack(self, sentences: Int[Tensor, " kept"]) -> None:
        """Copy what is looked at, of these sentences, to where there is room again; `mask` is of them already."""
        live = self.mask.any(dim=1).int().sort(dim=1, descending=True, stable=True)
        # where a sentence has fewer live slots than another, dead ones fill up, which the mask hides
        slots = live.indices[:, : int(live.values.any(dim=0).sum())]
        num_beams = self.mask.shape[1]
        self.mask = self.mask.gather(2, slots[:, None].expand(-1, num_beams, -1))
        room = ROOM * num_beams
        self._layers = [Memory(*(_packed(part, sentences, slots, room) for part in memory)) for memory in self._layers]


@dataclass
class Cache:
    """Tensors whose first axis is the sentence (`source`) or sentence × beam (`hypotheses`), and, if any, a past.

    The source is stored once however many beams look at it.
    """

    source: list[Tensor]
    hypotheses: list[Tensor]
    batch_size: int
    past: Past | None = None

    def select(self, sentences: Int[Tensor, " kept"], beams: Int[Tensor, "kept beam"]) -> None:
        """Keep these sentences, in rising order; hypothesis j of the i-th kept goes on from its beam `beams[i, j]`."""
        if self.past is not None:
            self.past.select(sentences, beams)
        if self.hypotheses:
            num_beams = self.hypotheses[0].shape[0] // self.batch_size
            rows = (sentences[:, None] * num_beams + beams).flatten()
            self.hypotheses = [tensor.index_select(0, rows) for tensor in self.hypotheses]
        if len(sentences) < self.batch_size:
            self.source = [tensor.index_select(0, sentences) for tensor in self.source]
            self.batch_size = len(sentences)


def _roomy(part: Tensor, slots: int) -> Tensor:
    """An empty [batch head slot head_dim] in which each slot lies in one piece."""
    batch_size, num_heads, _, head_dim = part.shape
    return part.new_empty(batch_size, slots, num_heads, head_dim).transpose(1, 2)


def _packed(part: Tensor, sentences: Int[Tensor, " kept"], slots: Int[Tensor, "kept slot"], room: int) -> Tensor:
    rows = (sentences[:, None] * part.shape[2] + slots).flatten()
    packed = _roomy(part[: len(sentences)], slots.shape[1] + room)
    pieces = part.transpose(1, 2).flatten(0, 1).index_select(0, rows)
    packed[:, :, : slots.shape[1]] = pieces.unflatten(0, slots.shape).transpose(1, 2)
    return packed
