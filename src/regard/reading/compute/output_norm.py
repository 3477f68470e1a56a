"""`output_norm`: the norm of what one key adds, by one head, to the output of a layer's output projection.

‖weights[i, j] · value[j] · W‖ in Kobayashi et al. 2020, "Attention is not only a weight", equation 5, with W the linear
map that the projection computes, also with LoRA or quantised weights. Where a gate multiplies the context elementwise,
as in Qwen3-Next, it is ‖(weights[i, j] · value[j] ⊙ gate[i]) · W‖.

The run itself proves it: the projection's input must be the context, or the context times a function of a tensor that
is older than the context, and the projection's output must be the linear map of its input.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from regard.reading.call import AttentionCall
from regard.reading.capture.session import unobserved
from regard.reading.layouts import Layout
from regard.reading.runs import Piece

OUTPUT_NORM = "output_norm"
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "o", "out_lin", "wo", "Wo", "proj", "projection", "linear_out")
# what models make a gate with
GATES = (torch.sigmoid, lambda gate: gate, functional.silu, torch.tanh, functional.softplus)


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Copies of the kept rows of one batch item: their context, and tensors that are older than the context.

    `gates` are of the context's shape or [row, head, 1], `states` have one vector for each row.
    """

    item: int
    slots: list[int]
    keys: slice
    piece: Piece
    context: Float[Tensor, "row head dim"]
    gates: list[Tensor]
    states: list[Tensor]


