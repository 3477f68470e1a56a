"""A watch that sees a model's attention layer by layer, for what is computed of each layer while the model runs."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import nn

from regard.errors import RegardError
from regard.reading import layers
from regard.reading.call import AttentionCall
from regard.reading.capture import patches, session
from regard.reading.capture.patches import watch_runs
from regard.reading.compute.rows import unflattened
from regard.reading.parts import Part, part_of
from regard.reading.runs import LayerKey
from regard.reading.watch import models_within


class _Thread(threading.local):
    """What of a watched model is under way in a thread."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        # of each module, in which of its own runs it attended last, and how many came before
        self.attended: dict[str, tuple[int, int]] = {}


class LayerWatch(session.CallWatch):
    """Sees the attention of one kind in a model, by layers that are numbered as a reading numbers them.

    `shapes` has the number of heads of each layer seen. What cannot be done is kept in `why` until `check`, for a watch
    must not raise while the model runs.
    """

    def __init__(self, module: nn.Module, kind: str) -> None:
        super().__init__(module)
        self.kind = kind
        self.shapes: dict[int, int] = {}
        self.why: str | None = None
        self._numbers: dict[LayerKey, int] = {}
        self._all_paths: dict[int, list[str]] = {}
        for path, each in module.named_modules(remove_duplicate=False):
            self._all_paths.setdefault(id(each), []).append(path)
        self._thread = _Thread()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """While this is open, the model's runs are seen. Raises RegardError at its end for what could not be done."""
        with patches.opened(self, models_within(self.module)):
            yield
        self.check()

    def check(self) -> None:
        """Raises RegardError if something could not be done."""
        if self.why is not None:
            raise RegardError(self.why)

    def layer(self, layer: int, call: AttentionCall, part: Part | None) -> str | None:
        """Look at a layer's call; why nothing can be done with it."""
        raise NotImplementedError

    # what capture asks of a watch

    def enter(self, module: nn.Module, given: dict[str, Any]) -> None:
        parts = self._thread.parts
        if parts and parts[-1].module is module:
            parts.append(parts[-1])
            return
        if not parts:
            self._thread.attended.clear()
        parts.append(part_of(self.path(module), module, given, parts[-1] if parts else None))

    def leave(self, module: nn.Module, output: Any) -> None:
        parts = self._thread.parts
        if parts and parts[-1].module is module:
            parts.pop().cache = None

    def failed(self, path: str, error: Exception) -> None:
        self.why = self.why or f"{path}: {type(error).__name__}: {error}"

    def saw(self, call: AttentionCall) -> None:
        part = self._thread.parts[-1].main if self._thread.parts else None
        if self.why is not None or layers.kind_of(call, self.module, part, is_writing=False) != self.kind:
            return
        watch_runs(call.module)
        now = session.SESSION.runs.get(id(call.module), 0)
        last, count = self._thread.attended.get(call.path, (-1, -1))
        if last == now:
            self.why = f"{call.path} calls its kernel several times in one run, so that its heads are not told apart"
            return
        self._thread.attended[call.path] = now, count + 1
        key = self.kind, call.path, count + 1
        if key not in self._numbers:
            paths = self._all_paths[id(call.module)]
            self._numbers[key] = layers.number_of(key, call.module, paths, self._numbers)
        layer = self._numbers[key]
        if call.refused is None and call.flat:
            call = unflattened(call, (part.batch_size if part is not None else None) or 1)
        self.shapes[layer] = call.num_heads
        if (why := self.layer(layer, call, part)) is not None:
            self.why = f"{self.kind} layer {layer}: {why}"
