"""Torch's own functions that attend, where a module calls them itself: a function mode sees them.

Fused attention hands over queries, keys and values. Attention that a module writes out is a softmax, and the product
of its weights with values: there the weights are the model's own.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from regard.models.gpt import CausalSelfAttention
from regard.reading.call import AttentionCall, Visibility, refused
from regard.reading.capture import session
from regard.reading.capture.modules import of_multi_head_function
from regard.reading.capture.session import DROPOUT, SESSION

SOFTMAX = {torch.softmax, Tensor.softmax, functional.softmax}
MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
DROPOUTS = {torch.dropout, functional.dropout}


@contextlib.contextmanager
def seeing() -> Iterator[None]:
    """While this is open in a thread, torch's own attention functions are recorded there."""
    if SESSION.mode is not None:
        yield
        return
    with _Mode() as mode:
        SESSION.mode = mode
        try:
            yield
        finally:
            SESSION.mode = None


class _Mode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        # weights that wait for their product with values: (weights, module)
        self.softmaxes: list[tuple[Tensor, nn.Module]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if torch.compiler.is_compiling() or SESSION.inside:
            return result
        if func is functional.scaled_dot_product_attention:
            dtype = session.autocast_dtype(result)
            self._record(lambda module, path: of_sdpa(module, path, args, kwargs, result, dtype))
        elif func is functional.multi_head_attention_forward:
            dtype = session.autocast_dtype(result[0])
            self._record(lambda module, path: of_multi_head_function(module, path, func, args, kwargs, result, dtype))
        elif func in SOFTMAX or (self.softmaxes and (func in DROPOUTS or func in MATMUL or func is torch.einsum)):
            module = session.calling_module()
            for watcher in session.owners(module)[:1]:
                with session.harmless(watcher, watcher.path(module)):
                    self._written_out(func, module, args, kwargs, result)
        return result

    def _record(self, make: Callable[[nn.Module, str], AttentionCall]) -> None:
        if (module := session.calling_module(3)) is not None:
            session.record(module, lambda path: make(module, path))

    # attention that a module writes out

    def _written_out(
        self, func: Any, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        if func in SOFTMAX:
            if session.unreadable(result) is None and result.dim() in (3, 4, 5):
                self.softmaxes = [*self.softmaxes[-3:], (result, module)]
        elif func in DROPOUTS:
            self._dropped(*args, **kwargs)
        elif func in MATMUL:
            self._multiplied(args[0], args[1] if len(args) > 1 else next(iter(kwargs.values())), result)
        else:
            operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
            product = einsum_as_product(args[0], tuple(operands), result)
            if product is not None:
                self._multiplied(*product)

    def _dropped(self, input: Tensor, p: float = 0.5, training: bool = True, *_: Any, **others: Any) -> None:
        for index, (weights, _module) in enumerate(self.softmaxes):
            if p > 0 and others.get("train", training) and same_weights(weights, input):
                self._settle(
                    index,
                    lambda module, path, weights: refused(module, path, DROPOUT, like=weights, causal=_causal(module)),
                )
                return

    def _multiplied(self, left: Any, value: Any, context: Any) -> None:
        for index, (weights, _) in enumerate(self.softmaxes):
            if isinstance(left, Tensor) and same_weights(weights, left) and value.dim() == left.dim():
                self._settle(index, lambda module, path, weights: of_softmax(module, path, weights, value, context))
                return

    def _settle(self, index: int, make: Callable[[nn.Module, str, Tensor], AttentionCall]) -> None:
        weights, module = self.softmaxes.pop(index)
        session.record(module, lambda path: make(module, path, weights))


def of_sdpa(
    module: nn.Module,
    path: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    context: Tensor,
    dtype: torch.dtype | None,
) -> AttentionCall:
    """torch.nn.functional.scaled_dot_product_attention; `dtype` is what autocast gives its kernel."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, value = (given[name] for name in names[:3])
    is_causal = bool(given.get("is_causal", False))
    causal = is_causal or _causal(module)
    if (why := session.unreadable(query, key, value, context)) is not None:
        return refused(module, path, why, causal=causal)
    query, key, value = (tensor.detach().to(dtype or tensor.dtype) for tensor in (query, key, value))
    output = context
    if given.get("dropout_p", 0.0) > 0:
        return refused(module, path, DROPOUT, like=query, causal=causal)
    if not 3 <= query.dim() <= 4:
        return refused(module, path, "its queries are not [batch, head, position, dimension]", causal=causal)
    mask = given.get("attn_mask")
    if query.dim() == 3:
        # heads there are none, or no batch: torch does not say
        query, key, value, context = (tensor[:, None] for tensor in (query, key, value, context))
        mask = mask[:, None] if mask is not None and mask.dim() == 3 else mask
    if isinstance(module, CausalSelfAttention) and query.shape[1] < module.num_heads:
        # for one token the heads of a group were given as queries of one head
        query, context = (tensor.reshape(len(tensor), -1, 1, tensor.shape[-1]) for tensor in (query, context))
    scale = given.get("scale")
    return AttentionCall(
        module=module,
        path=path,
        query=query,
        key=key,
        value=value,
        context=context.detach(),
        output=output,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        visibilities=(Visibility(mask=mask, causal=0 if is_causal else None),),
        causal=causal,
        padding=_padding(mask, query),
    )


def _causal(module: nn.Module) -> bool | None:
    """What a module says of later keys, if it says anything."""
    causal = getattr(module, "is_causal", None)
    return causal if isinstance(causal, bool) else None


def _padding(mask: Any, query: Tensor) -> Tensor | None:
    """A mask that is one for all queries says which keys are tokens; one for each query says what it sees."""
    if not isinstance(mask, Tensor) or mask.dim() < 2 or mask.shape[-2] != 1 or query.shape[2] == 1:
        return None
    seen = mask if mask.dtype == torch.bool else ~Visibility.hides(mask)
    seen = seen[(None,) * (4 - seen.dim())]
    return seen[:, 0, 0].expand(len(query), -1) if seen.shape[1] == 1 else None


def same_weights(weights: Tensor, other: Tensor) -> bool:
    """Whether the second holds the first, perhaps in another shape or dtype."""
    if other is weights:
        return True
    if other.is_nested or other.numel() != weights.numel() or other.shape[-2:] != weights.shape[-2:]:
        return False
    step = max(1, weights.numel() // 4096)
    sample = weights.detach().reshape(-1)[::step].to(other.dtype)
    # rows that are not numbers are the same too
    return torch.allclose(sample, other.detach().reshape(-1)[::step], rtol=0, atol=0, equal_nan=True)


def of_softmax(module: nn.Module, path: str, weights: Tensor, value: Tensor, context: Tensor) -> AttentionCall:
    """A softmax whose result a module multiplied by values itself."""
    output = context
    weights, value, context = (tensor.detach() for tensor in (weights, value, context))
    causal = _causal(module)
    if weights.dim() > 4:
        return refused(module, path, f"its softmax has {weights.dim()} axes, for parts or streams", causal=causal)
    # one axis for the sequences and the heads of each
    flat = weights.dim() == 3 or value.dim() == 3
    if flat:
        weights = weights.reshape(-1, *weights.shape[-2:])[None]
        value, context = (tensor.reshape(-1, *tensor.shape[-2:])[None] for tensor in (value, context))
    return AttentionCall(
        module=module,
        path=path,
        query=weights,
        key=weights,
        value=value.to(context.dtype),
        context=context,
        output=output,
        weights=weights,
        causal=causal,
        flat=flat,
    )


def einsum_as_product(equation: Any, operands: tuple[Any, ...], result: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weights, values and context of an einsum that sums over the last axis of its first operand; None of another."""
    if not isinstance(equation, str) or len(operands) != 2 or "->" not in equation or "." in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    first, second = inputs.split(",")
    *leading, query, key = first
    (rest,) = (set(second) - {*leading, key},)
    if len(rest) != 1 or set(second) != {*leading, key, *rest} or set(output) != {*leading, query, *rest}:
        return None
    (dim,) = rest
    value = operands[1].permute([second.index(letter) for letter in (*leading, key, dim)])
    context = result.permute([output.index(letter) for letter in (*leading, query, dim)])
    return operands[0], value, context
