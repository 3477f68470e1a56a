"""transformers' entries: the table of attention functions, `generate`, and caches whose rows are reordered."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from regard.reading.call import AttentionCall, Visibility, refused
from regard.reading.capture import paged, session
from regard.reading.capture.session import DROPOUT, SESSION
from regard.reading.capture.torch_functions import seeing

_REORDERINGS = ("reorder_cache", "batch_repeat_interleave", "batch_select_indices")
# variables of the caller that hold another sequence than its own
OTHER_SEQUENCE = ("key_value_states", "encoder_hidden_states", "cross_attention_states")
# a variable of callers whose keys are their own sequence's, followed by those of another
MERGED = "merged_attention_mask"


def install(patches: Any) -> None:
    """Wrap what every model of transformers goes through."""
    from transformers.cache_utils import Cache, EncoderDecoderCache
    from transformers.generation.utils import GenerationMixin
    from transformers.modeling_utils import AttentionInterface
    from transformers.utils.generic import GeneralInterface

    patches.replace(AttentionInterface, "get_interface", _look_up)
    # some models take entries of the table by name
    own = "__getitem__" in vars(AttentionInterface)
    patches.replace(AttentionInterface if own else GeneralInterface, "__getitem__", _take)
    patches.replace(GenerationMixin, "generate", generate)
    paged.install(patches)
    for name in _PREPARED:
        if name in vars(GenerationMixin):
            patches.replace(GenerationMixin, name, functools.partial(_prepare, name))
    for owner in (Cache, EncoderDecoderCache):
        for name in _REORDERINGS:
            if name in vars(owner):
                patches.replace(owner, name, functools.partial(reorder, name))


# the table of attention functions


def _look_up(get_interface: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_interface)
    def wrapped(table: Any, attn_implementation: str, default: Callable[..., Any]) -> Any:
        if torch.compiler.is_compiling():
            return get_interface(table, attn_implementation, default)
        with _looking_up():
            function = get_interface(table, attn_implementation, default)
        return _watched(function, attn_implementation)

    return wrapped


def _take(getitem: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(getitem)
    def wrapped(table: Any, key: str) -> Any:
        function = getitem(table, key)
        if torch.compiler.is_compiling() or SESSION.looking_up:
            return function
        from transformers.modeling_utils import AttentionInterface

        # the table's own users are served by get_interface, and whoever compares entries wants them as they are
        called_by_model = sys._getframe(1).f_globals.get("__name__", "").startswith("transformers.models.")
        return _watched(function, key) if isinstance(table, AttentionInterface) and called_by_model else function

    return wrapped


@contextlib.contextmanager
def _looking_up() -> Iterator[None]:
    SESSION.looking_up = True
    try:
        yield
    finally:
        SESSION.looking_up = False


def _watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or SESSION.inside or not session.owners(module):
            return function(module, query, key, value, *args, **kwargs)
        caller = _caller()
        with session.without_mode(), session.inside():
            result = function(module, query, key, value, *args, **kwargs)
        found = (query, key, value, None)
        if paged.is_paged(kwargs.get("cache")):
            found = paged.gathered(query, kwargs)
        dtype = session.autocast_dtype(query)

        def make(path: str) -> AttentionCall:
            mask = args[0] if args else kwargs.get("attention_mask")
            settings = {key: value for key, value in kwargs.items() if key != "attention_mask"}
            if isinstance(found, str):
                return refused(module, path, found, like=query)
            return of_interface(module, path, name, found, mask, settings, result[0], caller, dtype)

        session.record(module, make)
        return result

    return wrapped


def _caller() -> Mapping[str, Any]:
    """The variables of the module's method that calls, from around a comprehension too."""
    frame = sys._getframe(2)
    if frame.f_code.co_name.startswith("<") and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_locals


def of_interface(
    module: Any,
    path: str,
    name: str,
    tensors: tuple[Tensor, Tensor, Tensor, Any],
    mask: Any,
    settings: Mapping[str, Any],
    context: Any,
    caller: Mapping[str, Any],
    dtype: torch.dtype | None,
) -> AttentionCall:
    """A call through transformers' table of attention functions; `name` is the implementation that was looked up.

    `caller` has the variables of the method that called it, `dtype` is what autocast gives to kernels.
    """
    query, key, value, packed = tensors
    cross = any(isinstance(caller.get(other), Tensor) for other in OTHER_SEQUENCE)
    cross = cross or getattr(module, "is_cross_attention", False) is True or caller.get("is_cross_attention") is True
    causal = settings.get("is_causal")
    causal = getattr(module, "is_causal", None) if causal is None else causal
    sort = {"cross": cross, "causal": causal if isinstance(causal, bool) else None}

    def refuse(why: str) -> AttentionCall:
        return refused(module, path, why, like=query if isinstance(query, Tensor) else None, **sort)

    if (why := session.unreadable(query, key, value, context)) is not None:
        return refuse(why)
    if (settings.get("dropout") or 0.0) > 0 and module.training:
        return refuse(DROPOUT)
    if any(tensor.dim() != 4 for tensor in (query, key, value)):
        return refuse("its queries, keys and values are not [batch, head, position, dimension]")
    if MERGED in caller:
        return refuse(
            "its keys are those of its own sequence followed by those of the source, in one softmax; such merged "
            "attention has no kind of its own here"
        )
    if context.dim() != 4:
        return refuse("its attention function gives no context of [batch, position, head, dimension]")
    wanted = (query.shape[2], query.shape[1], value.shape[3])
    if tuple(context.shape[1:]) != wanted:
        return refuse(f"its context has the shape {tuple(context.shape)}, not [batch, position, head, dimension]")
    scale = settings.get("scaling")
    scale = getattr(module, "scaling", None) if scale is None else scale
    query, key, value = (tensor.detach().to(dtype or tensor.dtype) for tensor in (query, key, value))
    return AttentionCall(
        module=module,
        path=path,
        query=query,
        key=key,
        value=value,
        context=context.detach().transpose(1, 2),
        output=context,
        scale=float(scale) if isinstance(scale, int | float) else query.shape[-1] ** -0.5,
        softcap=settings.get("softcap"),
        sinks=_sinks(settings.get("s_aux"), query),
        visibilities=_visibilities(mask, settings, sort["causal"], name, query, key),
        total=_total(caller.get("hidden_states")),
        packed=packed,
        **sort,
    )


