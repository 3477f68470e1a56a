"""Gated recurrent units over a whole sequence, alone or with additive attention in every step.

Cho et al. 2014, section 2.3, in the form of torch's `nn.GRU`; Bahdanau, Cho and Bengio 2015, appendix A.1.2 and
A.2.2. Only what a step needs from the step before is done step by step. Backwards, every gate's derivative is the
state's times a factor that is known beforehand, and the gradient of each weight is one product over all steps.
"""

from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from regard.kernels.linear import matmul, packed, product


def gru(
    inputs: Float[Tensor, "batch step three_gates"],
    state: Float[Tensor, "batch hidden"],
    weight: Float[Tensor, "three_gates hidden"],
    bias: Float[Tensor, " three_gates"],
) -> Float[Tensor, "batch step hidden"]:
    """The states after each step; `inputs` holds what the input adds to the gates reset, update and new."""
    return _GRU.apply(inputs, state, weight, bias)  # pyright: ignore[reportReturnType]


class Looks(NamedTuple):
    """States after each step, and what each step found with the state before it."""

    states: Float[Tensor, "batch step hidden"]
    context: Float[Tensor, "batch step value_dim"]
    weights: Float[Tensor, "batch step key"]


def attentive_gru(
    inputs: Float[Tensor, "batch step three_gates"],
    state: Float[Tensor, "batch hidden"],
    weight: Float[Tensor, "three_gates hidden"],
    bias: Float[Tensor, " three_gates"],
    *,
    context_weight: Float[Tensor, "three_gates value_dim"],
    query_weight: Float[Tensor, "score_dim hidden"],
    score_weight: Float[Tensor, " score_dim"],
    prepared: Float[Tensor, "batch key score_dim"],
    values: Float[Tensor, "batch key value_dim"],
    mask: Bool[Tensor, "batch key"],
) -> Looks:
    """`gru` whose every step first looks at the values; no gradient flows through the weights that come back."""
    found = _AttentiveGRU.apply(
        inputs, state, weight, bias, context_weight, query_weight, score_weight, prepared, values, mask
    )
    return Looks(*found)  # pyright: ignore[reportGeneralTypeIssues]


@final
class _Gates:
    """What each step leaves for the way back, first axis the step."""

    def __init__(self, inputs: Tensor, state: Tensor) -> None:
        batch_size, steps, three_gates = inputs.shape
        size = three_gates // 3
        self.size = size
        self.states = state.new_empty(steps + 1, batch_size, size)
        self.states[0] = state
        self.reset_update = state.new_empty(steps, batch_size, 2 * size)
        self.new = state.new_empty(steps, batch_size, size)
        self.recurrent_new = state.new_empty(steps, batch_size, size)

    def move(self, step: int, inputs: Tensor, recurrent: Tensor) -> None:
        """One step on; `inputs` and `recurrent` are what input and state add to the gates."""
        size = self.size
        reset_update, new = self.reset_update[step], self.new[step]
        torch.add(inputs[:, : 2 * size], recurrent[:, : 2 * size], out=reset_update)
        reset_update.sigmoid_()
        self.recurrent_new[step] = recurrent[:, 2 * size : 3 * size]
        torch.addcmul(inputs[:, 2 * size :], reset_update[:, :size], self.recurrent_new[step], out=new)
        _tanh_(new)
        torch.lerp(new, self.states[step], reset_update[:, size:], out=self.states[step + 1])

    @property
    def after(self) -> Tensor:
        return self.states[1:].transpose(0, 1).contiguous()


def _tanh_(numbers: Tensor) -> Tensor:
    """In place, by numpy where the numbers lie on a CPU: there it takes a seventh of torch's time."""
    if numbers.device.type != "cpu":
        return numbers.tanh_()
    array = numbers.numpy()
    np.tanh(array, out=array)
    return numbers


def _factors(states: Tensor, reset_update: Tensor, new: Tensor, recurrent_new: Tensor) -> tuple[Tensor, ...]:
    """By what a step's state gradient is multiplied to give that of: the recurrent gates, the new gate's input,
    the state before along the update gate."""
    reset, update = reset_update.chunk(2, dim=-1)
    to_new = (1 - update) * (1 - new.square())
    to_reset = to_new * recurrent_new * (reset * (1 - reset))
    to_update = (states[:-1] - new) * (update * (1 - update))
    return torch.stack([to_reset, to_update, to_new * reset], dim=2), to_new, update


@final
class _GRU(Function):
    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, inputs: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        gates = _Gates(inputs, state)
        ordered = packed(weight, rows=len(state), products=inputs.shape[1])
        for step in range(inputs.shape[1]):
            gates.move(step, inputs[:, step], product(gates.states[step], ordered, bias))
        ctx.save_for_backward(weight, gates.states, gates.reset_update, gates.new, gates.recurrent_new)
        return gates.after

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, states, *gates = ctx.saved_tensors
        given = gradients[0].transpose(0, 1)
        to_gates, to_new, update = _factors(states, *gates)
        by_state = torch.empty_like(to_new)
        by_gates = torch.empty_like(to_gates)
        before = torch.zeros_like(states[0])
        turned = packed(weight.T, rows=len(before), products=len(to_new))
        for step in reversed(range(len(to_new))):
            now = torch.add(given[step], before, out=by_state[step])
            torch.mul(now[:, None], to_gates[step], out=by_gates[step])
            before = product(by_gates[step].flatten(1), turned).addcmul_(now, update[step])
        rows = by_gates.flatten(2).flatten(0, 1)
        # the input adds to the gates what the state does, but past the reset gate
        by_inputs = torch.cat([*by_gates[:, :, :2].unbind(2), by_state * to_new], dim=-1)
        return by_inputs.transpose(0, 1), before, matmul(rows.T, states[:-1].flatten(0, 1)), rows.sum(dim=0)


