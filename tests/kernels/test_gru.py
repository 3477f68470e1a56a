"""A whole sequence in one function is torch's own unit and the paper's loop, forwards and backwards."""

import pytest
import torch
from torch import nn

from regard.attention.additive import AdditiveAttention
from regard.kernels.gru import attentive_gru, gru

# batch, step, hidden, key, score_dim, value_dim; the last one is long enough for weights to be packed
SIZES = [(1, 1, 1, 1, 1, 1), (1, 4, 3, 5, 2, 4), (3, 7, 4, 6, 5, 8), (5, 2, 6, 1, 3, 3), (5, 13, 17, 6, 9, 20)]
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def numbers(*shapes):
    # of weights much larger than this an RNN's steps are chaotic: they blow up any rounding, torch's too
    return [(0.3 * torch.randn(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]


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


def assert_same_gradients(found, true, tensors, dtype):
    """What was computed in `dtype` is what is true in float64, and so are the gradients."""
    outputs, gradients = ((1e-10, 1e-12), (1e-9, 1e-11)) if dtype == torch.float64 else ((1e-5, 1e-6), (1e-4, 1e-5))
    given = [torch.randn_like(output) for output in true]
    wide = [output.double() for output in found]
    for ours, theirs in zip(wide, true, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=outputs[0], atol=outputs[1])
    ours, theirs = (torch.autograd.grad(outputs, tensors, given) for outputs in (wide, true))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=gradients[0], atol=gradients[1])


@DTYPES
@pytest.mark.parametrize(("batch", "step", "hidden"), [size[:3] for size in SIZES])
def test_a_sequence_is_torchs_cell_step_by_step(batch, step, hidden, dtype):
    tensors = gru_numbers(batch, step, hidden)
    inputs, state, weight, bias = tensors
    move, states = cell(weight, bias), []
    for now in inputs.unbind(1):
        state = move(now, state)
        states.append(state)
    found = gru(*(tensor.to(dtype) for tensor in tensors))
    assert found.dtype == dtype
    assert_same_gradients([found], [torch.stack(states, dim=1)], tensors, dtype)


@DTYPES
@pytest.mark.parametrize(("batch", "step", "hidden", "key", "score_dim", "value_dim"), SIZES)
def test_a_sequence_that_looks_is_the_papers_loop(batch, step, hidden, key, score_dim, value_dim, dtype):
    tensors = gru_numbers(batch, step, hidden) + numbers(
        (3 * hidden, value_dim), (score_dim, hidden), (score_dim,), (batch, key, score_dim), (batch, key, value_dim)
    )
    inputs, state, weight, bias, context_weight, query_weight, score_weight, prepared, values = tensors
    mask, move = lengths_mask(batch, key), cell(weight, bias)
    looks = attentive_gru(
        *(tensor.to(dtype) for tensor in tensors[:4]),
        context_weight=context_weight.to(dtype),
        query_weight=query_weight.to(dtype),
        score_weight=score_weight.to(dtype),
        prepared=prepared.to(dtype),
        values=values.to(dtype),
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
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(looks.weights.double(), torch.stack(weights, dim=1), **tolerance)
    assert not looks.weights.requires_grad
    true = [torch.stack(part, dim=1) for part in (states, contexts)]
    assert_same_gradients([looks.states, looks.context], true, tensors, dtype)


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
