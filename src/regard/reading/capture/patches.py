"""The one table of what is replaced while a model is watched, and how it is undone.

transformers' table of attention functions keeps its entries: what is looked up there comes back wrapped, whatever its
name, so that masks are made for it as ever. All of it is undone when the last watch closes, where it is still ours.
"""

import contextlib
import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from regard.attention.key_values import KeyValues
from regard.reading.capture import flex, modules, session, transformers
from regard.reading.capture.torch_functions import seeing

Wrap = Callable[[Any], Any]


class Patches:
    """Attributes of classes and modules that stand replaced."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, wrap: Wrap) -> None:
        """Put what `wrap` makes of an attribute in its place."""
        original = vars(owner)[name]
        ours = wrap(original)
        setattr(owner, name, ours)
        self._entries.append((owner, name, original, ours))

    def replace_once(self, owner: Any, name: str, wrap: Wrap) -> None:
        """The same, unless that has been done."""
        if not any(entry[0] is owner and entry[1] == name for entry in self._entries):
            self.replace(owner, name, wrap)

    def undo(self) -> None:
        """Put everything back that is still ours; what another has replaced since is left, with a warning."""
        kept = []
        while self._entries:
            owner, name, original, ours = self._entries.pop()
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
            else:
                kept.append(f"{owner.__name__}.{name}")
        if kept:
            warnings.warn(
                f"{', '.join(kept)}: replaced by another library while a model was watched; it is left as it stands",
                RuntimeWarning,
                stacklevel=2,
            )


_patches = Patches()
_models = Patches()
_lock = threading.RLock()


def open_watch(watcher: session.Watcher, parts: list[nn.Module]) -> list[Any]:
    """Record for `watcher` from now on; `parts` are the models in its model. Gives the hooks to be removed after."""
    with _lock:
        if session.add(watcher):
            _install(_patches)
        hooks: list[Any] = []
        for part in parts:
            if "forward" in vars(part):
                # some library has replaced this one's own
                hooks += [
                    part.register_forward_pre_hook(_before, with_kwargs=True),
                    part.register_forward_hook(_after, with_kwargs=True, always_call=True),
                ]
            elif (owner := _definer(type(part), "forward")) is not None:
                _models.replace_once(owner, "forward", _model)
            for cls in type(part).__mro__:
                if "generate" in vars(cls) and callable(vars(cls)["generate"]) and hasattr(part, "config"):
                    _models.replace_once(cls, "generate", transformers.generate)
        return hooks


def close_watch(watcher: session.Watcher) -> None:
    """Record for it no more; when it was the last, everything is as it was before the first."""
    with _lock:
        if session.remove(watcher):
            try:
                _models.undo()
            finally:
                _patches.undo()


def watch_runs(module: nn.Module) -> None:
    """Count from now on how often this module's forward runs."""
    owner = _definer(type(module), "forward")
    if owner is not None and "forward" not in vars(module):
        with _lock:
            if session.watchers():
                _models.replace_once(owner, "forward", _counted)


def _definer(cls: type, name: str) -> type | None:
    """The class that a class has a method from; None where it has none of its own."""
    return next((each for each in cls.__mro__ if name in vars(each) and each is not nn.Module), None)


def _install(patches: Patches) -> None:
    patches.replace(nn.MultiheadAttention, "forward", modules.multi_head)
    patches.replace(nn.TransformerEncoderLayer, "forward", modules.encoder_layer)
    patches.replace(nn.TransformerEncoder, "forward", modules.encoder)
    patches.replace(KeyValues, "select", functools.partial(transformers.reorder, "select"))
    # FlexAttention runs its call through torch.compile, which a mode of ours must not be in the way of
    from torch.nn.attention import flex_attention

    function = flex_attention.flex_attention
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("flex_attention") is function and not _is_transformers(module):
            patches.replace(module, "flex_attention", flex.flex)
    if "transformers" in sys.modules:
        transformers.install(patches)


def _is_transformers(module: Any) -> bool:
    return module.__name__.partition(".")[0] == "transformers"


# models whose forward says what it is given


@functools.cache
def _names(forward: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(forward).parameters)


def _model(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return forward(module, *args, **kwargs)
        SESSION.runs[id(module)] = SESSION.runs.get(id(module), 0) + 1
        entered = session.enter(module, lambda: {**dict(zip(_names(forward)[1:], args, strict=False)), **kwargs})
        if not entered:
            return forward(module, *args, **kwargs)
        output = None
        try:
            with seeing():
                output = forward(module, *args, **kwargs)
        finally:
            session.leave(module, output, entered)
        return output

    return wrapped


def _counted(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            SESSION.runs[id(module)] = SESSION.runs.get(id(module), 0) + 1
        return forward(module, *args, **kwargs)

    return wrapped


# torch has no lock on hooks: one that is being added while another thread runs the model may be called without kwargs
def _before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
    if kwargs is None or torch.compiler.is_compiling():
        return
    given = {**dict(zip(_names(type(module).forward)[1:], args, strict=False)), **kwargs}
    entered = session.enter(module, lambda: given)
    stack = contextlib.ExitStack()
    stack.enter_context(seeing())
    SESSION.hooked.append((module, entered, stack))


def _after(module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
    if not SESSION.hooked or SESSION.hooked[-1][0] is not module:
        return
    _, entered, stack = SESSION.hooked.pop()
    stack.close()
    session.leave(module, rest[-1], entered)


SESSION = session.SESSION


@contextlib.contextmanager
def opened(watcher: session.Watcher, parts: list[nn.Module]) -> Iterator[None]:
    """While this is open, `watcher` is recorded for."""
    hooks = open_watch(watcher, parts)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        close_watch(watcher)
