"""How a watch comes to see attention: while any is open, what models call to attend tells it of each call.

transformers' table of attention functions keeps its entries: what is looked up there comes back wrapped, whatever its
name, so that masks are made for it as ever. Modules that call torch themselves are seen by a torch-function mode, which
is on only while a watched model runs. All of it is undone when the last watch closes.
"""

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from regard.attention.key_values import KeyValues
from regard.reading import handwritten, meaning
from regard.reading.call import AttentionCall

SOFTMAX = {torch.softmax, Tensor.softmax, functional.softmax}
MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
DROPOUT = {torch.dropout, functional.dropout}
_REORDERINGS = ("reorder_cache", "batch_repeat_interleave", "batch_select_indices")


@runtime_checkable
class Watcher(Protocol):
    """What is told of attention calls; `owns` says whether a module is part of what it watches."""

    def owns(self, module: Any) -> bool: ...
    def path(self, module: nn.Module) -> str: ...
    def saw(self, call: AttentionCall) -> None: ...
    def reordered(self, cache: Any, rows: Callable[[int], list[int]]) -> None: ...
    def generating(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


_lock = threading.RLock()
_watchers: list[Watcher] = []
_undo: list[Callable[[], None]] = []
_local = threading.local()


def open_watch(watcher: Watcher) -> None:
    """Tell `watcher` of attention calls from now on."""
    with _lock:
        _watchers.append(watcher)
        if len(_watchers) == 1:
            _install()


def close_watch(watcher: Watcher) -> None:
    """Tell it no more; when it was the last, everything is as it was before the first."""
    with _lock:
        _watchers.remove(watcher)
        if not _watchers:
            while _undo:
                _undo.pop()()


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    original = vars(owner)[name]
    setattr(owner, name, wrap(original))
    _undo.append(lambda: setattr(owner, name, original))


def _install() -> None:
    _replace(nn.MultiheadAttention, "forward", _multi_head)
    _replace(nn.TransformerEncoderLayer, "forward", _encoder_layer)
    _replace(nn.TransformerEncoder, "forward", _encoder)
    _replace(KeyValues, "select", functools.partial(_reorder, "select"))
    # FlexAttention runs its call through torch.compile, which a mode of ours must not be in the way of
    from torch.nn.attention import flex_attention as flex

    function = flex.flex_attention
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("flex_attention") is function and not _is_transformers(module):
            _replace(module, "flex_attention", _flex)
    if "transformers" in sys.modules:
        from transformers.cache_utils import Cache, EncoderDecoderCache
        from transformers.generation.utils import GenerationMixin
        from transformers.modeling_utils import AttentionInterface
        from transformers.utils.generic import GeneralInterface

        _replace(AttentionInterface, "get_interface", _look_up)
        # some models take entries of the table by name
        own = "__getitem__" in vars(AttentionInterface)
        _replace(AttentionInterface if own else GeneralInterface, "__getitem__", _take)
        _replace(GenerationMixin, "generate", _generate)
        for owner in (Cache, EncoderDecoderCache):
            for name in _REORDERINGS:
                if name in vars(owner):
                    _replace(owner, name, functools.partial(_reorder, name))


def _is_transformers(module: Any) -> bool:
    return module.__name__.partition(".")[0] == "transformers"


def _owners(module: Any) -> list[Watcher]:
    # gradient checkpointing runs parts of the model again while gradients are taken: torch tells by this number
    if torch._C._current_graph_task_id() != -1:
        return []
    return [watcher for watcher in list(_watchers) if watcher.owns(module)]


def _tell(owners: list[Watcher], make: Callable[[Watcher], AttentionCall]) -> None:
    with torch.no_grad(), _without_mode(), _inside():
        for watcher in owners:
            watcher.saw(make(watcher))


# transformers


def _look_up(get_interface: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_interface)
    def wrapped(table: Any, attn_implementation: str, default: Callable[..., Any]) -> Any:
        with _taking():
            function = get_interface(table, attn_implementation, default)
        return _watched(function, attn_implementation)

    return wrapped


def _take(getitem: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(getitem)
    def wrapped(table: Any, key: str) -> Any:
        from transformers.modeling_utils import AttentionInterface

        function = getitem(table, key)
        # the table's own users are served by get_interface, and whoever compares entries wants them as they are
        called_by_model = sys._getframe(1).f_globals.get("__name__", "").startswith("transformers.models.")
        if isinstance(table, AttentionInterface) and called_by_model and not getattr(_local, "taking", False):
            return _watched(function, key)
        return function

    return wrapped


@contextlib.contextmanager
def _taking() -> Iterator[None]:
    _local.taking = True
    try:
        yield
    finally:
        _local.taking = False


def _watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        owners = [] if torch.compiler.is_compiling() or _is_inside() else _owners(module)
        if not owners:
            return function(module, query, key, value, *args, **kwargs)
        caller = sys._getframe(1).f_locals
        with _without_mode(), _inside():
            result = function(module, query, key, value, *args, **kwargs)
        mask = args[0] if args else kwargs.get("attention_mask")
        settings = {key: value for key, value in kwargs.items() if key != "attention_mask"}
        _tell(
            owners,
            lambda watcher: meaning.of_interface(
                module, watcher.path(module), name, (query, key, value), mask, settings, result[0], caller
            ),
        )
        return result

    return wrapped


def _generate(generate: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(generate)
    def wrapped(model: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            done = [stack.enter_context(watcher.generating(model, args, kwargs)) for watcher in _owners(model)]
            if done:
                stack.enter_context(seeing())
            output = generate(model, *args, **kwargs)
            for note in done:
                note(output)
            return output

    return wrapped


def _reorder(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(cache: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(cache, rows, *args, **kwargs)

        def sources(count: int) -> list[int]:
            if name == "batch_repeat_interleave":
                return [row for row in range(count) for _ in range(rows)]
            indices = torch.as_tensor(rows)
            return (indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices).tolist()

        for watcher in list(_watchers):
            watcher.reordered(cache, sources)
        return result

    return wrapped


# torch


def argument_names(model: nn.Module) -> list[str]:
    """What a model's arguments are called, in order."""
    return list(inspect.signature(model.forward).parameters)


@contextlib.contextmanager
def seeing() -> Iterator[None]:
    """While this is open in a thread, watches are told of torch's own attention functions there."""
    if getattr(_local, "mode", None) is not None:
        yield
        return
    with _Mode() as mode:
        _local.mode = mode
        try:
            yield
        finally:
            _local.mode = None


class _Mode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        # weights that wait for their product with values: (weights, module)
        self.softmaxes: list[tuple[Tensor, nn.Module]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            if (module := _calling_module()) is not None:
                _tell(
                    _owners(module),
                    lambda watcher: meaning.of_sdpa(module, watcher.path(module), args, kwargs, result),
                )
        elif func is functional.multi_head_attention_forward:
            if (module := _calling_module()) is not None:
                _tell(
                    _owners(module),
                    lambda watcher: meaning.of_multi_head_function(
                        module, watcher.path(module), func, args, kwargs, result
                    ),
                )
        elif func in SOFTMAX:
            self._note_softmax(result)
        elif self.softmaxes and func in DROPOUT:
            self._note_dropout(*args, **kwargs)
        elif self.softmaxes and func in MATMUL:
            self._note_product(args[0], args[1], result)
        elif self.softmaxes and func is torch.einsum:
            operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
            product = handwritten.einsum_as_product(args[0], tuple(operands), result)
            if product is not None:
                weights, value, context = product
                self._note_product(weights, value, context)
        return result

    def _note_softmax(self, weights: Tensor) -> None:
        if weights.dim() in (3, 4, 5) and (module := _calling_module()) is not None:
            self.softmaxes = [*self.softmaxes[-3:], (weights, module)]

    def _note_dropout(self, input: Tensor, p: float = 0.5, training: bool = True, *_: Any, **others: Any) -> None:
        for index, (weights, _module) in enumerate(self.softmaxes):
            if p > 0 and others.get("train", training) and handwritten.same_weights(weights, input):
                self._tell(index, handwritten.of_dropout)
                return

    def _note_product(self, left: Any, value: Any, context: Tensor) -> None:
        for index, (weights, _) in enumerate(self.softmaxes):
            if isinstance(left, Tensor) and handwritten.same_weights(weights, left) and value.dim() == left.dim():
                self._tell(index, handwritten.of_softmax, value, context)
                return

    def _tell(self, index: int, meant: Callable[..., AttentionCall], *tensors: Tensor) -> None:
        weights, module = self.softmaxes.pop(index)
        _tell(_owners(module), lambda watcher: meant(module, watcher.path(module), weights, *tensors))


def _calling_module() -> nn.Module | None:
    """The innermost watched module whose method is being run."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames[:1] else None
        if isinstance(module, nn.Module) and _owners(module):
            return module
        frame = frame.f_back
    return None


@contextlib.contextmanager
def _without_mode() -> Iterator[None]:
    """With our mode off, as far as it is the innermost."""
    mode = getattr(_local, "mode", None)
    if mode is None or torch.overrides._get_current_function_mode() is not mode:
        yield
        return
    mode.__exit__(None, None, None)
    try:
        yield
    finally:
        mode.__enter__()


@contextlib.contextmanager
def _inside() -> Iterator[None]:
    """What is called in here is part of a call that is told of as a whole, or our own."""
    before = _is_inside()
    _local.inside = True
    try:
        yield
    finally:
        _local.inside = before


def _is_inside() -> bool:
    return getattr(_local, "inside", False)


def _multi_head(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(module: nn.MultiheadAttention, *args: Any, **kwargs: Any) -> Any:
        owners = [] if torch.compiler.is_compiling() or _is_inside() else _owners(module)
        if not owners:
            return forward(module, *args, **kwargs)
        with _without_mode(), _inside():
            result = forward(module, *args, **kwargs)
        _tell(
            owners, lambda watcher: meaning.of_multi_head(module, watcher.path(module), forward, args, kwargs, result)
        )
        _local.heard = True
        return result

    return wrapped


def _encoder_layer(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(layer: nn.TransformerEncoderLayer, *args: Any, **kwargs: Any) -> Any:
        attention = layer.self_attn
        owners = [] if torch.compiler.is_compiling() or _is_inside() else _owners(attention)
        if not owners:
            return forward(layer, *args, **kwargs)
        _local.heard = False
        with _without_mode():
            result = forward(layer, *args, **kwargs)
        if not _local.heard:
            # torch ran the whole layer as one kernel
            _tell(
                owners,
                lambda watcher: meaning.of_fused_layer(layer, watcher.path(attention), args, kwargs, result),
            )
        return result

    return wrapped


def _encoder(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(encoder: nn.TransformerEncoder, *args: Any, **kwargs: Any) -> Any:
        # a mode would keep torch from its nested tensors, and its own layers are seen without one
        own = all(type(layer) is nn.TransformerEncoderLayer for layer in encoder.layers)
        with _without_mode() if own else contextlib.nullcontext():
            return forward(encoder, *args, **kwargs)

    return wrapped


def _flex(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or _is_inside():
            return function(*args, **kwargs)
        module = _calling_module()
        with _without_mode(), _inside():
            result = function(*args, **kwargs)
        if module is not None:
            _tell(_owners(module), lambda watcher: meaning.of_flex(module, watcher.path(module), args, kwargs, result))
        return result

    return wrapped
