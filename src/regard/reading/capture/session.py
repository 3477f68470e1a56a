"""What a thread knows while models are watched, and the one boundary that a reader's failure never crosses.

Adapters hand over plain data through `record`, `enter` and `leave`. Whatever goes wrong behind them is noted with the
watch; the model runs on as if nobody watched.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from torch.utils._python_dispatch import _disable_current_modes

from regard.errors import RegardError
from regard.reading.call import AttentionCall

DROPOUT = (
    "attention dropout is on, which hides weights at random; call model.eval() first, or set the dropout of attention "
    "to 0"
)


@runtime_checkable
class Watcher(Protocol):
    """A watch on one model: `owns` says whether a module is part of it, `path` where.

    `recorder` gives what records for it in the thread that asks: see `regard.reading.recorder.Recorder`. One that
    `sees_again` is told too of what gradient checkpointing runs once more. One that `intervenes` may write over a
    call's context, after all others have seen it.
    """

    sees_again: bool
    intervenes: bool

    def owns(self, module: Any) -> bool: ...
    def path(self, module: Any) -> str: ...
    def reordered(self, cache: Any, rows: Callable[[int], list[int]]) -> None: ...
    def recorder(self) -> Any: ...


class CallWatch:
    """A watch on one model that is its own recorder and hears of attention calls alone: of `saw` and of `failed`."""

    sees_again = False
    intervenes = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._paths = {id(each): path for path, each in module.named_modules()}

    def owns(self, module: Any) -> bool:
        return id(module) in self._paths

    def path(self, module: Any) -> str:
        return self._paths[id(module)]

    def recorder(self) -> Any:
        return self

    def reordered(self, cache: Any, rows: Callable[[int], list[int]]) -> None:
        pass

    def enter(self, module: nn.Module, given: dict[str, Any]) -> None:
        pass

    def leave(self, module: nn.Module, output: Any) -> None:
        pass

    def begin_generate(self, model: Any, given: dict[str, Any]) -> None:
        pass

    def end_generate(self, output: Any) -> None:
        pass

    def masked(self, mask: Any) -> None:
        pass

    def prompted(self, ids: Any) -> None:
        pass


class Session(threading.local):
    """All hidden state of a thread that runs watched models."""

    def __init__(self) -> None:
        # whether what runs now is part of a call that is recorded as a whole, or our own
        self.inside = False
        # whether the table of attention functions is being asked by transformers itself
        self.looking_up = False
        # the function mode that sees what modules ask of torch directly
        self.mode: Any = None
        # whether nn.MultiheadAttention was recorded since the layer around it began
        self.heard = False
        # models whose forward is running, as hooks know them, with what ends with it
        self.hooked: list[tuple[nn.Module, list[Watcher], contextlib.ExitStack]] = []
        # the watches that are recorded for, None where all that are open are
        self.only: list[Watcher] | None = None
        # keys and values that a paged cache gave in the attention call under way, and where those of each request end
        self.paged: tuple[Any, Any, Any] | None = None
        # how often each module that attends was run, by its id
        self.runs: dict[int, int] = {}


SESSION = Session()
_lock = threading.RLock()
_watchers: list[Watcher] = []


def add(watcher: Watcher) -> bool:
    """Record for a watch from now on; whether it is the only one."""
    with _lock:
        _watchers.append(watcher)
        return len(_watchers) == 1


def remove(watcher: Watcher) -> bool:
    """Record for it no more; whether it was the last."""
    with _lock:
        _watchers.remove(watcher)
        return not _watchers


def owners(module: Any) -> list[Watcher]:
    """The watches on a model that this module is part of."""
    # gradient checkpointing runs parts of the model again while gradients are taken: torch tells by this number
    again = torch._C._current_graph_task_id() != -1
    return [watcher for watcher in watchers() if watcher.owns(module) and (watcher.sees_again or not again)]


def watchers() -> list[Watcher]:
    return list(_watchers if SESSION.only is None else SESSION.only)


@contextlib.contextmanager
def only(*watchers: Watcher) -> Iterator[None]:
    """Record for these watches alone in this thread: what runs is not the user's."""
    before, SESSION.only = SESSION.only, list(watchers)
    try:
        yield
    finally:
        SESSION.only = before


