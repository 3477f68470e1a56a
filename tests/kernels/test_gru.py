"""A whole sequence in one function is torch's own unit and the paper's loop, forwards and backwards."""

import pytest
import torch
from torch import nn

from regard.attention.additive import AdditiveAttention
from regard.kernels.gru import attentive_gru, gru

# batch, step, hidden, key, score_dim, value_dim
SIZES = [(1, 1, 1, 1, 1, 1), (1, 4, 3, 5, 2, 4), (3, 7, 4, 6, 5, 8), (5, 2, 6, 1, 3, 3)]


def numbers(*shapes):
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def gru_numbers(batch, step, hidden):
    return numbers((batch, step, 3 * hidden), (batch, hidden), (3 * hidden, hidden), (3 * hidden,))


def lengths_mask(batch, key):
    return torch.arange(key) < torch.tensor([max(1, key - 2 * row) for row in range(batch)])[:, None]


def cell(weight, bias):
    """torch's cell, whose inputs are added to the gates as they are."""
    unit = nn.GRUCell(weight.shape[0], weight.shape[1]).double()
    state = {
        "weight_ih": torch.eye(len(weight)).double(),
        "bias_ih": torch.zeros(len(weight)).double(),
        "weight_hh": weight,
        "bias_hh": bias,
    }
    return lambda inputs, hidden: torch.func.functional_call(unit, state, (inputs, hidden))


def assert_same_gradients(found, true, tensors):
    gradients = [torch.randn_like(output) for output in true]
    for ours, theirs in zip(found, true, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    ours, theirs = (torch.autograd.grad(outputs, tensors, gradients) for outputs in (found, true))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("batch", "step", "hidden"), [size[:3] for size in SIZES])
def test_a_sequence_is_torchs_cell_step_by_step(batch, step, hidden):
    tensors = gru_numbers(batch, step, hidden)
    inputs, state, weight, bias = tensors
    move, states = cell(weight, bias), []
    for now in inputs.unbind(1):
        state = move(now, state)
        states.append(state)
    assert_same_gradients([gru(*tensors)], [torch.stack(states, dim=1)], tensors)


@pytest.mark.parametrize(("batch", "step", "hidden", "key", "score_dim", "value_dim"), SIZES)
def test_a_sequence_that_looks_is_the_papers_loop(batch, step, hidden, key, score_dim, value_dim):
    tensors = gru_numbers(batch, step, hidden) + numbers(
        (3 * hidden, value_dim), (score_dim, hidden), (score_dim,), (batch, key, score_dim), (batch, key, value_dim)
    )
    inputs, state, weight, bias, context_weight, query_weight, score_weight, prepared, values = tensors
    mask, move = lengths_mask(batch, key), cell(weight, bias)
    looks = attentive_gru(
        *tensors[:4],
        context_weight=context_weight,
        query_weight=query_weight,
        score_weight=score_weight,
        prepared=prepared,
        values=values,
        mask=mask,
    )
    states, contexts, weights = [], [], []
    for now in inputs.unbind(1):
        # Bahdanau, Cho and Bengio 2015, appendix A.1.2 and A.2.2, a sentence and a key at a time
        scores = torch.stack(
            [
                torch.stack([score_weight @ torch.tanh(query_weight @ one + other) for other in others])
                for one, others in zip(state, prepared, strict=True)
            ]
        )
        weight_of = torch.softmax(torch.where(mask, scores, -torch.inf), dim=1)
        context = (weight_of[:, :, None] * values).sum(1)
        state = move(now + context @ context_weight.T, state)
        states.append(state), contexts.append(context), weights.append(weight_of)
    torch.testing.assert_close(looks.weights, torch.stack(weights, dim=1), rtol=1e-10, atol=1e-12)
    assert not looks.weights.requires_grad
    true = [torch.stack(part, dim=1) for part in (states, contexts)]
    assert_same_gradients([looks.states, looks.context], true, tensors)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(gru, gru_numbers(2, 3, 2))
    mask = lengths_mask(2, 3)

    def look(*tensors):
        names = ("context_weight", "query_weight", "score_weight", "prepared", "values")
        return attentive_gru(*tensors[:4], **dict(zip(names, tensors[4:], strict=True)), mask=mask)[:2]

    assert torch.autograd.gradcheck(look, gru_numbers(2, 3, 2) + numbers((6, 4), (3, 2), (3,), (2, 3, 3), (2, 3, 4)))


def test_a_hidden_key_takes_no_part():
    torch.manual_seed(0)
    attention = AdditiveAttention(4, 6).double()
    inputs, state, weight, bias = gru_numbers(2, 3, 4)
    (context_weight, values) = numbers((12, 6), (2, 5, 6))
    mask = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])

    def look(values):
        return attentive_gru(
            inputs,
            state,
            weight,
            bias,
            context_weight=context_weight,
            query_weight=attention.query_proj.weight,
            score_weight=attention.score_proj.weight[0],
            prepared=attention.prepare(values),
            values=values,
            mask=mask,
        )

    changed = values.detach().masked_fill(~mask[:, :, None], 1e6)
    for before, after in zip(look(values), look(changed), strict=True):
        torch.testing.assert_close(before, after)
    assert not look(values).weights.masked_select(~mask[:, None]).any()
