"""`regard.watching`: what a model attends to, read while it runs, whatever kernel it runs on.

Every attention call hands over the query, key and value that the kernel really got; rows are computed from them there
and then, proved by the context that the kernel gave, and put together into one `Reading` for each sequence.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from regard.attention.key_values import KeyValues
from regard.config import shows
from regard.errors import RegardError
from regard.reading import assemble, capture
from regard.reading import layers as naming
from regard.reading.call import AttentionCall
from regard.reading.compute.rows import Wanted, note_rollout, read_call
from regard.reading.options import ReadOptions, refuse_compiled
from regard.reading.record import Reading
from regard.reading.runs import Forward, Generation, LayerKey, batch_size_of, compose

# what models call the cache that they are given; `past` is Regard's own
CACHES = ("past_key_values", "cache_params", "past")


@final
class Watch:
    """What `watching` gives: while it is open it sees the model run, and `reading` tells what it saw."""

    def __init__(self, model: nn.Module, wanted: Wanted, *, layers: Sequence[int] | None, name: str) -> None:
        self.model = model
        self.name = name
        self.wanted = wanted
        self.layers = None if layers is None else frozenset(layers)
        # what it saw, in order: runs of the model that began a sequence of their own, and calls of generate
        self.seen: list[Forward | Generation] = []
        self.forwards: list[Forward] = []
        self.numbers: dict[LayerKey, int] = {}
        self.kinds: dict[str, str] = {}
        # of each module all its places in the model
        self._paths: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(id(module), []).append(path)
        self.hooks: list[RemovableHandle] = []
        self._num_running = 0
        self._closed = False
        self._lock = threading.RLock()
        self._local = threading.local()
        # of each cache that a run filled, that run and the rows that the cache's batch has now
        self._caches: dict[int, tuple[Any, Forward, list[int]]] = {}

    # what capture tells

    def owns(self, module: Any) -> bool:
        return id(module) in self._paths

    def path(self, module: nn.Module) -> str:
        return self._paths[id(module)][0]

    def reordered(self, cache: Any, rows: Callable[[int], list[int]]) -> None:
        with self._lock:
            if id(cache) in self._caches:
                cache, forward, pending = self._caches[id(cache)]
                self._caches[id(cache)] = (cache, forward, compose(rows, pending))

    @contextlib.contextmanager
    def generating(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Callable[[Any], None]]:
        """While `generate` runs; the function it gives takes what was returned."""
        if model is not self.model or getattr(self._local, "generation", None) is not None:
            yield lambda output: None
            return
        inputs = [*args[:1], *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds"))]
        given = next((tensor for tensor in inputs if isinstance(tensor, Tensor)), None)
        is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        ids = given is not None and not given.is_floating_point()
        generation = Generation(
            batch_size=(given.shape[0] if given is not None else batch_size_of(kwargs)) or 1,
            has_ids=is_encoder_decoder or ids,
            end_ids=_end_ids(model, kwargs),
            prompt=None if is_encoder_decoder or given is None else given.shape[1],
        )
        if is_encoder_decoder:
            self._local.source = (given if ids else None, kwargs.get("attention_mask"))
        with self._lock:
            self.seen.append(generation)
        self._local.generation = generation

        def note(output: Any) -> None:
            sequences = output if isinstance(output, Tensor) else getattr(output, "sequences", None)
            generation.sequences = None if sequences is None else sequences.detach().cpu()

        try:
            yield note
        finally:
            self._local.generation = None
            self._local.source = None
            self._local.loose = None

    def saw(self, call: AttentionCall) -> None:
        forward = self._current(call)
        if forward is None:
            return
        if call.hints.get("flat"):
            call = assemble.unflattened(call, forward.batch_size)
        if not hasattr(self.model, "config") and not forward.pieces and call.refused is None:
            # which axis of its inputs is the batch only such a model itself knows
            forward.batch_size = call.context.shape[0]
        kind = self._kind(call, forward)
        count = forward.calls.get((kind, call.path), 0)
        if count and forward.last is not None and naming.same_attention(forward.last, call):
            return
        forward.last = call
        forward.calls[kind, call.path] = count + 1
        key = (kind, call.path, count)
        with self._lock:
            if key not in self.numbers:
                self.numbers[key] = naming.number_of(key, call.module, self._paths[id(call.module)], self.numbers)
        if self.layers is not None and self.numbers[key] not in self.layers:
            return
        if kind in ("decoder", "cross") and not forward.looked:
            forward.looked = True
            if forward.length != call.num_queries and call.refused is None:
                # the model has put something before or between its tokens, or takes none
                forward.length, forward.tokens = call.num_queries, None
        found = call.refused or read_call(forward, kind, call, self.wanted)
        if call.hints.get("own") and count:
            found = "it multiplies several softmaxes, none of which is over all keys"
            first = (kind, call.path, 0)
            forward.refused[first] = found
            forward.pieces.pop(first, None)
        if isinstance(found, str):
            forward.refused[key] = found
        else:
            forward.pieces[key] = found

    def _kind(self, call: AttentionCall, forward: Forward) -> str:
        if call.path in self.kinds:
            return self.kinds[call.path]
        kind = naming.kind_of(call, self.model, forward)
        # of one key there is no telling whether those after it would be seen
        if call.num_keys > 1 or call.hints.get("table"):
            self.kinds[call.path] = kind
        return kind

    # runs of the model

    def running(self, stack: contextlib.ExitStack) -> bool:
        """The model is about to run in this thread, until which ends the stack is open; False if no one watches."""
        with self._lock:
            if self._closed:
                return False
            self._num_running += 1
        self._local.stacks = [*getattr(self._local, "stacks", ()), stack]
        return True

    def has_run(self) -> bool:
        """The model has run; False if that began before the watch was opened."""
        if not getattr(self._local, "stacks", None):
            return False
        self._local.stacks.pop().close()
        with self._lock:
            self._num_running -= 1
            self._unhook()
        return True

    def close(self) -> None:
        """Let go of the model, once no other thread runs it."""
        with self._lock:
            self._closed = True
            self._unhook()

    def _unhook(self) -> None:
        while self._closed and not self._num_running and self.hooks:
            self.hooks.pop().remove()

    def begins(self, kwargs: Mapping[str, Any]) -> None:
        """The model is about to run on these arguments."""
        cache = next((kwargs[name] for name in CACHES if kwargs.get(name) is not None), None)
        start = _length_of(cache)
        own_decoder = bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))
        # Regard's own model calls them tokens
        ids = kwargs.get("decoder_input_ids") if own_decoder else kwargs.get("input_ids", kwargs.get("tokens"))
        embeds = kwargs.get("decoder_inputs_embeds") if own_decoder else kwargs.get("inputs_embeds")
        if own_decoder and ids is None and embeds is None and isinstance(kwargs.get("labels"), Tensor):
            shift: Any = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
            ids = None if shift is None else shift(labels=kwargs["labels"])
        main = next((tensor for tensor in (ids, embeds) if isinstance(tensor, Tensor)), None)
        batch_size = main.shape[0] if main is not None else batch_size_of(dict(kwargs)) or 1
        parent, rows = None, []
        with self._lock:
            if cache is not None and start and id(cache) in self._caches:
                _, parent, rows = self._caches[id(cache)]
                if len(rows) != batch_size:
                    repeats = max(1, batch_size // len(rows))
                    rows = [row for row in rows for _ in range(repeats)]
        mask = kwargs.get("decoder_attention_mask" if own_decoder else "attention_mask")
        if isinstance(cache, KeyValues) and cache.padding is not None and main is not None:
            slots = torch.arange(start + main.shape[1], device=cache.padding.device)
            mask = slots >= cache.padding[:, None]
        source_ids, source_mask = getattr(self._local, "source", None) or (None, None)
        if own_decoder:
            source_ids = kwargs.get("input_ids") if source_ids is None else source_ids
            source_mask = kwargs.get("attention_mask") if kwargs.get("attention_mask") is not None else source_mask
        loose = getattr(self._local, "loose", None)
        forward = Forward(
            batch_size=batch_size,
            start=start,
            length=main.shape[1] if main is not None and main.dim() > 1 else 0,
            tokens=_kept(ids),
            source_tokens=_kept(source_ids),
            mask=_token_mask(mask),
            source_mask=_token_mask(source_mask),
            parent=parent,
            parent_rows=rows,
            encoder=loose if own_decoder else None,
            generation=getattr(self._local, "generation", None),
        )
        if parent is not None and forward.encoder is None:
            forward.encoder = parent.encoder
        self._local.forward = forward
        self._local.cache = cache
        self._enter(forward)

    def _enter(self, forward: Forward) -> None:
        with self._lock:
            self.forwards.append(forward)
            if forward.generation is not None:
                forward.generation.forwards.append(forward)
                return
            parent = forward.parent
            # what goes on is the last sequence seen; a run of which some rows end is kept for them
            if parent in self.seen and len(set(forward.parent_rows)) == parent.batch_size:
                self.seen.remove(parent)
            self.seen.append(forward)

    def ends(self, output: Any) -> None:
        """It has run."""
        forward, cache = self._local.forward, self._local.cache
        self._local.forward = self._local.cache = None
        forward.last = None
        with torch.no_grad():
            note_rollout(forward, self.wanted)
        returned = getattr(output, "past_key_values", None)
        with self._lock:
            for each in {id(cache): cache, id(returned): returned}.values():
                if isinstance(each, KeyValues) or hasattr(each, "get_seq_length"):
                    self._caches[id(each)] = (each, forward, list(range(forward.batch_size)))

    def _current(self, call: AttentionCall) -> Forward | None:
        """The run that a call is part of; None where that began before the watch was opened.

        An encoder that is called by itself is a run of its own.
        """
        forward = getattr(self._local, "forward", None)
        if forward is not None:
            return forward
        if self.hooks and _is_running(self.model):
            return None
        loose = getattr(self._local, "loose", None)
        if loose is None or any(path == call.path for _, path in loose.calls):
            source, mask = getattr(self._local, "source", None) or (None, None)
            batch_size = 1 if call.hints.get("flat") else call.context.shape[0]
            loose = Forward(batch_size=batch_size, tokens=_kept(source), mask=_token_mask(mask))
            self._local.loose = loose
            if getattr(self._local, "generation", None) is None:
                self._enter(loose)
        return loose

    # what is read

    def reading(self, item: int = 0, *, call: int = -1) -> Reading:
        """What was read of one sequence: of batch item `item`, or of that sequence which `generate` returned.

        `call` counts the sequences seen: runs that go on with one cache are one. Those are meant that the thread ran
        which asks, or all where it ran none. Raises RegardError if there is none.
        """
        own = [each for each in self.seen if each.thread is threading.current_thread()]
        seen = own or self.seen
        if not seen:
            raise RegardError("nothing was read: the model did not run under this watch, or attends in no known way")
        if not -len(seen) <= call < len(seen):
            raise RegardError(f"there is no call {call}; {len(seen)} were seen")
        return assemble.reading(self, seen[call], item)


@shows(ReadOptions)
@contextlib.contextmanager
def watching(model: Any, *, tokenizer: Any = None, name: str | None = None, **options: Any) -> Iterator[Watch]:
    """Read what `model`, of transformers or any torch module, attends to while it runs: `watch.reading(item)`.

    With a `tokenizer` the reading knows its text and can cut it into segments. The model's outputs stay bitwise what
    they are.
    Raises RegardError for options that make no sense and for a compiled model.
    """
    if not isinstance(model, nn.Module) and isinstance(getattr(model, "module", None), nn.Module):
        # what regard.load gives
        model, tokenizer, name = model.module, tokenizer or model.tokenizer, name or model.name
    if not isinstance(model, nn.Module):
        raise RegardError(f"watching takes a torch module, such as a transformers model, not {type(model).__name__}")
    refuse_compiled(model)
    read = ReadOptions.of(options)
    watch = Watch(
        model,
        Wanted(**vars(read), tokenizer=tokenizer),
        layers=read.layers_of(model),
        name=name or getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__,
    )
    signature = capture.argument_names(model)

    # torch has no lock on hooks: one that is being added or removed while another thread runs the model may be called
    # without kwargs
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        stack = contextlib.ExitStack()
        if kwargs is not None and watch.running(stack):
            stack.enter_context(capture.seeing())
            watch.begins({**dict(zip(signature, args, strict=False)), **kwargs})

    def after(module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if watch.has_run():
            watch.ends(rest[-1])

    # hooks would keep torch from running such a layer as one kernel
    if not isinstance(model, nn.TransformerEncoderLayer):
        watch.hooks.append(model.register_forward_pre_hook(before, with_kwargs=True))
        watch.hooks.append(model.register_forward_hook(after, with_kwargs=True, always_call=True))
    capture.open_watch(watch)
    try:
        yield watch
    finally:
        capture.close_watch(watch)
        watch.close()


def _is_running(model: nn.Module) -> bool:
    """Whether this thread is inside a run of a model."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals["self"] is model:
            return True
        frame = frame.f_back
    return False


def _kept(tokens: Any) -> Tensor | None:
    return tokens.detach().cpu() if isinstance(tokens, Tensor) and tokens.dim() == 2 else None


def _token_mask(mask: Any) -> Tensor | None:
    """True where a slot holds a token; None where nothing says so."""
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    return mask.detach().bool().cpu()


def _length_of(cache: Any) -> int:
    """How many slots a cache holds; a layer without attention counts none."""
    if isinstance(cache, KeyValues):
        return cache.length
    cache = getattr(cache, "self_attention_cache", cache)
    counting = [each for each in getattr(cache, "layers", None) or [cache] if hasattr(each, "get_seq_length")]
    return max((int(each.get_seq_length()) for each in counting), default=0)


def _end_ids(model: Any, kwargs: Mapping[str, Any]) -> frozenset[int]:
    config = kwargs.get("generation_config") or getattr(model, "generation_config", None)
    ends = kwargs.get("eos_token_id", getattr(config, "eos_token_id", None))
    ends = ends.tolist() if isinstance(ends, Tensor) else ends
    return frozenset([ends] if isinstance(ends, int) else ends or ())