def refuse_changed(module: nn.Module) -> None:
    """Raises RegardError while an intervention on a model is open."""
    if any(watcher.intervenes and watcher.owns(module) for watcher in list(_watchers)):
        raise RegardError(
            "the model is being ablated or patched, and sources and effects are of the model as it is; close that first"
        )


# the boundary


def record(module: nn.Module, make: Callable[[str], AttentionCall]) -> None:
    """Hand an attention call of a module to its watches; `make` takes the module's path in the watched model."""
    for watcher in sorted(owners(module), key=lambda each: each.intervenes):
        path = watcher.path(module)
        with harmless(watcher, path):
            watcher.recorder().saw(make(path))


def enter(module: nn.Module, arguments: Callable[[], dict[str, Any]]) -> list[Watcher]:
    """A model begins to run on these arguments; the watches that have noted it."""
    found = []
    for watcher in owners(module):
        with harmless(watcher, watcher.path(module)):
            given = arguments()
            # what is traced, or holds no numbers, is no run that could be read
            if not any(isinstance(each, Tensor) and unreadable(each) for each in given.values()):
                watcher.recorder().enter(module, given)
        found.append(watcher)
    return found


def leave(module: nn.Module, output: Any, entered: list[Watcher]) -> None:
    """It has run; `output` is None where it failed."""
    for watcher in entered:
        with harmless(watcher, watcher.path(module)):
            watcher.recorder().leave(module, output)


@contextlib.contextmanager
def harmless(watcher: Watcher, path: str) -> Iterator[None]:
    """Our own code within a model's run: what it raises is noted with the watch, and what is ambient does not reach it.

    KeyboardInterrupt and SystemExit are the user's, and pass.
    """
    try:
        with unobserved():
            yield
    except Exception as error:  # a watch never harms a run
        with contextlib.suppress(Exception):
            watcher.recorder().failed(path, error)


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """Arithmetic of our own: without gradients, autocast, and modes of torch, which also do not see it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(inside())
        stack.enter_context(torch.no_grad())
        for device in {"cpu", torch.get_default_device().type, *(["cuda"] if torch.cuda.is_available() else [])}:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch._C.DisableTorchFunction())
        if _len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        yield


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """What is called in here is part of a call that is recorded as a whole, or our own."""
    before = SESSION.inside
    SESSION.inside = True
    try:
        yield
    finally:
        SESSION.inside = before


def unreadable(*tensors: Any) -> str | None:
    """Why numbers cannot be read from these tensors now; None where they can."""
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return "it ran while torch.jit traced the model; watch a plain run of it"
    if torch._C._functorch.peek_interpreter_stack() is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return "it ran under a transform of torch.func, whose tensors stand for many; watch a plain run of the model"
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            return f"its queries, keys or values are a {type(tensor).__name__}, not a tensor"
        if tensor.is_nested:
            return "it is given nested tensors; build nn.TransformerEncoder with enable_nested_tensor=False"
        if tensor.device.type == "meta" or type(tensor) not in (Tensor, nn.Parameter):
            return f"its tensors hold no numbers here ({type(tensor).__name__} on {tensor.device}); watch a plain run"
    return None


def autocast_dtype(tensor: Any) -> torch.dtype | None:
    """The dtype that autocast gives to kernels on the device of a tensor; None where it is off."""
    device = tensor.device.type if isinstance(tensor, Tensor) else "cpu"
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def calling_module(depth: int = 2) -> nn.Module | None:
    """The innermost module whose method is being run, if it is watched: calls of another model are not ours."""
    frame = sys._getframe(depth)
    while frame is not None:
        module = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames[:1] else None
        if isinstance(module, nn.Module):
            if owners(module):
                return module
            # a softmax made on the spot belongs to whoever made it
            if next(module.parameters(), None) is not None:
                return None
        frame = frame.f_back
    return None


@contextlib.contextmanager
def without_mode() -> Iterator[None]:
    """With our function mode off, as far as it is the innermost."""
    mode = SESSION.mode
    if mode is None or torch.overrides._get_current_function_mode() is not mode:
        yield
        return
    mode.__exit__(None, None, None)
    try:
        yield
    finally:
        mode.__enter__()


def is_running(model: nn.Module) -> bool:
    """Whether this thread is inside a run of a model."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals["self"] is model:
            return True
        frame = frame.f_back
    return False