def _total(states: Any) -> int | None:
    return states.shape[-2] if isinstance(states, Tensor) and states.dim() >= 2 else None


def _sinks(sinks: Any, query: Tensor) -> Tensor | None:
    return sinks.detach().reshape(-1) if isinstance(sinks, Tensor) and sinks.numel() == query.shape[1] else None


def _visibilities(
    mask: Any, settings: Mapping[str, Any], causal: bool | None, name: str, query: Tensor, key: Tensor
) -> tuple[Visibility, ...]:
    bias = settings.get("position_bias")
    num_queries, num_keys = query.shape[2], key.shape[2]
    window = settings.get("sliding_window")
    if isinstance(mask, Tensor) and mask.dim() == 4:
        # under FlexAttention the first head's mask is all heads'
        first = slice(0, 1) if "flex" in name and mask.is_floating_point() else slice(None)
        return (Visibility(mask=mask[:, first, :, :num_keys], bias=bias),)
    mask_mod = getattr(mask, "mask_mod", None)
    if mask_mod is not None:
        return (Visibility(mask_mod=mask_mod, bias=bias),)
    padding = mask[:, None, None, -num_keys:].bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
    # seen from the end, as flash-attention counts, or from the beginning, as torch does; or all keys
    shifts = [num_keys - num_queries, 0] if "flash" in name else [0, num_keys - num_queries]
    found = []
    if causal is not False and num_queries > 1:
        for shift in dict.fromkeys(shifts):
            found.append(Visibility(mask=padding, bias=bias, causal=shift))
            if isinstance(window, int) and window < num_keys:
                windowed = Visibility(mask=padding, bias=bias, causal=shift, window=window)
                found.insert(0 if "flash" in name else len(found), windowed)
    # plain code and FlexAttention hide nothing by themselves
    found.insert(0 if name in ("eager", "flex_attention") else len(found), Visibility(mask=padding, bias=bias))
    if num_queries == 1 and isinstance(window, int) and window < num_keys:
        found.append(Visibility(mask=padding, bias=bias, causal=num_keys - 1, window=window))
    return tuple(found)


# generate


@functools.cache
def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def generate(function: Callable[..., Any]) -> Callable[..., Any]:
    """`generate`, whose runs are one generation."""

    @functools.wraps(function)
    def wrapped(model: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(model, *args, **kwargs)
        watchers = session.owners(model)
        for watcher in watchers:
            with session.harmless(watcher, ""):
                given = {**dict(zip(_names(function)[1:], args, strict=False)), **kwargs}
                watcher.recorder().begin_generate(model, given)
        output = None
        try:
            with seeing() if watchers else contextlib.nullcontext():
                output = function(model, *args, **kwargs)
        finally:
            for watcher in watchers:
                with session.harmless(watcher, ""):
                    watcher.recorder().end_generate(output)
        return output

    return wrapped


# methods by which `generate` prepares what its caller left to it, and what becomes of what they return
_PREPARED: dict[str, Callable[[Any, Any], None]] = {
    "_prepare_attention_mask_for_generation": lambda recorder, mask: recorder.masked(mask),
    "_prepare_decoder_input_ids_for_generation": lambda recorder, found: recorder.prompted(found[0]),
}


def _prepare(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(model: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(model, *args, **kwargs)
        for watcher in session.owners(model):
            with session.harmless(watcher, ""):
                _PREPARED[name](watcher.recorder(), found)
        return found

    return wrapped


# caches


def reorder(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A cache's method that reorders the rows of its batch."""

    @functools.wraps(method)
    def wrapped(cache: Any, rows: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(cache, rows, *args, **kwargs)
        if torch.compiler.is_compiling():
            return result

        def sources(count: int) -> list[int]:
            if name == "batch_repeat_interleave":
                return [row for row in range(count) for _ in range(rows)]
            indices = torch.as_tensor(rows)
            return (indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices).tolist()

        for watcher in session.watchers():
            with session.harmless(watcher, ""):
                watcher.reordered(cache, sources)
        return result

    return wrapped
