"""What a call of an attention function means: which queries, keys and values, and which keys each query sees.

Where the same arguments mean one thing to one function and another to the next, all meanings are listed; the checks
find the one that gives the context that the function returned.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.models.gpt import CausalSelfAttention
from regard.reading.call import AttentionCall, Visibility

# the matrix and bias of queries, keys and values together, or one of each, and the number of heads
Projections = tuple[Tensor | Sequence[Tensor], Tensor | None, int]
# of the caller's variables, those that hold another sequence than its own
OTHER_SEQUENCE = ("key_value_states", "encoder_hidden_states", "cross_attention_states")
DROPOUT = (
    "attention dropout is on, which hides weights at random; call model.eval() first, or set the dropout of attention "
    "to 0"
)


def of_interface(
    module: Any,
    path: str,
    name: str,
    tensors: tuple[Tensor, Tensor, Tensor],
    mask: Any,
    settings: Mapping[str, Any],
    context: Any,
    caller: Mapping[str, Any],
) -> AttentionCall:
    """A call through transformers' table of attention functions; `name` is the implementation that was looked up."""
    query, key, value = tensors
    cross = any(isinstance(caller.get(other), Tensor) for other in OTHER_SEQUENCE)
    cross = cross or getattr(module, "is_cross_attention", False) is True or caller.get("is_cross_attention") is True
    hints = {"cross": cross, "causal": settings.get("is_causal"), "table": True}
    hints["causal"] = getattr(module, "is_causal", None) if hints["causal"] is None else hints["causal"]

    def refuse(why: str) -> AttentionCall:
        return refused(module, path, query, why, hints)

    if (settings.get("dropout") or 0.0) > 0 and module.training:
        return refuse(DROPOUT)
    if any(tensor.dim() != 4 for tensor in (query, key, value)):
        return refuse("its queries, keys and values are not [batch, head, position, dimension]")
    if "cache" in settings and type(settings["cache"]).__name__ == "PagedAttentionCache":
        return refuse("its keys lie in a paged cache; generate without continuous batching to read them")
    if not isinstance(context, Tensor) or context.dim() != 4:
        return refuse("its attention function gives no context of [batch, position, head, dimension]")
    wanted = (query.shape[2], query.shape[1], value.shape[3])
    if tuple(context.shape[1:]) != wanted:
        return refuse(f"its context has the shape {tuple(context.shape)}, not [batch, position, head, dimension]")
    scale = settings.get("scaling")
    scale = getattr(module, "scaling", None) if scale is None else scale
    return AttentionCall(
        module=module,
        path=path,
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        context=context.detach().transpose(1, 2),
        scale=float(scale) if isinstance(scale, int | float) else query.shape[-1] ** -0.5,
        softcap=settings.get("softcap"),
        sinks=_sinks(settings.get("s_aux"), query),
        visibilities=_visibilities(mask, settings, hints["causal"], name, query, key),
        hints=hints,
    )


def _sinks(sinks: Any, query: Tensor) -> Tensor | None:
    return sinks.detach().reshape(-1) if isinstance(sinks, Tensor) and sinks.numel() == query.shape[1] else None


def _visibilities(
    mask: Any, settings: Mapping[str, Any], causal: bool | None, name: str, query: Tensor, key: Tensor
) -> tuple[Visibility, ...]:
    bias = settings.get("position_bias")
    num_queries, num_keys = query.shape[2], key.shape[2]
    window = settings.get("sliding_window")
    if isinstance(mask, Tensor) and mask.dim() == 4:
        visibilities = [Visibility(mask=mask[..., :num_keys], bias=bias)]
        if "flex" in name and mask.is_floating_point():
            # the first head's mask is all heads'
            visibilities = [Visibility(mask=mask[:, :1, :, :num_keys], bias=bias)]
        return tuple(visibilities)
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


def of_sdpa(
    module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], context: Tensor
) -> AttentionCall:
    """torch.nn.functional.scaled_dot_product_attention, called by a module itself."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, value = (given[name].detach() for name in names[:3])
    causal = bool(given.get("is_causal", False))
    hints = {"causal": causal or getattr(module, "is_causal", None)}
    if given.get("dropout_p", 0.0) > 0:
        return refused(module, path, query, DROPOUT, hints)
    if not 3 <= query.dim() <= 4 or query.is_nested:
        return refused(module, path, query, "its queries are not [batch, head, position, dimension]", hints)
    mask = given.get("attn_mask")
    if query.dim() == 3:
        # heads there are none, or no batch: torch does not say
        query, key, value, context = (tensor[:, None] for tensor in (query, key, value, context))
        mask = mask[:, None] if mask is not None and mask.dim() == 3 else mask
    if isinstance(module, CausalSelfAttention) and query.shape[1] < module.num_heads:
        # for one token the heads of a group were given as so many queries
        query, context = (tensor.reshape(len(tensor), -1, 1, tensor.shape[-1]) for tensor in (query, context))
    scale = given.get("scale")
    return AttentionCall(
        module=module,
        path=path,
        query=query,
        key=key,
        value=value,
        context=context.detach(),
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        visibilities=(Visibility(mask=mask, causal=0 if causal else None),),
        hints=hints,
    )


def of_flex(
    module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> AttentionCall:
    """torch's flex_attention, called by a module itself."""
    names = ("query", "key", "value", "score_mod", "block_mask", "scale")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, value = (given[name].detach() for name in names[:3])
    block_mask, scale = given.get("block_mask"), given.get("scale")
    return AttentionCall(
        module=module,
        path=path,
        query=query,
        key=key,
        value=value,
        context=(result[0] if isinstance(result, tuple) else result).detach(),
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        visibilities=(
            Visibility(mask_mod=None if block_mask is None else block_mask.mask_mod, score_mod=given.get("score_mod")),
        ),
    )


