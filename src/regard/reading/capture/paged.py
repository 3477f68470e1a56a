"""transformers' continuous batching: a manager whose thread runs many requests in one call, over a paged cache."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from regard.reading.capture import session
from regard.reading.capture.session import SESSION


def install(patches: Any) -> None:
    """Wrap the manager, and the cache that hands out keys, as far as this version of transformers has them."""
    try:
        from transformers.generation.continuous_batching.cache import PagedAttentionCache
        from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager
    except ImportError:
        return
    wrappers = {
        "update": (PagedAttentionCache, _update),
        "start": (ContinuousBatchingManager, _start),
        "add_request": (ContinuousBatchingManager, _add),
        "add_requests": (ContinuousBatchingManager, _add),
        "_generation_step": (ContinuousBatchingManager, _step),
    }
    if all(name in vars(owner) for name, (owner, _) in wrappers.items()):
        for name, (owner, wrap) in wrappers.items():
            patches.replace(owner, name, wrap)


def is_paged(cache: Any) -> bool:
    return type(cache).__name__ == "PagedAttentionCache"


def gathered(query: Any, settings: Mapping[str, Any]) -> tuple[Any, Any, Any, Any] | str:
    """Query, keys and values of the call that has just run, and where those of each request end; or why not."""
    found, SESSION.paged = SESSION.paged, None
    if isinstance(query, Tensor) and query.is_cuda and torch.cuda.is_current_stream_capturing():
        return "it ran within a CUDA graph; generate with ContinuousBatchingConfig(use_cuda_graph=False)"
    if settings.get("block_table") is not None:
        return (
            "its kernel reads the pages of the cache itself; generate with "
            "ContinuousBatchingConfig(max_blocks_per_request=0)"
        )
    ends = settings.get("cu_seq_lens_q")
    if found is None or not isinstance(ends, Tensor) or not isinstance(found[2], Tensor):
        return "its keys lie in a paged cache, and were not seen; generate without continuous batching to read them"
    key, value, key_ends = found
    return query, key, value, (ends.tolist(), key_ends.tolist())


def _update(update: Callable[..., Any]) -> Callable[..., Any]:
    """The cache's method that writes a step's keys, and gives all that its requests look at."""

    @functools.wraps(update)
    def wrapped(cache: Any, *args: Any, **kwargs: Any) -> Any:
        result = update(cache, *args, **kwargs)
        if SESSION.inside and not torch.compiler.is_compiling():
            settings = kwargs.get("kwargs", args[3] if len(args) > 3 else {})
            # of this layer's sort alone, since the update
            SESSION.paged = (*result, settings.get("cu_seq_lens_k"))
        return result

    return wrapped


def _start(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def wrapped(manager: Any) -> Any:
        if not manager.is_running():
            _tell(manager, lambda packed: packed.started(manager))
        return start(manager)

    return wrapped


def _add(add: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(add)
    def wrapped(manager: Any, *args: Any, **kwargs: Any) -> Any:
        result = add(manager, *args, **kwargs)
        ids = result if isinstance(result, list) else [] if result is None else [result]
        _tell(manager, lambda packed: packed.added(manager, ids))
        return result

    return wrapped


def _step(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def wrapped(manager: Any) -> Any:
        _tell(manager, lambda packed: packed.begin(manager))
        try:
            return step(manager)
        finally:
            _tell(manager, lambda packed: packed.end())

    return wrapped


def _tell(manager: Any, what: Callable[[Any], None]) -> None:
    for watcher in session.owners(manager.model):
        with session.harmless(watcher, ""):
            packed = getattr(watcher.recorder(), "packed", None)
            if packed is not None:
                what(packed)
