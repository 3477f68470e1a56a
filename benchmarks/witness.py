"""The attention that a transformers model computes, seen from outside, and what its weights are in float64.

A witness for readings: it patches nothing. Python's profiler shows every attention function with its
arguments and what it returns; a torch-function mode shows the softmax and the fused attention that a
model calls by itself. It shares no code with the package. Where a watch runs as well, `capture` is best
called inside of it; the other way round works too.
"""

import dataclasses
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from torch.nn.functional import multi_head_attention_forward, scaled_dot_product_attention, softmax
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

TORCH = str(Path(torch.__file__).parent)
PACKAGE = str(Path(__file__).parents[1] / "src" / "regard")
ATTENTION_ARGUMENTS = ("module", "query", "key", "value")
# what attention functions are told, apart from mask and dropout
TOLD = ("scaling", "softcap", "sliding_window", "s_aux", "position_bias", "is_causal")
SOFTMAXES = (softmax, torch.softmax, Tensor.softmax)


@dataclasses.dataclass(eq=False)
class Call:
    """One call of attention: what went in and what came out, copied.

    `route` is "table" (transformers' attention functions), "sdpa" (torch's fused function, called by the
    model itself) or "softmax" (the model's own arithmetic; then only scores and weights are known). Tensors
    are [batch, head, query or key, ...]. `layer` is the model's own number where it tells layers apart, else
    a count of calls. `run` counts the runs of its module: calls of one are about parts of its input.
    """

    route: str
    path: str
    module: nn.Module
    function: str
    forward: int
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    mask: Tensor | BlockMask | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    scores: Tensor | None = None
    weights: Tensor | None = None
    context: Tensor | None = None
    kind: str = ""
    layer: int = -1
    run: int = 0

    @property
    def num_queries(self) -> int:
        return (self.query if self.scores is None else self.scores).shape[2]

    @property
    def num_keys(self) -> int:
        return self.key.shape[2] if self.scores is None else self.scores.shape[3]


