"""One attention call of a model as its kernel got it, and what follows from it for any of its queries.

Weights are softmax(scale · query · keyᵀ + bias) over the keys that a query sees, Vaswani et al. 2017, equation 1. They
are computed for the queries that are asked for, never for all pairs at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# added to a score, less than this hides a key; of float16 it is half of the least number
HIDES = -1e30


@dataclass(frozen=True, eq=False)
class Visibility:
    """Which keys a query sees, and what is added to its scores; queries and keys are counted as the kernel has them.

    `mask` is true where a key is seen or is added to the scores, `bias` is added: both broadcast to
    [batch, head, query, key]. With `causal` query i sees keys up to i + causal, with `window` only so many of the last
    of them. `mask_mod` and `score_mod` are FlexAttention's.
    """

    mask: Tensor | None = None
    bias: Tensor | None = None
    causal: int | None = None
    window: int | None = None
    mask_mod: Callable[..., Any] | None = None
    score_mod: Callable[..., Any] | None = None

    def seen(self, queries: Int[Tensor, " query"], num_keys: int) -> Int[Tensor, "query 2"]:
        """The first key that each query sees and the one after its last, by causality and window alone."""
        last = queries + (num_keys if self.causal is None else self.causal)
        first = torch.zeros_like(last) if self.window is None or self.causal is None else last - self.window + 1
        return torch.stack((first, last + 1), dim=-1).clamp_(0, num_keys)

    @staticmethod
    def hides(added: Tensor) -> Tensor:
        """Where what is added to a score hides the key."""
        return added <= max(torch.finfo(added.dtype).min / 2, HIDES)

    def apply(
        self, scores: Float[Tensor, "head query key"], *, item: int, heads: slice, queries: Tensor, first_key: int
    ) -> Float[Tensor, "head query key"]:
        """Scores, changed in place where that can be, with biases added and -inf where a key is not seen."""
        scores = self.add(scores, item=item, heads=heads, queries=queries, first_key=first_key, hidden=-torch.inf)
        if self.causal is not None and len(queries):
            stop = first_key + scores.shape[-1]
            seen = self.seen(queries, stop)
            # the keys that all these queries see need no mask
            start = first_key if self.window is not None else max(first_key, int(seen[:, 1].min()))
            keys = torch.arange(start, stop, device=scores.device)
            hidden = (keys < seen[:, :1]) | (keys >= seen[:, 1:])
            scores[..., start - first_key :].masked_fill_(hidden, -torch.inf)
        return scores

    def add(
        self,
        scores: Float[Tensor, "head query key"],
        *,
        item: int,
        heads: slice,
        queries: Tensor,
        first_key: int,
        hidden: float,
    ) -> Float[Tensor, "head query key"]:
        """The same without what `seen` says of keys, and with `hidden` for -inf."""
        num_keys = scores.shape[-1]
        if self.score_mod is not None or self.mask_mod is not None:
            keys = torch.arange(first_key, first_key + num_keys, device=scores.device)
            head = torch.arange(heads.start, heads.stop, device=scores.device)[:, None, None]
            indices = (torch.tensor(item, device=scores.device), head, queries[:, None], keys)
            if self.score_mod is not None:
                scores = self.score_mod(scores, *indices)
            if self.mask_mod is not None:
                seen = torch.as_tensor(self.mask_mod(*indices), device=scores.device)
                scores = scores.masked_fill(~seen, hidden)
        for added in (self.bias, self.mask):
            if added is None:
                continue
            tile = _tile(added, item, heads, queries, slice(first_key, first_key + num_keys))
            if tile.dtype == torch.bool:
                scores.masked_fill_(~tile, hidden)
            else:
                scores += tile.to(scores.dtype)
                scores.masked_fill_(self.hides(tile), hidden)
        return scores


def _tile(tensor: Tensor, item: int, heads: slice, queries: Tensor, keys: slice) -> Tensor:
    """What concerns an item, some heads, queries and keys, of what broadcasts to [batch, head, query, key]."""
    tensor = tensor[(None,) * (4 - tensor.dim())]
    tensor = tensor[item if tensor.shape[0] > 1 else 0]
    if tensor.shape[0] > 1:
        tensor = tensor[heads]
    if tensor.shape[1] > 1:
        tensor = tensor[:, queries]
    return tensor[..., keys] if tensor.shape[-1] > 1 else tensor


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """Query, key and value as the kernel got them and the context that it gave back.

    Keys and values may have fewer heads; then several heads of the query share one. `visibilities` are candidate masks;
    verification picks the one that reproduces the context. `weights` are the model's own, in place of queries and keys,
    where it computes them outside of any kernel. `refused` says why the call cannot be read.

    `cross` is true where the caller says that keys come from another sequence, `causal` what it says of later keys,
    None where it says nothing. `padding` is true where a key is a token, as far as the call itself tells padding apart.
    `flat` says that batch and heads share one axis. `total` is how many positions the module was given, where the call
    may be one of several over parts of them. `output` is what the model goes on with, and `context` a view of it:
    the gradient of one is that of the other. Where several requests share an axis, `packed` has 0 and the ends of the
    queries of each, and those of its keys.
    """

    module: Any
    path: str
    value: Float[Tensor, "batch key_head key value_dim"]
    context: Float[Tensor, "batch head query value_dim"]
    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch key_head key dim"]
    scale: float = 1.0
    visibilities: tuple[Visibility, ...] = (Visibility(),)
    softcap: float | None = None
    sinks: Float[Tensor, " head"] | None = None
    weights: Float[Tensor, "batch head query key"] | None = None
    refused: str | None = None
    cross: bool = False
    causal: bool | None = None
    padding: Bool[Tensor, "batch key"] | None = None
    flat: bool = False
    total: int | None = None
    output: Tensor | None = None
    packed: tuple[list[int], list[int]] | None = None

    @property
    def num_heads(self) -> int:
        return self.context.shape[1]

    @property
    def num_queries(self) -> int:
        return self.context.shape[2]

    @property
    def num_keys(self) -> int:
        return self.value.shape[2]


def grouped(
    query: Float[Tensor, "head query dim"], key: Float[Tensor, "key_head key _"]
) -> Float[Tensor, "key_head group_query dim"]:
    """Queries of the heads that share a key head, one after the other."""
    return query.reshape(len(key), -1, query.shape[-1])


def exact_scores(
    call: AttentionCall, visibility: Visibility, *, item: int, queries: Tensor, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "head query key"]:
    """The scores of these queries over all keys, before the softmax: scaled, capped and biased; -inf where hidden."""
    # index_select would first copy all queries, which seldom lie head by head
    query = call.query[item][:, queries].to(dtype) * call.scale
    key = call.key[item].to(dtype)
    scores = (grouped(query, key) @ key.mT).view(len(query), len(queries), -1)
    if call.softcap is not None:
        scores = call.softcap * (scores / call.softcap).tanh()
    return visibility.apply(scores, item=item, heads=slice(0, len(scores)), queries=queries, first_key=0)


def exact_weights(
    call: AttentionCall,
    visibility: Visibility,
    *,
    item: int,
    queries: Tensor,
    dtype: torch.dtype = torch.float64,
) -> tuple[Float[Tensor, "head query key"], Float[Tensor, "head query"]]:
    """The weights of these queries over all keys, and what of each row goes to a sink outside the sequence.

    A query that sees no key has weights of 0.
    """
    if call.weights is not None:
        weights = call.weights[item][:, queries].to(dtype)
        return weights, weights.new_zeros(weights.shape[:2])
    scores = exact_scores(call, visibility, item=item, queries=queries, dtype=dtype)
    if call.sinks is not None:
        sinks = call.sinks.to(dtype)[:, None, None].expand(-1, len(queries), 1)
        scores = torch.cat((scores, sinks), dim=-1)
    # where no key is seen 0 is divided by 0; a score that is no number is let through
    blind = scores[..., :1] == -torch.inf
    if blind.any():
        blind = (scores == -torch.inf).all(-1, keepdim=True)
    # in place, for fresh memory costs more than the sums; were torch to mind, no row would prove itself
    weights = torch.softmax(scores, dim=-1, out=scores)
    if blind.any():
        weights.masked_fill_(blind, 0.0)
    if call.sinks is not None:
        return weights[..., :-1], weights[..., -1]
    return weights, weights.new_zeros(weights.shape[:2])


def contexts(
    weights: Float[Tensor, "head query key"], value: Float[Tensor, "key_head key value_dim"]
) -> Float[Tensor, "head query value_dim"]:
    """Weights times values."""
    value = value.to(weights.dtype)
    return (grouped(weights, value) @ value).view(*weights.shape[:2], -1)


def by_item(call: AttentionCall) -> list[AttentionCall]:
    """A call for each item of the batch, of which each sees a part of the positions that are given in all."""
    count = call.context.shape[0]
    total = count * call.num_queries if call.total is None else count * call.total

    def own(tensor: Tensor | None, item: int) -> Tensor | None:
        return tensor if tensor is None or tensor.shape[0] == 1 else tensor[item : item + 1]

    def seen(visibility: Visibility, item: int) -> Visibility:
        mask, bias = (
            None if each is None else own(each[(None,) * (4 - each.dim())], item)
            for each in (visibility.mask, visibility.bias)
        )
        at = torch.tensor(item, device=call.value.device)
        mods = {
            name: None if mod is None else (lambda *given, mod=mod: mod(*_at(given, at)))
            for name, mod in (("mask_mod", visibility.mask_mod), ("score_mod", visibility.score_mod))
        }
        return replace(visibility, mask=mask, bias=bias, **mods)

    return [
        replace(
            call,
            **{name: own(getattr(call, name), item) for name in ("query", "key", "value", "context", "weights")},
            padding=own(call.padding, item),
            visibilities=tuple(seen(each, item) for each in call.visibilities),
            output=None,
            total=total,
        )
        for item in range(count)
    ]


def _at(given: tuple[Any, ...], item: Tensor) -> tuple[Any, ...]:
    """The arguments of a function of FlexAttention, for an item of the whole batch: a score may be the first."""
    *before, _, head, query, key = given
    return (*before, item, head, query, key)


def refused(module: Any, path: str, why: str, *, like: Tensor | None = None, **sort: Any) -> AttentionCall:
    """A call that cannot be read; `like` has the axes of its queries."""
    if like is None or like.is_nested or like.dim() != 4:
        like = torch.empty(1, 1, 0, 0)
    return AttentionCall(module=module, path=path, query=like, key=like, value=like, context=like, refused=why, **sort)
