"""The product with a weight is float64's, forwards and backwards, whatever lies in memory how."""

import pytest
import torch
from torch.nn import functional

from regard.kernels import linear as module
from regard.kernels.linear import LEAST_PRODUCTS, Linear, linear, matmul, packed, product

# shape of the inputs, output_dim
SIZES = [
    ((5,), 3),
    ((1, 1), 1),
    ((0, 4), 3),
    ((2, 0, 4), 3),
    ((7, 1), 5),
    ((33, 65), 1),
    ((3, 5, 31), 67),
    ((64, 256), 48),
]


def mathematics(inputs, weight, bias, gradient):
    """Output and the three gradients, in float64."""
    doubles = [tensor.detach().double().requires_grad_() for tensor in (inputs, weight, bias)]
    output = (doubles[0][..., None, :] * doubles[1]).sum(-1) + doubles[2]
    return [output, *torch.autograd.grad(output, doubles, gradient.double())]


def error(found, true):
    return (found.double() - true).abs().amax() if true.numel() else torch.tensor(0.0)


@pytest.fixture(params=[False, True], ids=["oneDNN", "MKL"], autouse=True)
def at_home(request, monkeypatch):
    """The products of either library, whoever made the processor."""
    monkeypatch.setattr(module, "mkl_is_at_home", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("shape", "output_dim"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_output_and_gradients_err_at_most_twice_as_much_as_torchs(shape, output_dim, dtype):
    torch.manual_seed(0)
    tensors = [torch.randn(shape), torch.randn(output_dim, shape[-1]), torch.randn(output_dim)]
    tensors = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    gradient = torch.randn(*shape[:-1], output_dim).to(dtype)
    true = mathematics(*tensors, gradient)
    ours, plain = (
        [output, *torch.autograd.grad(output, tensors, gradient)]
        for output in (linear(*tensors), functional.linear(*tensors))
    )
    for found, theirs, exact in zip(ours, plain, true, strict=True):
        assert found.shape == exact.shape
        assert found.dtype == dtype
        # one rounding of the largest number is within reach of any order of summing
        rounding = torch.finfo(dtype).eps * (exact.abs().max() if exact.numel() else 0)
        assert error(found, exact) <= 2 * error(theirs, exact) + rounding


@pytest.mark.parametrize("kind", ["rows", "columns", "transposed", "reversed axes", "expanded"])
def test_views_of_all_kinds_give_what_their_copies_give(kind):
    big = torch.randn(40, 60)
    inputs, weight = {
        "rows": (big[::2, :30], big[3:9, 30:]),
        "columns": (big[:, 5:20], big[:7, 20:35]),
        "transposed": (big.T, big[:, ::6].T),
        "reversed axes": (big.view(8, 5, 60).transpose(0, 1), big[::4]),
        "expanded": (big[:1].expand(9, 60), big[0].expand(4, 60)),
    }[kind]
    torch.testing.assert_close(linear(inputs, weight), linear(inputs.clone().contiguous(), weight.clone().contiguous()))
    rows = inputs.reshape(-1, inputs.shape[-1])
    torch.testing.assert_close(
        matmul(rows.T, rows), rows.double().T.matmul(rows.double()).float(), rtol=1e-4, atol=1e-5
    )


def test_a_part_of_a_larger_weight_is_as_fast_as_a_weight(monkeypatch, at_home):
    """oneDNN takes a thousand times as long where rows have gaps between them: it is never given such a matrix."""
    given = []
    operation = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        "torch.ops.mkldnn._linear_pointwise", lambda *args: given.extend(args[:2]) or operation(*args), raising=True
    )
    weight = torch.randn(12, 20, requires_grad=True)
    linear(torch.randn(3, 30, requires_grad=True)[:, 8:16], weight[:, 4:12]).sum().backward()
    assert len(given) == (0 if at_home else 6)
    assert all(matrix.is_contiguous() or matrix.T.is_contiguous() for matrix in given)


def test_autocast_is_heeded():
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(3, 4), torch.randn(5, 4)).dtype == torch.bfloat16


def test_a_layer_starts_as_torchs_does():
    torch.manual_seed(1)
    ours = Linear(7, 5)
    torch.manual_seed(1)
    theirs = torch.nn.Linear(7, 5)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    assert Linear(7, 5, bias=False).bias is None


@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("products", [1, LEAST_PRODUCTS])
@pytest.mark.parametrize("turned", [False, True])
def test_a_packed_weight_gives_the_same_product(rows, products, turned):
    torch.manual_seed(0)
    weight = torch.randn(17, 31).T if turned else torch.randn(31, 17)
    inputs, bias = torch.randn(rows, 17), torch.randn(31)
    ordered = packed(weight, rows=rows, products=products)
    # where there is oneDNN
    assert ordered.is_mkldnn is (products >= LEAST_PRODUCTS and torch.backends.mkldnn.is_available())
    exact = inputs.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(product(inputs, ordered, bias).double(), exact, rtol=1e-5, atol=1e-5)


def test_float64_is_never_packed():
    weight = torch.randn(3, 4, dtype=torch.float64)
    assert packed(weight, rows=2, products=100) is weight