def capture(model: nn.Module, run: Callable[[], Any], *, kinds: Sequence[str] = ()) -> list[Call]:
    """The calls of attention during `run()`, in order, of these `kinds`: of the first where a path tells no other."""
    recorder = _Recorder(model)
    # BLIP-2 and Kosmos-2 have the model within write
    within = (getattr(model, name, model) for name in ("language_model", "text_model"))
    writers = {id(each): each for each in (model, *within)}.values()
    handles = [writer.register_forward_pre_hook(recorder.begin) for writer in writers]
    handles += [writer.register_forward_hook(recorder.end, always_call=True) for writer in writers]
    handles.append(register_module_forward_pre_hook(recorder.runs_module))
    previous = sys.getprofile()
    # torch.compile, which FlexAttention runs under, and torch-function modes do not get on
    flex = "flex_attention" in _implementations(model)
    sys.setprofile(recorder.profile)
    try:
        if flex:
            run()
        else:
            with recorder:
                run()
    finally:
        sys.setprofile(previous)
        for handle in handles:
            handle.remove()
    for call in recorder.calls:
        kind = kind_of(call.path)
        call.kind = kind if not kinds or kind in kinds else kinds[0]
        if call.route == "mha" and call.num_queries != call.num_keys:
            call.kind = "resampler" if "resampler" in kinds else "cross"
    _number_layers(recorder.calls)
    return recorder.calls


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.paths = {id(module): name for name, module in model.named_modules()}
        self.calls: list[Call] = []
        self.forwards = 0
        self.runs: Counter[int] = Counter()
        self.depth = 0
        self._inside: list[tuple[FrameType, Call]] = []
        self._forwarded: set[tuple[FrameType, int]] = set()
        self._scored: tuple[Any, ...] = ()

    def begin(self, *_: Any) -> None:
        if not self.depth:
            self.forwards += 1
            self._forwarded.clear()
        self.depth += 1

    def end(self, *_: Any) -> None:
        self.depth -= 1

    def runs_module(self, module: nn.Module, _: Any) -> None:
        self.runs[id(module)] += 1

    def profile(self, frame: FrameType, event: str, result: Any) -> None:
        code, caller = frame.f_code, frame.f_back
        if (
            event == "c_call"
            and code is multi_head_attention_forward.__code__
            and result is scaled_dot_product_attention
        ):
            self._multi_head(frame, None)
        elif event == "c_call" and code is multi_head_attention_forward.__code__ and "q_scaled" in frame.f_locals:
            # before its keys are let go of
            self._scored = tuple(_copy(frame.f_locals[name]) for name in ("q", "k", "attn_mask"))
        elif (
            event == "call"
            and code is softmax.__code__
            and caller
            and caller.f_code is multi_head_attention_forward.__code__
        ):
            self._multi_head(caller, frame.f_locals["input"])
        if event == "call" and code.co_varnames[:4] == ATTENTION_ARGUMENTS and code.co_argcount >= 4:
            if (
                not self._inside
                and not code.co_filename.startswith(PACKAGE)
                and id(frame.f_locals["module"]) in self.paths
            ):
                self._inside.append((frame, self._entered(frame)))
        elif event == "return" and self._inside and self._inside[-1][0] is frame:
            _, call = self._inside.pop()
            if isinstance(result, tuple):
                self._left(call, *result[:2])

    def _entered(self, frame: FrameType) -> Call:
        given = dict(frame.f_locals)
        for name in [name for name, value in given.items() if name == "kwargs" and isinstance(value, dict)]:
            given |= given.pop(name)
        module = given.pop("module")
        mask = given.pop("attention_mask", None)
        query, key, value = (_multiplied(given.pop(name)) for name in ATTENTION_ARGUMENTS[1:])
        return Call(
            route="table",
            path=self.paths[id(module)],
            module=module,
            function=_name(frame),
            forward=self.forwards,
            query=query,
            key=key,
            value=value,
            mask=_copy(mask),
            settings={name: _copy(setting) for name, setting in given.items()},
            run=self.runs[id(module)],
        )

    def _left(self, call: Call, context: Tensor, weights: Any) -> None:
        call.context = context.detach().transpose(1, 2).clone()
        call.weights = _copy(weights) if isinstance(weights, Tensor) and weights.dim() == 4 else None
        self.calls.append(call)

    def _multi_head(self, frame: FrameType, scores: Tensor | None) -> None:
        """torch's function for nn.MultiheadAttention: torch-function modes see none of the calls within."""
        local, module = frame.f_locals, _module(frame)
        if self._inside or module is None or id(module) not in self.paths:
            return
        names = {"path": self.paths[id(module)], "module": module, "function": _name(frame), "forward": self.forwards}
        if scores is None:
            mask, settings = _copy(local["attn_mask"]), {"is_causal": local["is_causal"]}
            query, key, value = (_copy(local[name]) for name in "qkv")
            self.calls.append(Call("mha", **names, query=query, key=key, value=value, mask=mask, settings=settings))
        else:
            query, key, mask = (
                None if tensor is None else tensor.view(-1, min(local["num_heads"], len(tensor)), *tensor.shape[1:])
                for tensor in self._scored
            )
            weights = _copy(scores).view(-1, local["num_heads"], *scores.shape[1:]).softmax(-1)
            settings = {"is_causal": False}
            self.calls.append(Call("mha", **names, query=query, key=key, mask=mask, settings=settings, weights=weights))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._inside or not (func is scaled_dot_product_attention or func in SOFTMAXES):
            return result
        tensor = args[0] if args else kwargs.get("query", kwargs.get("input"))
        frame = self._caller(tensor)
        module = frame and _module(frame)
        if module is None or id(module) not in self.paths:
            return result
        names = {"path": self.paths[id(module)], "module": module, "function": _name(frame), "forward": self.forwards}
        if func is scaled_dot_product_attention:
            given = (
                dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
            )
            query, key, value, mask = (
                _multiplied(given.pop(name, None)) for name in ("query", "key", "value", "attn_mask")
            )
            given["scaling"] = given.pop("scale", None)
            self.calls.append(
                Call(
                    "sdpa", **names, query=query, key=key, value=value, mask=mask, settings=given, context=_copy(result)
                )
            )
        elif _over_keys(tensor, args, kwargs) and (tensor.dim() > 3 or _num_heads(module)):
            scores, weights = (
                _copy(t if t.dim() > 3 else t.view(-1, _num_heads(module), *t.shape[1:])) for t in (tensor, result)
            )
            self.calls.append(Call("softmax", **names, scores=scores, weights=weights))
        return result

    def _caller(self, tensor: Tensor) -> FrameType | None:
        """The model's frame that called a function with this tensor; None where a reader of the model did."""
        frame: FrameType | None = sys._getframe(2)
        read, seen = False, False
        while frame is not None:
            file = frame.f_code.co_filename
            reads = file.startswith(PACKAGE)
            read |= reads
            seen |= not reads and any(value is tensor for value in frame.f_locals.values())
            if not reads and not file.startswith(TORCH):
                break
            frame = frame.f_back
        if frame is None or not read:
            return frame
        # a reader's mode hands the model's call on once, with the model's own tensor; only frames kept stay distinct
        place = (frame, frame.f_lasti)
        if not seen or place in self._forwarded:
            return None
        self._forwarded.add(place)
        return frame


