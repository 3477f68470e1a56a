"""Continuous batching: requests of any length share one row of tokens, and each attends to keys of its own.

transformers runs prompts in parts beside steps that write, and keeps keys in the pages of one cache: Kwon et al. 2023,
"Efficient memory management for large language model serving with PagedAttention", section 4. Here each request becomes
a sequence of runs, as if it had been alone.
"""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading import labels, layers
from regard.reading.call import AttentionCall, Visibility
from regard.reading.compute.rows import Wanted, chosen, note_rollout, read_call
from regard.reading.compute.statistics import ROLLOUT
from regard.reading.layouts import layouts_of
from regard.reading.runs import Generation, Run

KIND = "decoder"
# what transformers appends to the id of a request for each further sequence that is to be returned
CHILD = "__child#"


@dataclass(eq=False)
class Request:
    """One request: `state` is the manager's own, which goes on to hold what was written."""

    state: Any
    generation: Generation


@dataclass(eq=False)
class Batch:
    """The requests that a manager ran from one start on, in the order in which they were added."""

    thread: threading.Thread = field(default_factory=threading.current_thread)
    order: list[str] = field(default_factory=list)
    requests: dict[str, Request] = field(default_factory=dict)
    # why none of them can be read
    refused: str | None = None

    @property
    def ids(self) -> list[str]:
        """The requests that ran; the further sequences of one come before it, as `generate_batch` returns them."""
        added = {name: place for place, name in enumerate(self.order)}

        def place(name: str) -> tuple[int, int, int]:
            parent, _, child = name.partition(CHILD)
            is_child = child.isdigit()
            return added.get(parent, len(added)), int(not is_child), int(child) if is_child else 0

        return sorted(self.requests, key=place)

    @property
    def runs(self) -> list[Run]:
        return [run for request in self.requests.values() for run in request.generation.runs]

    @property
    def before(self) -> list[Run]:
        return []

    def generation(self, item: int, wanted: Wanted) -> Generation:
        """What one request wrote, and the runs in which it did.

        Raises RegardError where there is no such item, and where rows are wanted that another request ran.
        """
        if self.refused is not None:
            raise RegardError(self.refused)
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < len(self.requests):
            raise RegardError(f"there is no item {item!r}; {len(self.requests)} requests were run, counted from 0")
        request = self.requests[self.ids[item]]
        state, found = request.state, request.generation
        if state.error is not None:
            raise RegardError(f"request {state.request_id!r} failed while the model ran: {state.error}")
        found.sequences = torch.tensor([[*state.initial_tokens, *state.generated_tokens]])
        shared = found.first.start
        if shared >= (found.prompt or 0):
            raise RegardError(
                f"the steps that wrote request {state.request_id!r} were not all seen; read it afterwards"
            )
        of_all = [*wanted.swept, *(["top_k"] if wanted.top_k is not None else [])]
        of_all += [ROLLOUT] if ROLLOUT in wanted.statistics else []
        of_all += ["rows='all'"] if wanted.rows == "all" else []
        if not isinstance(wanted.rows, str) and any(
            row < shared for row in chosen(wanted.rows, found.sequences.shape[1])
        ):
            of_all.append(f"rows={wanted.rows!r}")
        if shared and of_all:
            raise RegardError(
                f"{of_all[0]} cannot be read of request {state.request_id!r}: it shares the keys of its positions 0 to "
                f"{shared - 1} with an earlier request, which ran them; read rows='generated', or generate with "
                "ContinuousBatchingConfig(allow_block_sharing=False)"
            )
        return found


