"""Dropout keeps each number by itself with the probability given, and grows it so that the mean stays."""

import numpy as np
import pytest
import torch

from regard.kernels.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_the_share_of_zeros_is_the_one_asked_for(share):
    torch.manual_seed(0)
    count = 400_000
    dropped = Dropout(share)(torch.ones(count))
    deviations = ((dropped == 0).sum().item() - count * share) / np.sqrt(count * share * (1 - share))
    assert abs(deviations) < 4
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / (1 - share)]))


def test_neighbours_and_calls_are_independent():
    torch.manual_seed(0)
    layer = Dropout(0.5)
    one, two = (layer(torch.ones(400_000)).numpy() - 1 for _ in range(2))
    for left, right in [(one, two), *((one[:-lag], one[lag:]) for lag in (1, 2, 3, 4, 8))]:
        # the product of two independent signs has mean 0 and variance 1
        assert abs((left * right).sum()) < 4 * np.sqrt(len(left))


def test_the_gradient_passes_where_the_number_did():
    inputs = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    output = Dropout(0.4)(inputs)
    gradient = torch.randn_like(output)
    (found,) = torch.autograd.grad(output, inputs, gradient)
    torch.testing.assert_close(found, gradient * output.detach() / inputs.detach())


def test_the_seed_decides():
    layer, inputs = Dropout(0.5), torch.ones(5, 3)
    torch.manual_seed(3)
    first = layer(inputs), layer(inputs)
    torch.manual_seed(3)
    assert all(torch.equal(layer(inputs), before) for before in first)
    assert not torch.equal(*first)


@pytest.mark.parametrize("shape", [(0, 3), (1,), (5, 1), (3, 7)])
def test_any_size_will_do(shape):
    assert Dropout(0.5)(torch.ones(shape)).shape == shape


def test_nothing_is_dropped_outside_training_or_with_no_share():
    inputs = torch.randn(4, 5)
    assert Dropout(0.9).eval()(inputs) is inputs
    assert Dropout(0.0)(inputs) is inputs