def of_multi_head(
    module: nn.MultiheadAttention,
    path: str,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Any,
) -> AttentionCall:
    """torch.nn.MultiheadAttention: its projections once more, and its output to prove them by."""
    values, inputs, hints = _given(forward, (module, *args), kwargs)

    def refuse(why: str) -> AttentionCall:
        return refused(module, path, inputs[0], why, hints)

    if any(tensor.is_nested for tensor in inputs):
        return refuse("it is given nested tensors; build nn.TransformerEncoder with enable_nested_tensor=False")
    if module.dropout > 0 and module.training:
        return refuse(DROPOUT)
    if module.bias_k is not None or module.add_zero_attn:
        return refuse("it adds keys of its own (add_bias_kv, add_zero_attn)")
    batch_first = module.batch_first and inputs[0].dim() == 3
    inputs, output = _positions_first(inputs, result[0], batch_first=batch_first)
    mask = _mask(values["attn_mask"], values["key_padding_mask"], inputs[0], module.num_heads)
    return _of_projected(module, path, inputs, _projections(module), mask, output, module.out_proj, hints)


def _given(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[Tensor], dict[str, Any]]:
    """What torch's multi-head attention is called with, by name; query, key and value; and whether they are of two."""
    given = inspect.signature(function).bind(*args, **kwargs)
    given.apply_defaults()
    values = given.arguments
    inputs = [values[name] for name in ("query", "key", "value")]
    return values, inputs, {"cross": inputs[0] is not inputs[1]}


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
) -> AttentionCall:
    """torch.nn.functional.multi_head_attention_forward, called by a module itself."""
    values, inputs, hints = _given(function, args, kwargs)
    if values["training"] and values["dropout_p"] > 0:
        return refused(module, path, inputs[0], DROPOUT, hints)
    if values["bias_k"] is not None or values["add_zero_attn"]:
        return refused(module, path, inputs[0], "it adds keys of its own (bias_k, add_zero_attn)", hints)
    if values["static_k"] is not None or values["static_v"] is not None:
        return refused(module, path, inputs[0], "its keys and values are projected elsewhere (static_k)", hints)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    separate = values["use_separate_proj_weight"]
    matrices = [values[name] for name in names] if separate else values["in_proj_weight"]
    inputs, output = _positions_first(inputs, result[0], batch_first=False)
    mask = _mask(values["attn_mask"], values["key_padding_mask"], inputs[0], values["num_heads"])

    def finish(attended: Tensor) -> Tensor:
        return functional.linear(attended, values["out_proj_weight"], values["out_proj_bias"])

    projections = matrices, values["in_proj_bias"], values["num_heads"]
    return _of_projected(module, path, inputs, projections, mask, output, finish, hints)


def of_fused_layer(
    layer: nn.TransformerEncoderLayer, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
) -> AttentionCall:
    """torch.nn.TransformerEncoderLayer where torch runs it as one kernel: its attention, proved by its output."""
    names = ("src", "src_mask", "src_key_padding_mask", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    source, attention = given["src"], layer.self_attn
    if source.is_nested:
        return refused(
            attention,
            path,
            source,
            "it is given nested tensors; build nn.TransformerEncoder with enable_nested_tensor=False",
            {},
        )
    (source,), output = _positions_first([source], result, batch_first=attention.batch_first)
    x = layer.norm1(source) if layer.norm_first else source
    mask = _mask(given.get("src_mask"), given.get("src_key_padding_mask"), x, attention.num_heads)

    def finish(attended: Tensor) -> Tensor:
        after = source + attention.out_proj(attended)
        if layer.norm_first:
            return after + layer.linear2(layer.activation(layer.linear1(layer.norm2(after))))
        after = layer.norm1(after)
        return layer.norm2(after + layer.linear2(layer.activation(layer.linear1(after))))

    return _of_projected(attention, path, [x, x, x], _projections(attention), mask, output, finish, {"cross": False})


def _of_projected(
    module: nn.Module,
    path: str,
    inputs: list[Tensor],
    projections: Projections,
    mask: Tensor | None,
    output: Tensor,
    finish: Callable[[Tensor], Tensor],
    hints: dict[str, Any],
) -> AttentionCall:
    query, key, value = (
        tensor.unflatten(-1, (projections[2], -1)).permute(1, 2, 0, 3)
        for tensor in _projected(inputs, *projections[:2])
    )
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    found = finish(context.permute(2, 0, 1, 3).flatten(2))
    # what this proves is the projections and the mask; the weights are checked against the context as all are
    seen = torch.ones_like(found, dtype=torch.bool)
    if mask is not None:
        seen = ~torch.isneginf(mask).all(-1).any(1).mT[..., None].expand_as(found)
    error = (found - output).where(seen, 0.0).abs().max() / output.where(seen, 0.0).abs().max().clamp(min=1e-30)
    if not error <= math.sqrt(query.shape[-1]) * 64 * torch.finfo(output.dtype).eps:
        return refused(
            module, path, inputs[0], f"its output is not what its projections give: off by {error:.1e}", hints
        )
    return AttentionCall(
        module=module,
        path=path,
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        context=context.detach(),
        scale=query.shape[-1] ** -0.5,
        visibilities=(Visibility(mask=mask),),
        hints=hints,
    )


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


def refused(module: Any, path: str, query: Tensor, why: str, hints: dict[str, Any]) -> AttentionCall:
    """A call that cannot be read, of these queries."""
    if query.is_nested:
        # such a tensor has no shape
        query = torch.empty(query.size(0), 1, 0, 0)
    return AttentionCall(
        module=module, path=path, query=query, key=query, value=query, context=query, refused=why, hints=hints
    )
