"""Every mechanism is its paper's formula, gives each query weights that sum to 1, and never looks at a hidden key."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from regard.attention import MECHANISMS
from regard.errors import RegardError

# these compare query and key as they are
ONE_SIZE = {"dot", "scaled_dot_product"}
CASES = [(name, 4, 4) for name in MECHANISMS] + [(name, 3, 7) for name in MECHANISMS if name not in ONE_SIZE]
# batch, query, key
SIZES = [(1, 1, 1), (1, 3, 5), (3, 1, 7), (2, 5, 4)]
VALUE_DIM = 6


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request):
    name, query_dim, key_dim = request.param
    return name, MECHANISMS[name](query_dim, key_dim).double(), query_dim, key_dim


def inputs(case, size, **options):
    batch, queries, keys = size
    query = torch.randn(batch, queries, case[2], dtype=torch.float64, **options)
    key = torch.randn(batch, keys, case[3], dtype=torch.float64, **options)
    return query, key, torch.randn(batch, keys, VALUE_DIM, dtype=torch.float64, **options)


def padded(size, *, left):
    """A row shorter than the one before it, padded on either side: [batch, 1, key]."""
    batch, _, keys = size
    mask = torch.arange(keys) < torch.tensor([max(1, keys - 1 - row) for row in range(batch)])[:, None]
    return (mask.flip(-1) if left else mask)[:, None]


def per_query(size):
    mask = torch.rand(size) < 0.5
    mask[..., size[2] // 2] = True
    return mask


def masks(size):
    return [padded(size, left=False), padded(size, left=True), per_query(size)]


def additive(module, query, key):
    """Bahdanau et al. 2015, appendix A.1.2: vᵀ tanh(W s + U h)."""
    w, u, v = (numbers(layer.weight) for layer in (module.query_proj, module.key_proj, module.score_proj))
    return v[0] @ np.tanh(w @ query + u @ key)


def concat(module, query, key):
    """Luong et al. 2015, equation 8: vᵀ tanh(W [query; key])."""
    w = torch.cat([module.query_proj.weight, module.key_proj.weight], dim=1)
    pair = torch.cat([torch.as_tensor(query), torch.as_tensor(key)])
    return float(module.score_proj.weight[0].detach() @ torch.tanh(w.detach() @ pair))


FORMULAS = {
    "additive": additive,
    "concat": concat,
    "dot": lambda module, query, key: sum(query * key),
    "general": lambda module, query, key: query @ (numbers(module.key_proj.weight) @ key),
    "scaled_dot_product": lambda module, query, key: sum(query * key) / math.sqrt(len(key)),
}


def numbers(tensor: Tensor):
    return tensor.detach().numpy()


@pytest.mark.parametrize("size", SIZES)
def test_a_mechanism_is_its_papers_formula(case, size):
    name, module, *_ = case
    query, key, value = inputs(case, size)
    for mask in masks(size):
        output = module(query, key, value, mask)
        for b, i in np.ndindex(size[:2]):
            seen = [j for j in range(size[2]) if mask.expand(size)[b, i, j]]
            scores = [FORMULAS[name](module, numbers(query[b, i]), numbers(key[b, j])) for j in seen]
            exps = [math.exp(score - max(scores)) for score in scores]
            weights = np.zeros(size[2])
            weights[seen] = [one / sum(exps) for one in exps]
            np.testing.assert_allclose(numbers(output.weights[b, i]), weights, rtol=1e-12, atol=1e-15)
            context = sum(weights[j] * numbers(value[b, j]) for j in seen)
            np.testing.assert_allclose(numbers(output.context[b, i]), context, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_rows_sum_to_one_and_a_hidden_key_has_exactly_nothing(case, size):
    for mask in masks(size):
        weights = case[1](*inputs(case, size), mask).weights
        torch.testing.assert_close(weights.sum(-1), torch.ones(size[:2], dtype=torch.float64), rtol=1e-14, atol=0)
        assert (weights[~mask.expand(size)] == 0).all()
        assert (weights >= 0).all()


@pytest.mark.parametrize("left", [False, True], ids=["padding right", "padding left"])
@pytest.mark.parametrize("size", SIZES[1:])
def test_what_stands_in_a_hidden_key_changes_nothing(case, size, left):
    query, key, value = inputs(case, size)
    mask = padded(size, left=left)
    hidden = ~mask[:, 0]
    assert hidden.any()
    clean = case[1](query, key, value, mask)
    for poison in (0.0, 1e30, -1e30):
        other_key, other_value = key.clone(), value.clone()
        other_key[hidden], other_value[hidden] = poison, poison
        other = case[1](query, other_key, other_value, mask)
        assert torch.equal(other.context, clean.context)
        assert torch.equal(other.weights, clean.weights)


@pytest.mark.parametrize("left", [False, True], ids=["padding right", "padding left"])
@pytest.mark.parametrize("size", SIZES)
def test_a_sentence_alone_finds_what_it_finds_in_a_padded_batch(case, size, left):
    query, key, value = inputs(case, size)
    mask = padded(size, left=left)
    together = case[1](query, key, value, mask)
    for row in range(size[0]):
        real = mask[row, 0]
        count = int(real.sum())
        alone = case[1](
            query[row : row + 1], key[row : row + 1, real], value[row : row + 1, real], torch.ones(1, 1, count) > 0
        )
        torch.testing.assert_close(alone.context[0], together.context[row], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(alone.weights[0], together.weights[row][:, real], rtol=1e-12, atol=1e-14)


def test_gradients_are_those_of_finite_differences_and_none_reaches_a_hidden_key(case):
    size, module = (2, 3, 4), case[1]
    tensors = inputs(case, size, requires_grad=True)
    parameters = dict(module.named_parameters())
    mask = padded(size, left=True)

    def call(query, key, value, *values):
        named = dict(zip(parameters, values, strict=True))
        return tuple(torch.func.functional_call(module, named, (query, key, value, mask)))

    assert torch.autograd.gradcheck(call, (*tensors, *parameters.values()))
    module(*tensors, mask).context.square().sum().backward()
    for tensor in tensors[1:]:
        assert (tensor.grad[~mask[:, 0]] == 0).all()
        assert (tensor.grad[mask[:, 0]] != 0).any()


@pytest.mark.parametrize("size", SIZES)
def test_keys_prepared_once_serve_every_step(case, size):
    module = case[1]
    query, key, value = inputs(case, size)
    mask = padded(size, left=False)
    prepared = module.prepare(key)
    whole = module(query, key, value, mask)
    at_once = module.attend(query, prepared, value, mask)
    assert torch.equal(at_once.context, whole.context)
    assert torch.equal(at_once.weights, whole.weights)
    for step in range(size[1]):
        one = module.attend(query[:, step : step + 1], prepared, value, mask)
        torch.testing.assert_close(one.context[:, 0], whole.context[:, step], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(one.weights[:, 0], whole.weights[:, step], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(ONE_SIZE))
def test_a_product_of_two_sizes_is_refused(name):
    with pytest.raises(RegardError, match="one size, not 3 and 7"):
        MECHANISMS[name](3, 7)