class Packed:
    """What of a manager's batches is under way in a thread."""

    def __init__(
        self, recording: Any, model: nn.Module, paths: dict[int, list[str]], wanted: Wanted, numbers: Any
    ) -> None:
        self.recording = recording
        self.model = model
        self.paths = paths
        self.wanted = wanted
        self.layers = numbers
        # the runs of the requests in the step under way, in the order in which they are packed
        self.runs: list[Run] = []

    # the manager

    def started(self, manager: Any) -> None:
        """Its thread begins; what it runs belongs to the thread that started it."""
        batch = Batch()
        with self.recording.lock:
            self.recording.batches[manager] = batch
            self.recording.seen.append(batch)

    def added(self, manager: Any, ids: list[str]) -> None:
        """Requests were added in this order."""
        with self.recording.lock:
            batch = self._batch(manager)
            batch.order = [*(each for each in batch.order if each not in ids), *ids]

    def _batch(self, manager: Any) -> Batch:
        if manager not in self.recording.batches:
            # it was started before the watch was opened
            self.started(manager)
        return self.recording.batches[manager]

    def begin(self, manager: Any) -> None:
        """A step begins, of the requests that its inputs name."""
        inputs, self.runs = manager.batch_processor.inputs_and_outputs, []
        with self.recording.lock:
            batch = self._batch(manager)
            if hasattr(inputs, "io_pairs"):
                batch.refused = (
                    "asynchronous batching writes the inputs of a step while another runs, and is not read; generate "
                    "with ContinuousBatchingConfig(use_async_batching=False)"
                )
                return
            start = 0
            for each in inputs.requests_in_batch:
                tokens = inputs.input_ids[start : start + each.query_length].detach().to("cpu", torch.int64, copy=True)
                self.runs.append(self._run(batch, each.state, tokens))
                start += each.query_length

    def _run(self, batch: Batch, state: Any, tokens: Tensor) -> Run:
        """The run of one request in this step, which goes on from its last."""
        start = state.position_offset - len(tokens)
        request = batch.requests.get(state.request_id)
        if request is None:
            request = batch.requests[state.request_id] = Request(state, self._generation(batch, state, start))
        request.state, generation = state, request.generation
        run = Run(
            batch_size=1, start=start, length=len(tokens), tokens=tokens[None], known=torch.ones(1, len(tokens)) > 0
        )
        # where it lost its keys for want of memory, it begins anew, or after those that it finds again
        generation.runs = [run for run in generation.runs if run.start < start]
        if generation.runs and generation.runs[-1].start + generation.runs[-1].length < start:
            generation.runs = []
        run.generation = generation
        run.sides[KIND] = (None, None)
        if generation.runs:
            run.parent, run.parent_rows = generation.runs[-1], [0]
        generation.runs.append(run)
        return run

    def _generation(self, batch: Batch, state: Any, start: int) -> Generation:
        prompt = state._true_initial_tokens or len(state.initial_tokens)
        found = Generation(
            model=self.model,
            batch_size=1,
            is_pair=False,
            has_ids=True,
            end_ids=frozenset(state._eos_token_ids),
            prompt=prompt,
            ids=torch.tensor([state.initial_tokens[:prompt]]),
            thread=batch.thread,
        )
        parent = batch.requests.get(state.request_id.partition(CHILD)[0])
        if CHILD in state.request_id and parent is not None:
            # its prompt was run once for all sequences
            found.runs = [run for run in parent.generation.runs if run.start + run.length <= start]
        return found

    def end(self) -> None:
        runs, self.runs = self.runs, []
        for run in runs:
            note_rollout(run, self.wanted, self._text)

    # attention

    def saw(self, call: AttentionCall) -> bool:
        """Read a call of the step under way; whether there is one."""
        if not self.runs:
            return False
        key = (KIND, call.path, 0)
        with self.recording.lock:
            if key not in self.recording.numbers:
                number = layers.number_of(key, call.module, self.paths[id(call.module)], self.recording.numbers)
                self.recording.numbers[key] = number
        if self.layers is not None and self.recording.numbers[key] not in self.layers:
            return True
        for place, run in enumerate(self.runs):
            found = call.refused or self._read(run, call, place)
            if isinstance(found, dict) and key in run.pieces:
                found = "it calls its kernel several times in one run, for parts that are not told apart"
            if isinstance(found, str):
                run.refused.setdefault(key, found)
                run.pieces.pop(key, None)
            elif key not in run.refused:
                run.pieces[key] = [found]
        return True

    def _read(self, run: Run, call: AttentionCall, place: int) -> Any:
        own = alone(call, place)
        if isinstance(own, str):
            return own
        layouts = layouts_of(run, None, KIND, own, (0, 0))
        if isinstance(layouts, str):
            return layouts
        found = read_call(run, KIND, own, [*layouts.values()], self.wanted, self._text)
        return found if isinstance(found, str) else dict(zip(layouts, found.values(), strict=True))

    def _text(self, run: Run, kind: str, item: int, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        own = labels.ids_of(labels.of_sequence(run, item))
        return own, own


def alone(call: AttentionCall, place: int) -> AttentionCall | str:
    """The call of one of the requests that a call packs, or why there is none."""
    if call.packed is None:
        return "its keys are in a paged cache, and nothing says which request they belong to"
    ends, key_ends = call.packed
    if not place + 1 < min(len(ends), len(key_ends)) or ends[-1] > call.num_queries or key_ends[-1] > call.num_keys:
        return "its queries and keys are not as many as the requests of the batch have"
    queries, keys = slice(ends[place], ends[place + 1]), slice(key_ends[place], key_ends[place + 1])
    num_queries, num_keys = queries.stop - queries.start, keys.stop - keys.start
    masks = [each.mask for each in call.visibilities if each.mask is not None]
    if masks:
        found = [Visibility(mask=mask[:, :, queries, keys]) for mask in masks]
    else:
        windows = dict.fromkeys(each.window for each in call.visibilities)
        found = [Visibility(causal=num_keys - num_queries, window=window) for window in windows]
    return replace(
        call,
        query=call.query[:, :, queries],
        key=call.key[:, :, keys],
        value=call.value[:, :, keys],
        context=call.context[:, :, queries],
        visibilities=tuple(found),
        output=None,
        packed=None,
    )