def _implementations(model: nn.Module) -> set[str]:
    return {
        str(getattr(module.config, "_attn_implementation", ""))
        for module in model.modules()
        if hasattr(module, "config")
    }


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _multiplied(value: Any) -> Any:
    """A copy, in the dtype that a product of matrices or the fused kernel takes it in: that of autocast."""
    value = _copy(value)
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    kind = value.device.type
    return value.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else value


def _name(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"


def _module(frame: FrameType | None) -> nn.Module | None:
    while frame is not None and not isinstance(frame.f_locals.get("self"), nn.Module):
        frame = frame.f_back
    return frame and frame.f_locals["self"]


def _over_keys(scores: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    dim = kwargs["dim"] if "dim" in kwargs else args[1]
    return scores.dim() >= 3 and dim in (-1, scores.dim() - 1)


def _num_heads(module: nn.Module) -> int:
    """The heads of a module that attends; 0 of one, such as a router of experts, that does not."""
    names = ("num_heads", "num_attention_heads", "num_attn_heads", "n_heads", "n_head", "head_num")
    return next((getattr(module, name) for name in names if hasattr(module, name)), 0)


def kind_of(path: str) -> str:
    """The kind of attention that a module's path tells of."""
    for pattern, kind in (
        (r"qformer.*crossatt", "resampler"),
        (r"qformer", "queries"),
        (r"image_to_text", "resampler"),
        (r"(^|\.)(vision|visual\.)", "vision"),
        (r"cross_?att|encoder_attn|EncDecAttention", "cross"),
        (r"(^|\.)(text_model|encoder|audio_tower)\.", "encoder"),
    ):
        if re.search(pattern, path):
            return kind
    return "decoder"


def _number_layers(calls: Iterable[Call]) -> None:
    groups: dict[tuple[int, str], list[Call]] = {}
    for call in calls:
        groups.setdefault((call.forward, call.kind), []).append(call)
    for repeated in groups.values():
        # differential attention asks twice for the same weights
        group = [call for i, call in enumerate(repeated) if not (i and _goes_on(call, repeated[i - 1]))]
        own = [int(number[0]) if (number := re.findall(r"\b\d+\b", call.path)) else 0 for call in group]
        for count, call in enumerate(group):
            call.layer = own[count] if len(set(own)) == len(own) else count
        for before, call in itertools.pairwise(repeated):
            call.layer = before.layer if _goes_on(call, before) else call.layer


def _goes_on(call: Call, before: Call) -> bool:
    """Whether a call is of the same layer as the one before it."""
    return same(call, before) or (call.path == before.path and 0 < call.run == before.run)


def same(call: Call, before: Call) -> bool:
    """Whether a call asks for the same weights again."""
    return (
        call.path == before.path
        and call.query is not None
        and torch.equal(call.query, before.query)
        and torch.equal(call.key, before.key)
    )


def hidden_keys(call: Call) -> Tensor | None:
    """Where no query may look, [batch, head or 1, query, key], true where hidden; None where all is seen."""
    scores_shape = (call.query.shape[0], 1, call.query.shape[2], call.key.shape[2])
    mask, settings = call.mask, call.settings
    if isinstance(mask, BlockMask):
        return ~create_mask(mask.mask_mod, scores_shape[0], None, *scores_shape[2:], device=call.query.device)
    if mask is not None:
        mask = mask[..., : scores_shape[-1]]
        return ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2
    causal = settings.get("is_causal")
    if call.route == "table":
        # other functions than the fused one hide nothing by themselves
        causal = getattr(call.module, "is_causal", True) if causal is None else causal
        causal = causal and "sdpa" in call.function
    if causal and scores_shape[2] > 1:
        return torch.ones(scores_shape[2:], dtype=torch.bool).triu(1)[None, None]
    return None


def truth(call: Call) -> Tensor:
    """The weights in float64, [batch, head, query, key]: softmax of softcap(scale · query · keyᵀ) + bias.

    Vaswani et al. 2017, equation 1; a row that sees no key is 0. With attention sinks a row sums to less than 1.
    """
    if call.scores is not None:
        return call.scores.double().softmax(-1)
    query, key = call.query.double(), _per_head(call.key, call.query).double()
    scale = call.settings.get("scaling")
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if (softcap := call.settings.get("softcap")) is not None:
        scores = (scores / softcap).tanh() * softcap
    if (bias := call.settings.get("position_bias")) is not None:
        scores = scores + bias.double()[..., : scores.shape[-1]]
    if isinstance(call.mask, Tensor) and call.mask.dtype != torch.bool:
        scores = scores + call.mask.double()[..., : scores.shape[-1]]
    if (hidden := hidden_keys(call)) is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    sinks = call.settings.get("s_aux")
    if sinks is not None:
        scores = torch.cat([scores, sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], dim=-1)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights if sinks is None else weights[..., :-1]


def _per_head(tensor: Tensor, query: Tensor) -> Tensor:
    return tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1)


def context_error(call: Call) -> float:
    """How far truth · value is from what the call returned, in rows that see a key, relative to the largest value."""
    weights = truth(call)
    value = _per_head(call.value, weights).double()
    seen = weights.sum(-1, keepdim=True) > 0
    difference = (weights @ value - call.context.double()) * seen
    return float(difference.abs().max() / value.abs().max().clamp(min=torch.finfo(value.dtype).tiny))


def weights_error(call: Call, weights: Tensor | None = None) -> float:
    """The largest error of weights (the call's own if none are given) against the truth, over rows that see a key."""
    expected = truth(call)
    weights = call.weights if weights is None else weights
    seen = expected.sum(-1, keepdim=True) > 0
    return float(((weights.double()[..., : expected.shape[-1]] - expected) * seen).abs().max())


def eager_errors(calls: Iterable[Call]) -> dict[tuple[str, int], float]:
    """By kind and layer, the error of the weights that the plain implementation computed in a captured eager run."""
    errors: dict[tuple[str, int], float] = {}
    for call in calls:
        if call.weights is not None:
            place = (call.kind, call.layer)
            errors[place] = max(errors.get(place, 0.0), weights_error(call))
    return errors


def without_padding(weights: Tensor, query_mask: Tensor, key_mask: Tensor | None = None) -> list[Tensor]:
    """Each sequence's weights [head, query, key] at real positions alone; masks [batch, position], 1 where real."""
    key_mask = query_mask if key_mask is None else key_mask
    return [
        item[:, queries.bool()][..., keys.bool()]
        for item, queries, keys in zip(weights, query_mask, key_mask, strict=True)
    ]
