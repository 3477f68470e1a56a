"""Which calls of a model make up one sequence: a prompt, then one step after another on the same cache, beams and all.

Each run of the model is a `Forward`; it goes on from another where it was given the cache that the other filled. A row
of its batch goes on from that row of the other which the cache was last reordered to.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.reading.call import AttentionCall
from regard.reading.compute.tiles import Text
from regard.reading.record import Check

# what a layer is known by while it is read: kind, module path, and how often the module was called before in one run
LayerKey = tuple[str, str, int]


@dataclass(eq=False)
class Piece:
    """What one call gave of one layer and item, all in positions of the sequence.

    `rows` are the kept queries, whose weights begin with key `first_key`; the queries of top and per-query statistics
    begin with `first_query`.
    """

    check: Check
    first_query: int = 0
    num_queries: int = 0
    first_key: int = 0
    num_keys: int = 0
    rows: list[int] = field(default_factory=list)
    weights: Float[Tensor, "head row key"] | None = None
    outside: Float[Tensor, "head row"] | None = None
    top: tuple[Int[Tensor, "head query k"], Float[Tensor, "head query k"]] | None = None
    statistics: dict[str, Tensor] = field(default_factory=dict)
    row_statistics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Forward:
    """One run of the model: what it was fed, where that stands, and what was read of it.

    Slots count what the cache holds, padding included. `masks` are true where a slot of a side is a token.
    """

    batch_size: int
    start: int = 0
    length: int = 0
    tokens: Int[Tensor, "batch slot"] | None = None
    source_tokens: Int[Tensor, "batch slot"] | None = None
    mask: Tensor | None = None
    source_mask: Tensor | None = None
    parent: "Forward | None" = None
    parent_rows: list[int] = field(default_factory=list)
    encoder: "Forward | None" = None
    pieces: dict[LayerKey, dict[int, Piece]] = field(default_factory=dict)
    refused: dict[LayerKey, str] = field(default_factory=dict)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    generation: "Generation | None" = None
    thread: threading.Thread = field(default_factory=threading.current_thread)
    last: AttentionCall | None = None
    # whether a decoder has attended
    looked: bool = False
    texts: dict[tuple[str, int], Text] = field(default_factory=dict)
    # of each kind what its rollout takes: call, visibility, frames and pieces of every layer so far
    layers: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def first(self, item: int) -> int:
        """The slot of the item's first token."""
        return 0 if self.mask is None else int(self.mask[item].to(torch.uint8).argmax())


@dataclass(eq=False)
class Generation:
    """One call of `generate`: its runs and what it returned."""

    batch_size: int
    has_ids: bool
    end_ids: frozenset[int]
    # slots of the prompt, padding included; of a decoder after an encoder those that its first run was fed
    prompt: int | None = None
    forwards: list[Forward] = field(default_factory=list)
    sequences: Int[Tensor, "sequence slot"] | None = None
    thread: threading.Thread = field(default_factory=threading.current_thread)

    @property
    def prompt_length(self) -> int:
        if self.prompt is None:
            return self.forwards[0].length
        return self.prompt + self.offset if self.has_ids else self.prompt

    @property
    def offset(self) -> int:
        """How many slots stand before what is returned: all of a prompt of embeddings, or those of what is no token."""
        first = self.forwards[0]
        if first.tokens is not None or (self.has_ids and self.prompt is None):
            return 0
        return first.length - (self.prompt or 0) if self.has_ids else self.prompt or first.length


# a run, the row of its batch that is meant, and how many of the slots it was fed belong to the sequence
Step = tuple[Forward, int, int]


def path_of(leaf: Forward, row: int) -> list[Step]:
    """The runs that a row of the last of them goes back to, the first first."""
    steps: list[Step] = [(leaf, row, leaf.length)]
    while leaf.parent is not None:
        row = leaf.parent_rows[row]
        steps.append((leaf.parent, row, min(leaf.parent.length, leaf.start - leaf.parent.start)))
        leaf = leaf.parent
    return steps[::-1]


def follow(generation: Generation, item: int) -> list[Step] | None:
    """The runs by which a returned sequence came about, or None if there are none that were fed its very tokens."""
    assert generation.sequences is not None
    wanted = generation.sequences[item]
    # (run, row) whose fed tokens are the sequence's, with how many of them are
    matched: dict[tuple[int, int], tuple[Step, tuple[int, int] | None]] = {}
    order = [forward for forward in generation.forwards if forward.length]
    own = item * generation.batch_size // len(generation.sequences)
    offset = generation.offset if generation.forwards else 0
    for forward in order:
        is_first = forward.parent is None or forward.parent not in order
        per_item = max(1, forward.batch_size // generation.batch_size)
        for row in range(forward.batch_size):
            if row // per_item != own and forward.batch_size >= generation.batch_size:
                continue
            before = None
            if not is_first and forward.parent is not None:
                before = (id(forward.parent), forward.parent_rows[row])
                if before not in matched or matched[before][0][2] < forward.start - forward.parent.start:
                    continue
            if forward.tokens is None:
                same = forward.length
            else:
                begin = forward.start - offset
                expected = wanted[begin : begin + forward.length]
                agrees = forward.tokens[row, : len(expected)] == expected
                same = int(agrees.cumprod(0).sum())
            if same:
                matched[id(forward), row] = ((forward, row, same), before)
    # the run that comes furthest, and of such the row that the sequence has by itself
    best = max(
        matched,
        key=lambda key: (matched[key][0][0].start + matched[key][0][2], matched[key][0][1] == item),
        default=None,
    )
    if best is None:
        return None
    steps: list[Step] = []
    while best is not None:
        (forward, row, same), before = matched[best]
        if steps:
            same = min(same, steps[-1][0].start - forward.start)
        steps.append((forward, row, same))
        best = before
    return _cut_at_end(steps[::-1], wanted, generation, offset)


def _cut_at_end(steps: list[Step], wanted: Tensor, generation: Generation, offset: int) -> list[Step]:
    """Without the runs that were fed the end of sequence, or the padding after it."""
    prompt = steps[0][2] - offset
    ends = [slot for slot in range(prompt, len(wanted)) if int(wanted[slot]) in generation.end_ids]
    if not ends:
        return steps
    end = ends[0] + offset
    return [(forward, row, min(same, end - forward.start)) for forward, row, same in steps if forward.start < end]


def leaves(forwards: Sequence[Forward]) -> list[Forward]:
    """The runs from which no other goes on, in order."""
    parents = {id(forward.parent) for forward in forwards if forward.parent is not None}
    return [forward for forward in forwards if id(forward) not in parents]


def compose(rows: Callable[[int], list[int]], pending: list[int]) -> list[int]:
    """Rows after one more reordering of a cache."""
    return [pending[row] for row in rows(len(pending))]


def ancestors(forward: Forward | None) -> Iterator[Forward]:
    while forward is not None:
        yield forward
        forward = forward.parent


def batch_size_of(value: Any) -> int | None:
    """How many sequences there are in the first tensor found among a model's inputs."""
    if isinstance(value, Tensor):
        return value.shape[0] if value.dim() else None
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((size for size in map(batch_size_of, value) if size is not None), None)
    return None
