"""One watch in one thread: the run under way, and what is read of each attention call the moment it is made.

Queries and keys are let go of with the call; what stays is a `Recording` of plain data.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from regard.attention.key_values import KeyValues
from regard.generation.steps import cache_of
from regard.reading import labels, layers
from regard.reading.call import AttentionCall, by_item
from regard.reading.capture import session
from regard.reading.capture.paged import is_paged
from regard.reading.capture.patches import watch_runs
from regard.reading.capture.session import SESSION
from regard.reading.compute.rows import Wanted, note_rollout, read_call, unflattened
from regard.reading.layouts import layouts_of
from regard.reading.packed import Batch, Packed
from regard.reading.parts import Part, batch_size_of, part_of, pictures_of
from regard.reading.runs import Generation, LayerKey, Piece, Run, compose, end_ids, is_guided


@dataclass(eq=False)
class Recording:
    """What a watch has seen, in order: runs of the model that began a sequence of their own, and calls of generate."""

    seen: list[Run | Generation | Batch] = field(default_factory=list)
    numbers: dict[LayerKey, int] = field(default_factory=dict)
    # of each cache that a run filled, that run and the rows that the cache's batch has now
    caches: dict[int, tuple[Any, Run, list[int]]] = field(default_factory=dict)
    # of each manager of continuous batching, the requests that it runs
    batches: weakref.WeakKeyDictionary[Any, Batch] = field(default_factory=weakref.WeakKeyDictionary)
    # what failed outside of any run
    failures: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def reordered(self, cache: Any, rows: Callable[[int], list[int]]) -> None:
        """The rows of a cache's batch have been picked anew."""
        with self.lock:
            if id(cache) in self.caches:
                cache, run, pending = self.caches[id(cache)]
                self.caches[id(cache)] = (cache, run, compose(rows, pending))


