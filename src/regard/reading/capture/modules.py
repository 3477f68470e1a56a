"""Torch's own modules that attend: their projections once more, proved by what the module returned."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.reading.call import AttentionCall, Visibility, refused
from regard.reading.capture import session
from regard.reading.capture.session import DROPOUT, SESSION

# the matrix and bias of queries, keys and values together, or one of each, and the number of heads
Projections = tuple[Tensor | Sequence[Tensor], Tensor | None, int]


def multi_head(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(module: nn.MultiheadAttention, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or SESSION.inside or not session.owners(module):
            return forward(module, *args, **kwargs)
        with session.without_mode(), session.inside():
            result = forward(module, *args, **kwargs)
        dtype = session.autocast_dtype(result[0])
        session.record(module, lambda path: of_multi_head(module, path, forward, args, kwargs, result, dtype))
        SESSION.heard = True
        return result

    return wrapped


def encoder_layer(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(layer: nn.TransformerEncoderLayer, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or SESSION.inside or not session.owners(layer.self_attn):
            return forward(layer, *args, **kwargs)
        SESSION.heard = False
        with session.without_mode():
            result = forward(layer, *args, **kwargs)
        if not SESSION.heard:
            # torch ran the whole layer as one kernel
            dtype = session.autocast_dtype(result)
            session.record(layer.self_attn, lambda path: of_fused_layer(layer, path, args, kwargs, result, dtype))
        return result

    return wrapped


def encoder(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapped(encoder: nn.TransformerEncoder, *args: Any, **kwargs: Any) -> Any:
        # a mode would keep torch from its nested tensors, and its own layers are seen without one
        own = all(type(layer) is nn.TransformerEncoderLayer for layer in encoder.layers)
        with session.without_mode() if own else contextlib.nullcontext():
            return forward(encoder, *args, **kwargs)

    return wrapped


def of_multi_head(
    module: nn.MultiheadAttention,
    path: str,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Any,
    dtype: torch.dtype | None,
) -> AttentionCall:
    """torch.nn.MultiheadAttention: its projections once more, and its output to prove them by."""
    values, inputs = _given(forward, (module, *args), kwargs)
    cross = inputs[0] is not inputs[1]
    why = session.unreadable(*inputs, result[0])
    if why is None and module.dropout > 0 and module.training:
        why = DROPOUT
    if why is None and (module.bias_k is not None or module.add_zero_attn):
        why = "it adds keys of its own (add_bias_kv, add_zero_attn)"
    if why is not None:
        return refused(module, path, why, cross=cross)
    batch_first = module.batch_first and inputs[0].dim() == 3
    inputs, output = _positions_first(inputs, result[0], batch_first=batch_first)
    masks = values["attn_mask"], values["key_padding_mask"]
    return _of_projected(module, path, inputs, _projections(module), masks, output, module.out_proj, dtype, cross=cross)


def _given(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[Tensor]]:
    """What torch's multi-head attention is called with, by name; query, key and value."""
    given = inspect.signature(function).bind(*args, **kwargs)
    given.apply_defaults()
    values = given.arguments
    return values, [values[name] for name in ("query", "key", "value")]


def _positions_first(inputs: list[Tensor], output: Tensor, *, batch_first: bool) -> tuple[list[Tensor], Tensor]:
    """As [position, batch, dimension]; what is one tensor stays one."""

    def turned(tensor: Tensor) -> Tensor:
        return tensor[:, None] if tensor.dim() == 2 else tensor.transpose(0, 1) if batch_first else tensor

    own = {id(tensor): turned(tensor.detach()) for tensor in inputs}
    return [own[id(tensor)] for tensor in inputs], turned(output.detach())


def _projections(module: nn.MultiheadAttention) -> Projections:
    separate = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    matrices = separate if module.in_proj_weight is None else module.in_proj_weight
    return matrices, module.in_proj_bias, module.num_heads


def of_multi_head_function(
    module: nn.Module,
    path: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Any,
    dtype: torch.dtype | None,
) -> AttentionCall:
    """torch.nn.functional.multi_head_attention_forward, called by a module itself."""
    values, inputs = _given(function, args, kwargs)
    cross = inputs[0] is not inputs[1]
    why = session.unreadable(*inputs, result[0])
    if why is None and values["training"] and values["dropout_p"] > 0:
        why = DROPOUT
    if why is None and (values["bias_k"] is not None or values["add_zero_attn"]):
        why = "it adds keys of its own (bias_k, add_zero_attn)"
    if why is None and (values["static_k"] is not None or values["static_v"] is not None):
        why = "its keys and values are projected elsewhere (static_k)"
    if why is not None:
        return refused(module, path, why, cross=cross)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    separate = values["use_separate_proj_weight"]
    matrices = [values[name] for name in names] if separate else values["in_proj_weight"]
    inputs, output = _positions_first(inputs, result[0], batch_first=False)

    def finish(attended: Tensor) -> Tensor:
        return functional.linear(attended, values["out_proj_weight"], values["out_proj_bias"])

    projections = matrices, values["in_proj_bias"], values["num_heads"]
    masks = values["attn_mask"], values["key_padding_mask"]
    return _of_projected(module, path, inputs, projections, masks, output, finish, dtype, cross=cross)