@final
class _AttentiveGRU(Function):
    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        inputs: Tensor,
        state: Tensor,
        weight: Tensor,
        bias: Tensor,
        context_weight: Tensor,
        query_weight: Tensor,
        score_weight: Tensor,
        prepared: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch_size, steps, three_gates = inputs.shape
        gates = _Gates(inputs, state)
        # the state's part of the gates and the query come of one product
        joint_weight = torch.cat([weight, query_weight])
        joint_bias = torch.cat([bias, bias.new_zeros(len(query_weight))])
        hidden = torch.zeros_like(mask, dtype=inputs.dtype).masked_fill_(~mask, -torch.inf)
        pairs = inputs.new_empty(steps, *prepared.shape)
        weights = inputs.new_empty(steps, batch_size, 1, prepared.shape[1])
        context = inputs.new_empty(steps, batch_size, 1, values.shape[2])
        ordered, ordered_context = (
            packed(matrix, rows=batch_size, products=steps) for matrix in (joint_weight, context_weight)
        )
        for step in range(steps):
            recurrent = product(gates.states[step], ordered, joint_bias)
            torch.add(prepared, recurrent[:, None, three_gates:], out=pairs[step])
            scores = _tanh_(pairs[step]) @ score_weight
            torch.softmax(scores.add_(hidden)[:, None], dim=-1, out=weights[step])
            torch.bmm(weights[step], values, out=context[step])
            gates.move(step, product(context[step, :, 0], ordered_context).add_(inputs[:, step]), recurrent)
        weights, context = weights.squeeze(2), context.squeeze(2)
        ctx.save_for_backward(
            joint_weight, context_weight, score_weight, values, pairs, weights, context,
            gates.states, gates.reset_update, gates.new, gates.recurrent_new,
        )  # fmt: skip
        looked_at = weights.transpose(0, 1).contiguous()
        ctx.mark_non_differentiable(looked_at)
        return gates.after, context.transpose(0, 1).contiguous(), looked_at

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        joint_weight, context_weight, score_weight, values, pairs, weights, context, states, *gates = ctx.saved_tensors
        given, given_context = gradients[0].transpose(0, 1), gradients[1].transpose(0, 1)
        to_gates, to_new, update = _factors(states, *gates)
        steps, batch_size, size = to_new.shape
        by_state = torch.empty_like(to_new)
        by_joint = states.new_empty(steps, batch_size, len(joint_weight))
        by_gates = by_joint[:, :, : 3 * size].unflatten(-1, (3, size))
        by_inputs = states.new_empty(steps, batch_size, 3 * size)
        by_context = torch.empty_like(context)
        by_prepared = torch.zeros_like(pairs[0])
        by_score_weight = torch.zeros_like(score_weight)
        before = torch.zeros_like(states[0])
        turned, turned_context = (
            packed(matrix.T, rows=batch_size, products=steps) for matrix in (joint_weight, context_weight)
        )
        for step in reversed(range(steps)):
            now = torch.add(given[step], before, out=by_state[step])
            torch.mul(now[:, None], to_gates[step], out=by_gates[step])
            by_inputs[step, :, : 2 * size] = by_joint[step, :, : 2 * size]
            torch.mul(now, to_new[step], out=by_inputs[step, :, 2 * size :])
            by_found = torch.add(product(by_inputs[step], turned_context), given_context[step], out=by_context[step])
            # a row times a matrix: that matrix times a column takes MKL ten times as long
            by_weights = torch.bmm(by_found[:, None], values.mT).squeeze(1)
            seen = weights[step]
            by_scores = torch.mul(seen, by_weights - (seen * by_weights).sum(dim=1, keepdim=True))
            by_score_weight.addmv_(pairs[step].flatten(0, 1).T, by_scores.flatten())
            by_pairs = torch.ops.aten.tanh_backward(by_scores[:, :, None].expand_as(pairs[step]), pairs[step])
            by_prepared += by_pairs
            torch.mul(by_pairs.sum(dim=1), score_weight, out=by_joint[step, :, 3 * size :])
            before = product(by_joint[step], turned).addcmul_(now, update[step])
        rows = by_joint.flatten(0, 1)
        by_joint_weight = matmul(rows.T, states[:-1].flatten(0, 1))
        return (
            by_inputs.transpose(0, 1),
            before,
            by_joint_weight[: 3 * size],
            rows[:, : 3 * size].sum(dim=0),
            matmul(by_inputs.flatten(0, 1).T, context.flatten(0, 1)),
            by_joint_weight[3 * size :],
            by_score_weight,
            by_prepared * score_weight,
            torch.bmm(weights.permute(1, 2, 0), by_context.transpose(0, 1)),
            None,
        )
