"""Which calls are one run of a model, and which runs one sequence: prompt, steps on a cache, beams, `generate`.

Each run of the watched model is a `Run`; it goes on from another where it was given the cache that the other filled. A
row of its batch goes on from that row of the other which the cache was last reordered to.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from regard.reading.parts import Part
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
    scores: Float[Tensor, "head row key"] | None = None
    outside: Float[Tensor, "head row"] | None = None
    top: tuple[Int[Tensor, "head query k"], Float[Tensor, "head query k"]] | None = None
    statistics: dict[str, Tensor] = field(default_factory=dict)
    row_statistics: dict[str, Tensor] = field(default_factory=dict)
    # statistics that could not be made, and why
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Run:
    """One run of the model: what it was fed, where that stands, and what was read of it.

    `start`, `length`, `tokens`, `known` and `mask` are those of the sequence that is written on; `sides` has, of each
    kind, the parts that its queries and its keys came from, and how many there are of each. `ahead` counts what
    the model itself puts before its text: positions of a picture, which its mask leaves out.
    """

    batch_size: int
    start: int = 0
    length: int = 0
    tokens: Int[Tensor, "batch slot"] | None = None
    known: Bool[Tensor, "batch slot"] | None = None
    mask: Bool[Tensor, "batch slot"] | None = None
    ahead: int = 0
    parent: "Run | None" = None
    parent_rows: list[int] = field(default_factory=list)
    # runs of its encoder, of its vision model, by themselves before it
    before: list["Run"] = field(default_factory=list)
    # a model's name, by the order in which its parts ran
    parts: list[Part] = field(default_factory=list)
    own: Part | None = None
    # whether its first decoder attention has shown which part that is
    settled: bool = False
    sides: dict[str, tuple[Part | None, Part | None]] = field(default_factory=dict)
    pieces: dict[LayerKey, list[dict[int, Piece]]] = field(default_factory=dict)
    # of a layer that looks at parts of its input one after the other, how many queries there are in all
    totals: dict[LayerKey, int] = field(default_factory=dict)
    refused: dict[LayerKey, str] = field(default_factory=dict)
    generation: "Generation | None" = None
    thread: threading.Thread = field(default_factory=threading.current_thread)
    # of each kind what its rollout takes: call, visibility, layouts and pieces of every layer so far
    layers: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    # ids and segments at all positions, by kind, item and how many they are
    texts: dict[tuple[str, int, tuple[int, int]], Any] = field(default_factory=dict)
    # statistics that wait for what comes after their attention
    outputs: list[Any] = field(default_factory=list)
    # attention of this run failed to be recorded, by module path
    failures: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """What has not come by now does not come."""
        while self.outputs:
            self.outputs.pop().close()

    def real(self, item: int) -> Bool[Tensor, " slot"]:
        """Which slots up to the last that was fed are tokens: one origin for queries, keys and names."""
        total = self.start + self.length
        if self.mask is not None and self.ahead + self.mask.shape[1] >= total:
            mask = self.mask[self.row(item, len(self.mask))]
            return functional.pad(mask, (self.ahead, 0), value=True)[:total]
        found = torch.ones(total, dtype=torch.bool)
        generation = self.generation
        if generation is not None and generation.mask is not None and generation.runs:
            begin = 0 if generation.mask.shape[1] > (generation.prompt or 0) else generation.offset
            mask = generation.mask[self.row(item, len(generation.mask)), : max(0, total - begin)]
            found[begin : begin + len(mask)] = mask
        return found

    def put_ahead(self, count: int) -> None:
        """A picture, which is no tokens, stands before what it was fed."""
        self.ahead, self.length = count, self.length + count
        if self.tokens is not None and self.known is not None:
            self.tokens = functional.pad(self.tokens, (count, 0), value=-1)
            self.known = functional.pad(self.known, (count, 0), value=False)

    def row(self, item: int, count: int) -> int:
        """Which of the `count` rows of what came before the batch was expanded belongs to an item of it."""
        size = self.batch_size
        if self.generation is not None and self.generation.is_guided and size == 2 * self.generation.batch_size:
            # with the prompt first, then without
            size, item = size // 2, item % (size // 2)
        return min(item * count // size, count - 1)

    def position(self, item: int, slot: int) -> int:
        """How many tokens of an item stand before a slot."""
        return int(self.real(item)[:slot].sum())


@dataclass(eq=False)
class Generation:
    """One call of `generate`: its runs and what it returned.

    `prompt` counts the slots it was given, `ids` are these where they are ids; None of a decoder after an encoder,
    whose first run says what it was fed. `mask` says which of them are tokens.
    """

    model: Any
    batch_size: int
    is_pair: bool
    has_ids: bool
    end_ids: frozenset[int]
    prompt: int | None = None
    ids: Int[Tensor, "batch slot"] | None = None
    mask: Bool[Tensor, "batch slot"] | None = None
    # whether its caller left positions to it, and gave no mask of pairs
    is_plain: bool = True
    # two runs in one batch, with the prompt and without
    is_guided: bool = False
    runs: list[Run] = field(default_factory=list)
    before: list[Run] = field(default_factory=list)
    sequences: Int[Tensor, "sequence slot"] | None = None
    thread: threading.Thread = field(default_factory=threading.current_thread)

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def prompt_length(self) -> int:
        """Slots before the first that is written."""
        if self.prompt is None:
            return self.first.start + self.first.length
        return self.prompt + self.offset if self.has_ids else self.first.start + self.prompt

    @property
    def offset(self) -> int:
        """How many slots stand before what is returned: a prompt of embeddings, what a cache held, what is no token."""
        first = self.first
        if self.is_pair:
            return 0
        if not self.has_ids:
            return first.start + (self.prompt or first.length)
        if first.tokens is None:
            return max(0, self._prefilled() - (self.prompt or first.length))
        if first.start == 0 or self.ids is None:
            # what is no token stands first
            return int((first.tokens[0] < 0).cumprod(0).sum()) if first.start == 0 else 0
        # it was given all ids, or those alone that its cache did not hold
        rest = self.ids[:, first.start : first.start + first.length]
        given_all = rest.shape[1] > 0 and torch.equal(rest, first.tokens[: len(rest), : rest.shape[1]])
        return 0 if given_all else first.start

    def _prefilled(self) -> int:
        """The slots that were fed before anything was written: a prompt may be fed in parts."""
        fed = 0
        for run in self.runs:
            if run is not self.first and (run.start != fed or run.length <= 1):
                break
            fed = run.start + run.length
            if fed >= (self.prompt or 0):
                break
        return fed


# a run, the row of its batch that is meant, and how many of the slots it was fed belong to the sequence
Step = tuple[Run, int, int]


def path_of(leaf: Run, row: int) -> list[Step]:
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
    order = [run for run in generation.runs if run.length]
    offset, prompt = (generation.offset, generation.prompt_length) if generation.runs else (0, 0)
    for run in order:
        is_first = run.parent is None or run.parent not in order
        for row in _rows_of(generation, run, item):
            before = None
            if not is_first and run.parent is not None:
                before = (id(run.parent), run.parent_rows[row])
                if before not in matched or matched[before][0][2] < run.start - run.parent.start:
                    continue
            if run.tokens is None:
                # a step writes one token: what embeddings are fed with it in a cache are not the sequence's
                is_fed = is_first or run.length == 1 or run.start + run.length <= prompt
                same = run.length if is_fed else 0
            else:
                begin = run.start - offset
                own = run.tokens[row]
                if begin < 0:
                    own, begin = own[-begin:], 0
                expected = wanted[begin : begin + len(own)]
                agrees = int((own[: len(expected)] == expected).cumprod(0).sum())
                same = run.length - len(own) + agrees if agrees or not len(own) else 0
            if same:
                matched[id(run), row] = ((run, row, same), before)
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
        (run, row, same), before = matched[best]
        if steps:
            same = min(same, steps[-1][0].start - run.start)
        steps.append((run, row, same))
        best = before
    return _cut_at_end(steps[::-1], wanted, generation, offset)


def _rows_of(generation: Generation, run: Run, item: int) -> Iterator[int]:
    """The rows of a run's batch that may have led to a returned sequence."""
    assert generation.sequences is not None
    own = item * generation.batch_size // len(generation.sequences)
    size = run.batch_size // (2 if generation.is_guided and run.batch_size == 2 * generation.batch_size else 1)
    per_item = max(1, size // generation.batch_size)
    for row in range(size):
        if row // per_item == own or size < generation.batch_size:
            yield row


def _cut_at_end(steps: list[Step], wanted: Tensor, generation: Generation, offset: int) -> list[Step]:
    """Without what was fed the end of sequence, or the padding after it, or the last token, which wrote nothing."""
    prompt = max(0, generation.prompt_length - offset)
    ends = [slot for slot in range(prompt, len(wanted)) if int(wanted[slot]) in generation.end_ids]
    if len(wanted) <= prompt:
        return steps
    end = (ends[0] if ends else len(wanted) - 1) + offset
    return [(run, row, min(same, end - run.start)) for run, row, same in steps if run.start < end]


def compose(rows: Callable[[int], list[int]], pending: list[int]) -> list[int]:
    """Rows after one more reordering of a cache."""
    return [pending[row] for row in rows(len(pending))]


def end_ids(model: Any, given: dict[str, Any]) -> frozenset[int]:
    """The ids at which `generate`, given these arguments, ends a sequence."""
    config = given.get("generation_config") or getattr(model, "generation_config", None)
    ends = given.get("eos_token_id", getattr(config, "eos_token_id", None))
    ends = ends.tolist() if isinstance(ends, Tensor) else ends
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def is_guided(model: Any, given: dict[str, Any]) -> bool:
    """Whether it runs each prompt twice, with and without what is to guide it."""
    configs = (given.get("generation_config"), getattr(model, "generation_config", None))
    scales = [given.get("guidance_scale"), *(getattr(config, "guidance_scale", None) for config in configs)]
    scale = next((each for each in scales if each is not None), None)
    return scale is not None and scale != 1
