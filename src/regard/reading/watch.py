"""`regard.watching`: what a model attends to, read while it runs, whatever kernel it runs on.

Every attention call hands over the query, key and value that the kernel really got; rows are computed from them there
and then, proved by the context that the kernel gave, and put together into one `Reading` for each sequence.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

from torch import nn

from regard.config import shows
from regard.errors import RegardError
from regard.reading import assemble
from regard.reading.capture import patches
from regard.reading.compute.rows import Wanted
from regard.reading.options import ReadOptions, refuse_compiled
from regard.reading.reading import Reading
from regard.reading.recorder import Recorder, Recording
from regard.reading.runs import LayerKey, Run


@final
class Watch:
    """What `watching` gives: while it is open it sees the model run, and `reading` gives what it saw.

    `len(watch)` sequences can be read, and iterating over it gives their readings.
    """

    sees_again = False
    intervenes = False

    def __init__(self, model: nn.Module, wanted: Wanted, *, layers: Sequence[int] | None, name: str) -> None:
        self.model = model
        self.name = name
        self.wanted = wanted
        self.layers = None if layers is None else frozenset(layers)
        self.recording = Recording()
        # whether a batch of pictures is read as one sequence; told before the model runs
        self.is_one = False
        # of each module all its places in the model
        self._paths: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(id(module), []).append(path)
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"<Watch on {self.name}: {len(self.recording.seen)} calls seen>"

    @property
    def numbers(self) -> dict[LayerKey, int]:
        """The numbers of the layers seen, by kind, module path, and how often the module was called before in a run."""
        return dict(self.recording.numbers)

    # what capture asks

    def owns(self, module: Any) -> bool:
        return id(module) in self._paths

    def path(self, module: nn.Module) -> str:
        return self._paths[id(module)][0]

    def reordered(self, cache: Any, rows: Callable[[int], list[int]]) -> None:
        self.recording.reordered(cache, rows)

    def recorder(self) -> Recorder:
        if not hasattr(self._local, "recorder"):
            self._local.recorder = Recorder(
                self.recording, self.model, self._paths, self.wanted, self.layers, is_one=self.is_one
            )
        return self._local.recorder

    # what is read

    def reading(self, item: int = 0, *, call: int = -1) -> Reading:
        """What was read of one sequence: of batch item `item`, or of that sequence which `generate` returned.

        `call` counts the sequences seen: runs that go on with one cache are one. Those are meant that the thread ran
        which asks, or all where it ran none. Raises RegardError if there is none.
        """
        return assemble.reading(self, self._call(call), item)

    def readings(self, *, call: int = -1) -> list[Reading]:
        """What was read of every sequence of a call: of each batch item, or each sequence that `generate` returned."""
        seen = self._call(call)
        return [assemble.reading(self, seen, item) for item in range(assemble.count(seen))]

    def __len__(self) -> int:
        return assemble.count(self._call(-1)) if self.recording.seen else 0

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.readings() if self.recording.seen else ())

    def _call(self, call: int) -> Any:
        own = [each for each in self.recording.seen if each.thread is threading.current_thread()]
        seen = own or self.recording.seen
        if not seen:
            why = (
                f"reading it failed: {self.recording.failures[0]}"
                if self.recording.failures
                else "the model did not run under this watch, ran compiled or traced (torch.compile, torch.export), or "
                "attends in no known way"
            )
            raise RegardError(f"nothing was read: {why}")
        if not isinstance(call, int) or not -len(seen) <= call < len(seen):
            raise RegardError(f"there is no call {call}; {len(seen)} were seen")
        return seen[call]


def models_within(model: nn.Module) -> list[nn.Module]:
    """The model and the models within it: what transformers gives a sequence of its own."""
    within: list[Any] = [module for module in model.modules() if hasattr(module, "main_input_name")]
    # FSMT's encoder is a plain module
    pairs = (each for each in within if getattr(getattr(each, "config", None), "is_encoder_decoder", False))
    found = [model, *within, *(getattr(each, "encoder", None) for each in pairs)]
    return list({id(module): module for module in found if isinstance(module, nn.Module)}.values())


@shows(ReadOptions)
@contextlib.contextmanager
def watching(model: Any, *, tokenizer: Any = None, name: str | None = None, **options: Any) -> Iterator[Watch]:
    """Read what `model`, of transformers or any torch module, attends to while it runs: `watch.reading(item)`.

    With a `tokenizer` the reading knows its text and can cut it into segments. The model's outputs stay bitwise what
    they are, and whatever goes wrong while it is read leaves its run alone.
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
    try:
        with patches.opened(watch, models_within(model)):
            yield watch
    finally:
        for seen in watch.recording.seen:
            for run in [seen] if isinstance(seen, Run) else [*seen.runs, *seen.before]:
                run.close()
        # a cache is large, and nothing goes on with it unseen
        watch.recording.caches.clear()
        watch.recording.batches.clear()