class OutputNorm:
    """Waits for the output projection after an attention call, and enters the statistic or why it is left out.

    `close` must be called when the run is over; it removes the hook if the projection was never called.
    """

    def __init__(self, call: AttentionCall, layouts: Sequence[Layout], pieces: dict[int, Piece]) -> None:
        self._path = call.path
        self._pieces = list(pieces.values())
        self._thread = threading.get_ident()
        self._hook: Any = None
        # let go of when the projection has been called
        self._kept: tuple[AttentionCall, list[KeptRows]] | None = None
        found = (getattr(call.module, name, None) for name in PROJECTIONS)
        projection = next((each for each in found if isinstance(each, nn.Module)), None)
        if projection is None:
            self._leave_out(f"the output projection of {call.path} is not known")
            return
        if any(layout.call is not None for layout in layouts):
            self._leave_out("padding stands between the tokens of a text")
            return
        older = list(_locals(call.module))
        rows = [_kept(call, layout, pieces[item], older) for item, layout in enumerate(layouts)]
        if isinstance(call.module, nn.MultiheadAttention):
            # torch does not call this module, and capture has proved the output with its weights
            _enter(call, rows, _linear_map(projection, call.context)[0], [_ones(each.context) for each in rows])
            return
        self._kept = call, rows
        self._hook = projection.register_forward_hook(self._called, with_kwargs=True)

    def close(self) -> None:
        """Without its projection the run leaves the statistic out."""
        if self._hook is not None:
            self._unhook()
            self._leave_out(f"the output projection of {self._path} was not called after its attention")

    def _unhook(self) -> tuple[AttentionCall, list[KeptRows]]:
        assert self._kept is not None
        kept, self._kept = self._kept, None
        self._hook.remove()
        self._hook = None
        return kept

    def _leave_out(self, why: str) -> None:
        for piece in self._pieces:
            piece.left_out[OUTPUT_NORM] = why

    def _called(self, projection: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if self._hook is None or threading.get_ident() != self._thread:
            return
        call, rows = self._unhook()
        try:
            with unobserved():
                given = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
                why = _project(call, rows, projection, given, output)
        except Exception as error:  # a watch never harms a run
            why = f"{type(error).__name__}: {error}"
        if why is not None:
            self._leave_out(why)


def _project(
    call: AttentionCall, kept: Sequence[KeptRows], projection: nn.Module, given: Any, output: Any
) -> str | None:
    """Enter the statistic from what the projection was given and returned; why it cannot be known."""
    between = f"between the attention of {call.path} and its output projection"
    batch, heads, num_queries, dim = call.context.shape
    if any(each.device.type == "meta" for each in projection.parameters()):
        return f"the weights of the output projection of {call.path} are offloaded"
    if not isinstance(given, Tensor) or given.numel() != call.context.numel() or given.shape[-1] != heads * dim:
        return f"something changes the shape of the context {between}"
    if not isinstance(output, Tensor) or output.shape[:-1] != given.shape[:-1]:
        return f"the output projection of {call.path} changes the shape of its input"
    inputs, outputs = (each.detach().reshape(batch, num_queries, -1) for each in (given, output))
    gates = []
    for rows in kept:
        gate = _gate(rows, inputs[rows.item, rows.slots], call.module, projection)
        if gate is None:
            return f"what stands {between} is not known to be linear in the context, as a gate is and a norm is not"
        gates.append(gate)
    matrix, bias = _linear_map(projection, inputs)
    for rows in kept:
        if rows.slots:
            x, y = (each[rows.item, rows.slots].to(matrix.dtype) for each in (inputs, outputs))
            error = float((x @ matrix + bias - y).abs().amax() / (x.abs() @ matrix.abs() + bias.abs()).amax())
            if not error <= _tolerance(outputs.dtype):
                return f"the output projection of {call.path} is not linear: off by {error:.1e}"
    _enter(call, kept, matrix, gates)
    return None


def _enter(
    call: AttentionCall,
    kept: Sequence[KeptRows],
    matrix: Float[Tensor, "context output"],
    gates: Sequence[Float[Tensor, "row head _"]],
) -> None:
    per_head = matrix.unflatten(0, (call.num_heads, -1)).double()
    # ‖x W‖² is x (W Wᵀ) xᵀ, where W Wᵀ has only the head's own dimensions
    gram = per_head @ per_head.mT
    for rows, gate in zip(kept, gates, strict=True):
        value = call.value[rows.item, :, rows.keys].double()
        value = value.repeat_interleave(len(gram) // len(value), dim=0)
        per_row = gate.double().transpose(0, 1)
        if per_row.shape[-1] == 1:
            norms = per_row.abs() * _norms(value, gram)[:, None]
        else:
            norms = torch.stack([_norms(value * each[:, None], gram) for each in per_row.unbind(1)], dim=1)
        weights = rows.piece.weights
        assert weights is not None
        rows.piece.row_statistics[OUTPUT_NORM] = (weights * norms.to(weights.device)).float()


def _ones(context: Float[Tensor, "row head dim"]) -> Float[Tensor, "row head 1"]:
    return torch.ones_like(context[..., :1])


def _norms(x: Float[Tensor, "head key dim"], gram: Float[Tensor, "head dim dim"]) -> Float[Tensor, "head key"]:
    return ((x @ gram) * x).sum(-1).clamp(min=0).sqrt()


def _tolerance(dtype: torch.dtype) -> float:
    return (4 if dtype.itemsize == 2 else 64) * torch.finfo(dtype).eps


def _locals(module: Any) -> Iterator[Tensor]:
    """The variables of the methods of a module that are running: none has seen yet what the kernel returned."""
    frame = sys._getframe()
    while frame is not None and frame.f_code is not nn.Module._call_impl.__code__:
        if "self" in frame.f_code.co_varnames[:1] and frame.f_locals.get("self") is module:
            yield from (each for each in frame.f_locals.values() if type(each) is Tensor and each.is_floating_point())
        frame = frame.f_back


def _kept(call: AttentionCall, layout: Layout, piece: Piece, older: Sequence[Tensor]) -> KeptRows:
    batch, heads, num_queries, dim = call.context.shape
    slots = [row - layout.query_position + layout.queries.start for row in piece.rows]
    gates, states = [], []
    for each in older:
        size = each.numel() // max(1, batch * num_queries * heads)
        if each.shape[:2] == (batch, num_queries):
            rows = each[layout.item, slots].flatten(1)
            states.append(rows)
            if size in (1, dim) and rows.shape[1] == heads * size:
                gates.append(rows.unflatten(1, (heads, size)))
        elif each.shape[:3] == (batch, heads, num_queries) and size in (1, dim):
            gates.append(each[layout.item][:, slots].transpose(0, 1).reshape(len(slots), heads, size))
    # indexing by a list copies
    context = call.context[layout.item][:, slots].transpose(0, 1)
    return KeptRows(layout.item, slots, layout.keys, piece, context, gates, states)


def _gate(rows: KeptRows, given: Tensor, module: nn.Module, projection: nn.Module) -> Tensor | None:
    """What the context was multiplied by before the projection, [row, head, dim or 1]; None where that is not known.

    Gates are computed from what is older than the context: as it is, or by a layer of the module.
    """
    context, given = rows.context.to(given.dtype), given.reshape(rows.context.shape)
    if torch.equal(context, given):
        return _ones(context)
    heads, dim = context.shape[1:]
    tolerance = _tolerance(given.dtype)
    for gate in (*rows.gates, *_layer_outputs(rows.states, module, projection, (heads, heads * dim))):
        for function in GATES:
            found = function(gate.float() if gate.dtype.itemsize == 2 else gate).reshape(len(context), heads, -1)
            error = (context * found - given).abs()
            if (error <= tolerance * context.abs() * found.abs().amax()).all():
                return found
    return None


def _layer_outputs(
    states: Sequence[Tensor], module: nn.Module, projection: nn.Module, sizes: tuple[int, int]
) -> Iterator[Tensor]:
    for layer in module.children():
        if layer is not projection and getattr(layer, "out_features", None) in sizes:
            for each in states:
                if each.shape[-1] == getattr(layer, "in_features", None):
                    yield layer.forward(each)


def _linear_map(
    projection: nn.Module, like: Tensor
) -> tuple[Float[Tensor, "context output"], Float[Tensor, " output"]]:
    """The matrix and bias of a projection: its own, or what it makes of the unit vectors, less what it makes of 0.

    `forward` is called by itself, so that no hook sees it.
    """
    precision = torch.float64 if like.dtype == torch.float64 else torch.float32
    weight, bias = getattr(projection, "weight", None), getattr(projection, "bias", None)
    is_conv = type(projection).__name__ == "Conv1D"
    if isinstance(weight, Tensor) and type(weight) is nn.Parameter and (is_conv or _is_plain(projection)):
        # GPT-2's Conv1D keeps its matrix the other way round
        matrix = (weight if is_conv else weight.T).detach().to(precision)
        return matrix, matrix.new_zeros(matrix.shape[1]) if bias is None else bias.detach().to(precision)
    units = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
    # quantised weights are tensors with functions of their own
    with torch._C._EnableTorchFunction():
        constant = projection.forward(torch.zeros_like(units[:1]))[0]
        return (projection.forward(units) - constant).to(precision), constant.to(precision)


def _is_plain(projection: nn.Module) -> bool:
    return isinstance(projection, nn.Linear) and type(projection).forward is nn.Linear.forward
