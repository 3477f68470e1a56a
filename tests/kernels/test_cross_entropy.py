"""The loss and its gradient are torch's own, however many rows are worked on at once."""

import pytest
import torch
from torch.nn import functional

from regard.data.batch import IGNORED
from regard.kernels import cross_entropy as module
from regard.kernels.cross_entropy import cross_entropy

ROWS, VOCABULARY = 11, 7


@pytest.fixture(params=[1, 3 * VOCABULARY, 1 << 17], ids=["row by row", "three rows", "all rows"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", request.param)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(ROWS, VOCABULARY, dtype=torch.float64, generator=generator)
    return logits, torch.randint(IGNORED, VOCABULARY, (ROWS,), generator=generator)


def expected(logits, labels, label_smoothing):
    return functional.cross_entropy(
        logits, labels, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
    )


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_loss_and_gradient_are_torchs_in_float64(rows, label_smoothing):
    logits, labels = rows
    assert IGNORED in labels
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = cross_entropy(ours, labels, ignore=IGNORED, label_smoothing=label_smoothing)
    wanted = expected(theirs, labels, label_smoothing)
    torch.testing.assert_close(loss, wanted)
    # what comes after the loss has a part in its gradient
    torch.testing.assert_close(
        torch.autograd.grad(-0.3 * loss, ours), torch.autograd.grad(-0.3 * wanted, theirs), rtol=1e-12, atol=1e-14
    )


@pytest.mark.usefixtures("chunk")
def test_the_gradient_is_that_of_the_loss(rows):
    logits, labels = rows
    logits.requires_grad_()
    torch.autograd.gradcheck(lambda logits: cross_entropy(logits, labels, ignore=IGNORED, label_smoothing=0.2), logits)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_numbers_are_summed_in_float32_and_get_gradients_of_their_own_kind(rows, dtype):
    logits, labels = rows
    ours = logits.to(dtype).requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    loss = cross_entropy(ours, labels, ignore=IGNORED, label_smoothing=0.1)
    wanted = expected(theirs, labels, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    (found,), (gradient,) = torch.autograd.grad(loss, ours), torch.autograd.grad(wanted, theirs)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), gradient, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.usefixtures("chunk")
def test_rows_that_are_not_asked_for_have_no_part_whatever_is_in_them():
    logits = torch.full((2, VOCABULARY), 1e30)
    logits[1] = torch.arange(VOCABULARY)
    logits.requires_grad_()
    labels = torch.tensor([IGNORED, 3])
    loss = cross_entropy(logits, labels, ignore=IGNORED, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected(logits[1:], labels[1:], 0.1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[0].any()


@pytest.mark.usefixtures("chunk")
def test_large_logits_do_not_overflow():
    logits = torch.tensor([[1e30, 0.0, -1e30]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([1]), ignore=IGNORED, label_smoothing=0.0)
    assert loss.item() == pytest.approx(1e30)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.tolist() == [[1.0, -1.0, 0.0]]