def of_fused_layer(
    layer: nn.TransformerEncoderLayer,
    path: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Tensor,
    dtype: torch.dtype | None,
) -> AttentionCall:
    """torch.nn.TransformerEncoderLayer where torch runs it as one kernel: its attention, proved by its output."""
    names = ("src", "src_mask", "src_key_padding_mask", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    source, attention = given["src"], layer.self_attn
    if (why := session.unreadable(source, result)) is not None:
        return refused(attention, path, why)
    (source,), output = _positions_first([source], result, batch_first=attention.batch_first)
    x = layer.norm1(source) if layer.norm_first else source

    def finish(attended: Tensor) -> Tensor:
        after = source + attention.out_proj(attended)
        if layer.norm_first:
            return after + layer.linear2(layer.activation(layer.linear1(layer.norm2(after))))
        after = layer.norm1(after)
        return layer.norm2(after + layer.linear2(layer.activation(layer.linear1(after))))

    masks = given.get("src_mask"), given.get("src_key_padding_mask")
    return _of_projected(attention, path, [x, x, x], _projections(attention), masks, output, finish, dtype, cross=False)


def _of_projected(
    module: nn.Module,
    path: str,
    inputs: list[Tensor],
    projections: Projections,
    masks: tuple[Tensor | None, Tensor | None],
    output: Tensor,
    finish: Callable[[Tensor], Tensor],
    dtype: torch.dtype | None,
    *,
    cross: bool,
) -> AttentionCall:
    """`masks` are the caller's for pairs and for keys; `dtype` is autocast's."""
    # the projections run as the module ran them
    with torch.autocast(inputs[0].device.type, dtype=dtype, enabled=dtype is not None):
        query, key, value = (
            tensor.unflatten(-1, (projections[2], -1)).permute(1, 2, 0, 3)
            for tensor in _projected(inputs, *projections[:2])
        )
        mask = _mask(*masks, query, projections[2])
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        found = finish(context.permute(2, 0, 1, 3).flatten(2))
    # what this proves is the projections and the mask; the weights are checked against the context as all are
    seen = torch.ones_like(found, dtype=torch.bool)
    if mask is not None:
        seen = ~torch.isneginf(mask).all(-1).any(1).mT[..., None].expand_as(found)
    error = (found - output).where(seen, 0.0).abs().max() / output.where(seen, 0.0).abs().max().clamp(min=1e-30)
    if not error <= math.sqrt(query.shape[-1]) * 64 * torch.finfo(output.dtype).eps:
        why = f"its output is not what its projections give: off by {error:.1e}"
        return refused(module, path, why, like=query, cross=cross)
    return AttentionCall(
        module=module,
        path=path,
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        context=context.detach(),
        scale=query.shape[-1] ** -0.5,
        visibilities=(Visibility(mask=mask),),
        cross=cross,
        padding=_tokens(masks[1], query),
    )


def _tokens(padding: Tensor | None, query: Tensor) -> Tensor | None:
    """nn.MultiheadAttention's padding of keys, as true where a key is a token."""
    if padding is None:
        return None
    padding = padding[None] if padding.dim() == 1 else padding
    return (~padding if padding.dtype == torch.bool else ~Visibility.hides(padding)).expand(len(query), -1)


def _projected(inputs: list[Tensor], matrices: Tensor | Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
    """Queries, keys and values."""
    matrices = matrices.chunk(3) if isinstance(matrices, Tensor) else matrices
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return [functional.linear(*parts) for parts in zip(inputs, matrices, biases, strict=True)]


def _mask(mask: Tensor | None, padding: Tensor | None, like: Tensor, num_heads: int) -> Tensor | None:
    """nn.MultiheadAttention's masks, true where a key is hidden, as what is added to [batch, head, query, key]."""
    added = []
    if mask is not None:
        added.append(mask.unflatten(0, (-1, num_heads)) if mask.dim() == 3 else mask[None, None])
    if padding is not None:
        added.append((padding[None] if padding.dim() == 1 else padding)[:, None, None])
    terms = [
        torch.zeros_like(each, dtype=like.dtype).masked_fill_(each, -torch.inf) if each.dtype == torch.bool else each
        for each in added
    ]
    return functools.reduce(torch.add, terms) if terms else None