class Recorder:
    """What of a watched model is under way in a thread."""

    def __init__(
        self,
        recording: Recording,
        model: Any,
        paths: dict[int, list[str]],
        wanted: Wanted,
        wanted_layers: frozenset[int] | None,
        *,
        is_one: bool = False,
    ) -> None:
        self.recording = recording
        self.model = model
        self.paths = paths
        self.wanted = wanted
        self.layers = wanted_layers
        self.packed = Packed(recording, model, paths, wanted, wanted_layers)
        # whether a batch of pictures is one sequence
        self.is_one = is_one
        # parts of the model that are running, the innermost last, and the run that they are
        self.parts: list[Part] = []
        self.run: Run | None = None
        # attention that no run of a model was seen around
        self.loose: Run | None = None
        # calls of generate that are running, the innermost last; the first is what the user called
        self.generations: list[Generation] = []
        # encoders that ran by themselves, by what they returned
        self.encoders: list[tuple[weakref.ref[Tensor] | None, Run]] = []
        # of each module that attended in this run: in which part, in which of its own runs, and how many before
        self._attended: dict[str, tuple[Part | None, int, int]] = {}
        self._last: AttentionCall | None = None

    # models

    def enter(self, module: nn.Module, given: dict[str, Any]) -> None:
        if is_paged(given.get("cache")):
            return
        if self.parts and self.parts[-1].module is module:
            # by way of its class's or its parent's forward
            self.parts.append(self.parts[-1])
            return
        outer = self.parts[-1] if self.parts else None
        generation = self.generations[-1] if self.generations else None
        fed = generation.ids if generation is not None and generation.model is module else None
        part = part_of(self.paths[id(module)][0], module, given, outer, fed)
        part.is_plain = part.is_plain and (generation is None or generation.is_plain)
        if outer is None:
            self.loose = None
            self.run = self._begin(part, given)
        self.parts.append(part)
        if self.run is not None:
            self.run.parts.append(part)

    def _begin(self, part: Part, given: dict[str, Any]) -> Run:
        run = Run(
            batch_size=1 if self.is_one else part.batch_size or 1,
            start=part.start,
            length=part.length,
            tokens=part.tokens,
            known=part.known,
            mask=part.mask,
            own=part,
            generation=self.generations[-1] if self.generations else None,
        )
        run.before = self._before(given)
        self._goes_on(run, part)
        if run.generation is not None and run.generation.model is part.module:
            run.generation.runs.append(run)
        return run

    def _goes_on(self, run: Run, part: Part) -> None:
        """Find the run that filled the cache."""
        cache, recording = part.cache, self.recording
        with recording.lock:
            if cache is not None and part.start and id(cache) in recording.caches:
                _, run.parent, rows = recording.caches[id(cache)]
                if len(rows) != run.batch_size:
                    repeats = max(1, run.batch_size // len(rows))
                    rows = [row for row in rows for _ in range(repeats)]
                run.parent_rows, run.ahead = rows, run.parent.ahead
                run.before = run.before or run.parent.before

    def _before(self, given: dict[str, Any]) -> list[Run]:
        """The runs of an encoder by itself whose output this run was given."""
        if self.generations:
            return list(self.generations[0].before)
        output = given.get("encoder_outputs")
        states = output[0] if isinstance(output, tuple | list) else getattr(output, "last_hidden_state", None)
        return [run for of, run in self.encoders if of is not None and states is not None and of() is states]

    def leave(self, module: nn.Module, output: Any) -> None:
        if not self.parts or self.parts[-1].module is not module:
            return
        part = self.parts.pop()
        if self.parts:
            return
        run, self.run = self.run, None
        self._attended.clear()
        self._last = None
        if run is None:
            return
        note_rollout(run, self.wanted, self._text)
        for key, pieces in run.pieces.items():
            fed = sum(_size(each)[0] for each in pieces)
            if len(pieces) > 1 and fed != run.totals.get(key):
                run.refused[key] = "it calls its kernel several times in one run, for parts that are not told apart"
        for key in run.refused:
            run.pieces.pop(key, None)
        self._ended(run, part, output)

    def _ended(self, run: Run, part: Part, output: Any) -> None:
        recording = self.recording
        with recording.lock:
            for each in (*(found.cache for found in run.parts), cache_of(output)):
                if isinstance(each, KeyValues) or hasattr(each, "get_seq_length"):
                    recording.caches[id(each)] = (each, run, list(range(run.batch_size)))
            for found in run.parts:
                found.cache = None
            if self.generations:
                if run.generation is None or run.generation.model is not part.module:
                    self.generations[0].before.append(run)
                return
            if part.module is not self.model:
                states = output[0] if isinstance(output, tuple) and output else output
                states = getattr(states, "last_hidden_state", states)
                of = weakref.ref(states) if isinstance(states, Tensor) else None
                self.encoders = [*self.encoders[-7:], (of, run)]
            # what goes on is the last sequence seen; a run of which some rows end is kept for them
            if run.parent in recording.seen and len(set(run.parent_rows)) == run.parent.batch_size:
                recording.seen.remove(run.parent)
            recording.seen.append(run)

    # generate

    def begin_generate(self, model: Any, given: dict[str, Any]) -> None:
        """`generate` of the model, or of one within it, begins."""
        inputs = [given.get(name) for name in ("inputs", "input_ids", "inputs_embeds")]
        main = next((tensor for tensor in inputs if isinstance(tensor, Tensor)), None)
        is_pair = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        has_ids = main is not None and not main.is_floating_point()
        mask = given.get("attention_mask")
        generation = Generation(
            model=model,
            batch_size=(main.shape[0] if main is not None else batch_size_of(given)) or 1,
            is_pair=is_pair,
            has_ids=is_pair or has_ids,
            end_ids=end_ids(model, given),
            prompt=None if is_pair or main is None or main.dim() < 2 else main.shape[1],
            is_plain=given.get("position_ids") is None and getattr(mask, "ndim", 2) == 2,
            ids=main.detach().cpu() if has_ids and main is not None and main.dim() == 2 and not is_pair else None,
            mask=mask.detach().bool().cpu() if isinstance(mask, Tensor) and mask.dim() == 2 and not is_pair else None,
            is_guided=is_guided(model, given),
            before=self.generations[0].before if self.generations else [],
        )
        if not self.generations:
            with self.recording.lock:
                self.recording.seen.append(generation)
        self.generations.append(generation)

    def prompted(self, ids: Any) -> None:
        """What a decoder after an encoder begins with."""
        generation = self.generations[-1] if self.generations else None
        if generation is not None and generation.is_pair and isinstance(ids, Tensor):
            generation.prompt = ids.shape[1]

    def masked(self, mask: Any) -> None:
        """What `generate` takes for padding."""
        generation = self.generations[-1] if self.generations else None
        is_wanted = generation is not None and not generation.is_pair and generation.mask is None
        if generation is not None and is_wanted and isinstance(mask, Tensor) and mask.dim() == 2:
            generation.mask = mask.detach().bool().cpu()

    def end_generate(self, output: Any) -> None:
        if not self.generations:
            return
        generation = self.generations.pop()
        sequences = output if isinstance(output, Tensor) else getattr(output, "sequences", None)
        if isinstance(sequences, Tensor) and sequences.dim() == 2:
            generation.sequences = sequences.detach().cpu()
        if not generation.runs:
            return
        for outer in self.generations:
            # a model that prepares its inputs itself, and has another generate from them
            if not outer.runs:
                vars(outer).update(vars(generation))
                for run in outer.runs:
                    run.generation = outer

    # attention

    def saw(self, call: AttentionCall) -> None:
        if self.packed.saw(call):
            return
        part = self.parts[-1] if self.parts else None
        run = self._current(call)
        if run is None:
            return
        main = None if part is None else part.main
        if call.flat:
            call = unflattened(call, (main.batch_size if main is not None else None) or run.batch_size)
        is_plain = not hasattr(self.model, "config")
        if is_plain and not run.pieces and call.refused is None:
            # which axis of its inputs is the batch only such a model itself knows
            run.batch_size = call.context.shape[0]
        is_writing = run.generation is not None and run.generation.model is self.parts[0].module
        kind = layers.kind_of(call, self.model, main, is_writing=is_writing)
        run.sides.setdefault(kind, self._sides(run, main, kind))
        key, order = self._key(part, kind, call)
        if key is None:
            return
        with self.recording.lock:
            if key not in self.recording.numbers:
                number = layers.number_of(key, call.module, self.paths[id(call.module)], self.recording.numbers)
                self.recording.numbers[key] = number
        if self.layers is not None and self.recording.numbers[key] not in self.layers:
            return
        if kind in ("decoder", "cross"):
            self._settle(run, part, call)
        for each in self._by_picture(run, kind, call):
            self._note(run, kind, key, order, each)

    def _note(self, run: Run, kind: str, key: LayerKey, order: str, call: AttentionCall) -> None:
        found = call.refused or self._read(run, kind, key, call)
        if order == "again" and isinstance(found, dict) and (kind not in ("vision", "encoder") or call.total is None):
            found = "it calls its kernel several times in one run, for parts that are not told apart"
        if order == "again" and call.weights is not None:
            found = "it multiplies several softmaxes, none of which is over all keys"
        if order == "elsewhere":
            found = "it ran more than once in one run of the model, over inputs of their own; watch that part by itself"
        if isinstance(found, str):
            run.refused[key] = found
            run.pieces.pop(key, None)
        elif key not in run.refused:
            if call.total is not None:
                run.totals[key] = call.total
            run.pieces.setdefault(key, []).append(found)

    def _by_picture(self, run: Run, kind: str, call: AttentionCall) -> list[AttentionCall]:
        """A call over several pictures or tiles of one sequence as one for each; else the call itself."""
        count = call.context.shape[0]
        is_theirs = (kind in ("vision", "queries", "resampler") or self.is_one) and call.refused is None
        return by_item(call) if is_theirs and run.batch_size == 1 < count <= pictures_of(self.parts) else [call]

    def _read(self, run: Run, kind: str, key: LayerKey, call: AttentionCall) -> Any:
        sizes = [_size(pieces) for pieces in run.pieces.get(key, [])]
        before = sum(queries for queries, _ in sizes), sum(keys for _, keys in sizes)
        layouts = layouts_of(run, run.sides[kind][1], kind, call, before)
        if isinstance(layouts, str):
            return layouts
        found = read_call(run, kind, call, [*layouts.values()], self.wanted, self._text)
        return found if isinstance(found, str) else dict(zip(layouts, found.values(), strict=True))

    def _sides(self, run: Run, main: Part | None, kind: str) -> tuple[Part | None, Part | None]:
        """The parts that were given the queries' and the keys' sequences; learned queries were given to none."""
        pictures = [each.sides["vision"][1] for each in (run, *reversed(run.before)) if "vision" in each.sides]
        if kind == "queries" or (kind == "resampler" and pictures):
            return None, pictures[0] if kind == "resampler" else None
        if kind != "cross":
            # an encoder that is no model of its own was given what the pair was
            own = main.source if main is not None and main.source is not None and kind != "decoder" else main
            return own, own
        attended = [run.sides[kind][0] for kind in ("encoder", "vision") if kind in run.sides]
        attended += [before.own for before in reversed(run.before) if before.own is not None]
        return main, next(iter(attended), None if run.own is None else run.own.source)

    def _text(self, run: Run, kind: str, item: int, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The ids at the positions that look and that are looked at, as many as these."""
        query_part, key_part = run.sides.get(kind, (None, None))
        own = labels.ids_of(labels.of_sequence(run, item)) if kind in ("decoder", "cross") else None
        query = own if own is not None else labels.ids_of(labels.of_part(query_part, item, run.batch_size, sizes[0]))
        key = own if kind == "decoder" else labels.ids_of(labels.of_part(key_part, item, run.batch_size, sizes[1]))
        assert key is not None
        return query, key

    def _settle(self, run: Run, part: Part | None, call: AttentionCall) -> None:
        """Find what the sequence that is written on was fed as, among the parts around its first attention."""
        if run.settled or not call.num_queries:
            return
        run.settled = True
        own = next((each for each in (part.chain if part is not None else ()) if each.length == call.num_queries), None)
        if own is None:
            if run.length == call.num_queries or call.refused is not None:
                return
            pixels = run.own is not None and run.own.pixels is not None and not run.start
            if pixels and layers.is_ahead(call, call.num_queries - run.length):
                run.put_ahead(call.num_queries - run.length)
            else:
                # the model has put something before or between its tokens, or takes none
                run.length, run.tokens, run.known = call.num_queries, None, None
            return
        if own is run.own:
            return
        outer = run.own
        run.start, run.length, run.tokens, run.known, run.own = own.start, own.length, own.tokens, own.known, own
        run.mask = own.mask if own.mask is not None or outer is None or outer.length != own.length else outer.mask
        if outer is not None and own.source is None:
            own.source = outer.source
        if run.parent is None:
            self._goes_on(run, own)

    def _key(self, part: Part | None, kind: str, call: AttentionCall) -> tuple[LayerKey | None, str]:
        """What a call's layer is known by, and whether it is seen "first", "again" in the same run of its module, or
        "elsewhere"; None where it asks what it asked before."""
        watch_runs(call.module)
        now = SESSION.runs.get(id(call.module), 0)
        known, last = self._attended.get(call.path), self._last
        self._last = call
        if known is None:
            self._attended[call.path] = (part, now, 0)
            return (kind, call.path, 0), "first"
        before, ran, count = known
        if last is not None and layers.same_attention(last, call):
            return None, "again"
        if before is not part or "forward" in vars(call.module):
            return (kind, call.path, count), "elsewhere"
        if now == ran:
            return (kind, call.path, count), "again"
        self._attended[call.path] = (part, now, count + 1)
        return (kind, call.path, count + 1), "first"

    def _current(self, call: AttentionCall) -> Run | None:
        """The run that a call is part of; None where that began before the watch was opened.

        Attention of a module that is called by itself is a run of its own.
        """
        if self.run is not None:
            return self.run
        if session.is_running(self.model):
            return None
        if self.loose is None or call.path in self._attended:
            self.loose = Run(batch_size=1 if call.flat else call.context.shape[0])
            self._attended.clear()
            with self.recording.lock:
                (self.generations[0].before if self.generations else self.recording.seen).append(self.loose)
        return self.loose

    def failed(self, path: str, error: Exception) -> None:
        """Something went wrong while reading; the layer, or the run, cannot be read."""
        for run in (runs := self.packed.runs or [each for each in (self.run or self.loose,) if each is not None]):
            run.failures.setdefault(path, f"reading it failed: {type(error).__name__}: {error}")
        if not runs:
            self.recording.failures.append(f"{type(error).__name__}: {error}")


def _size(pieces: dict[int, Piece]) -> tuple[int, int]:
    """The queries and keys of a call that was read."""
    first = next(iter(pieces.values()))
    return first.num_queries, first.num_keys
