"""torch's flex_attention, where a module calls it itself."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from regard.reading.call import AttentionCall, Visibility, refused
from regard.reading.capture import session
from regard.reading.capture.session import SESSION

_NAMES = ("query", "key", "value", "score_mod", "block_mask", "scale")


def flex(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or SESSION.inside:
            return function(*args, **kwargs)
        module = session.calling_module()
        with session.without_mode(), session.inside():
            result = function(*args, **kwargs)
        if module is not None:
            session.record(module, lambda path: of_flex(module, path, args, kwargs, result))
        return result

    return wrapped


def of_flex(
    module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> AttentionCall:
    """A call of flex_attention."""
    given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    tensors = [given[name] for name in _NAMES[:3]]
    context = result[0] if isinstance(result, tuple) else result
    if (why := session.unreadable(*tensors, context)) is not None:
        return refused(module, path, why)
    query, key, value = (tensor.detach().to(context.dtype) for tensor in tensors)
    block_mask, scale = given.get("block_mask"), given.get("scale")
    return AttentionCall(
        module=module,
        path=path,
        query=query,
        key=key,
        value=value,
        context=context.detach(),
        output=context,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        visibilities=(
            Visibility(mask_mod=None if block_mask is None else block_mask.mask_mod, score_mod=given.get("score_mod")),
        ),
    )
