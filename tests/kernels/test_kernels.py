"""Every kernel computes what the paper's formula says, forwards and backwards; a hidden key takes no part."""

import math

import numpy as np
import pytest
import torch

from regard.kernels import KERNELS
from regard.kernels.reference import weights

# batch, head, query, key, head_dim, value_dim
SIZES = [
    (1, 1, 1, 1, 1, 1),
    (1, 2, 1, 5, 3, 3),
    (3, 2, 7, 5, 4, 4),
    (2, 3, 5, 13, 8, 5),
    (1, 1, 17, 67, 16, 16),
]
MASKS = ["none", "right padding", "left padding", "any", "causal", "causal and masked"]


@pytest.fixture(params=list(KERNELS))
def kernel(request):
    return KERNELS[request.param]


def inputs(size, dtype=torch.float64):
    batch, head, query, key, head_dim, value_dim = size
    shapes = [(batch, head, query, head_dim), (batch, head, key, head_dim), (batch, head, key, value_dim)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def hide(kind, size):
    """The arguments that hide keys in this manner, and which keys are visible: [batch, head, query, key]."""
    batch, head, query, key = size[:4]
    lengths = torch.tensor([max(1, key - 2 * index) for index in range(batch)])
    right = (torch.arange(key) < lengths[:, None])[:, None, None]
    given = {
        "none": {},
        "right padding": {"mask": right},
        "left padding": {"mask": right.flip(-1)},
        "any": {"mask": (torch.rand(batch, head, query, key) < 0.5).index_fill(-1, torch.tensor(key // 2), True)},
        "causal": {"causal": True},
        # the first key stays, so that the first query has one
        "causal and masked": {
            "mask": (torch.arange(key) % 3 != 1)[None, None, None].repeat(batch, 1, 1, 1),
            "causal": True,
        },
    }[kind]
    visible = np.ones((batch, head, query, key), dtype=bool)
    if "mask" in given:
        visible &= given["mask"].numpy()
    if "causal" in given:
        visible &= np.arange(key) <= np.arange(query)[:, None]
    return given, visible


def mathematics(query, key, value, context_gradient, visible):
    """Context, weights and the three gradients, a query at a time, after Vaswani et al. 2017, equation 1."""
    query, key, value, given = (x.detach().double().numpy() for x in (query, key, value, context_gradient))
    scale = 1 / math.sqrt(query.shape[-1])
    context, all_weights = np.zeros(given.shape), np.zeros(visible.shape)
    gradients = [np.zeros(x.shape) for x in (query, key, value)]
    for b, h, i in np.ndindex(query.shape[:3]):
        seen = np.flatnonzero(visible[b, h, i])
        q, k, v, g = query[b, h, i], key[b, h, seen], value[b, h, seen], given[b, h, i]
        scores = np.array([scale * sum(q * one) for one in k])
        exps = np.exp(scores - scores.max())
        p = exps / exps.sum()
        all_weights[b, h, i, seen] = p
        context[b, h, i] = sum(p[j] * v[j] for j in range(len(seen)))
        # softmax: d score_j = p_j (g · v_j − g · context)
        score_gradient = p * (v @ g - context[b, h, i] @ g)
        gradients[0][b, h, i] += scale * score_gradient @ k
        gradients[1][b, h, seen] += scale * np.outer(score_gradient, q)
        gradients[2][b, h, seen] += np.outer(p, g)
    return context, all_weights, gradients


def run(kernel, tensors, given, context_gradient):
    context = kernel(*tensors, **given)
    return [context, *torch.autograd.grad(context, tensors, context_gradient)]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("size", SIZES)
def test_a_kernel_and_its_gradients_are_the_formulas(kernel, size, kind):
    tensors, (given, visible) = inputs(size), hide(kind, size)
    context_gradient = torch.randn(*size[:3], size[5], dtype=torch.float64)
    context, _, gradients = mathematics(*tensors, context_gradient, visible)
    for ours, truth in zip(run(kernel, tensors, given, context_gradient), [context, *gradients], strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("size", SIZES)
def test_the_weights_are_the_formulas_and_a_hidden_key_has_exactly_none(size, kind):
    (query, key, value), (given, visible) = inputs(size), hide(kind, size)
    _, truth, _ = mathematics(query, key, value, torch.zeros(*size[:3], size[5]), visible)
    ours = weights(query, key, **given).detach()
    np.testing.assert_allclose(ours.numpy(), truth, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(ours.sum(-1).numpy(), 1, rtol=1e-14)
    assert (ours.numpy()[~visible] == 0).all()


@pytest.mark.parametrize("kind", ["none", "left padding", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kernels_error_is_at_most_twice_that_of_the_plain_one(kernel, dtype, kind):
    """Dao et al. 2022, "FlashAttention": the error against higher precision, beside plain code in the same dtype."""
    size = (2, 3, 61, 61, 32, 32)
    tensors, (given, visible) = inputs(size, dtype), hide(kind, size)
    context_gradient = torch.randn(*size[:3], size[5]).to(dtype)
    context, _, gradients = mathematics(*tensors, context_gradient, visible)
    ours = run(kernel, tensors, given, context_gradient)
    plain = run(KERNELS["reference"], tensors, given, context_gradient)
    for name, truth, mine, theirs in zip(
        ("context", "query", "key", "value"), [context, *gradients], ours, plain, strict=True
    ):
        # over all numbers: which of two kernels has the worst single one is chance
        mine_off, theirs_off = (np.square(x.detach().double().numpy() - truth).mean() ** 0.5 for x in (mine, theirs))
        assert mine_off <= 2 * theirs_off, name
        assert mine.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["right padding", "left padding", "causal"])
def test_what_stands_in_a_hidden_key_changes_nothing(kernel, kind, dtype):
    size = (3, 2, 5, 9, 8, 8)
    tensors, (given, visible) = inputs(size, dtype), hide(kind, size)
    context_gradient = torch.randn(*size[:3], size[5], dtype=dtype)
    never_seen = torch.as_tensor(~visible.any(axis=2))
    assert never_seen.any()
    # huge, but finite: 0 times infinity is not 0 in any kernel
    query, key, value = (x.detach().clone() for x in tensors)
    key[never_seen], value[never_seen] = 1e30, -1e30
    poisoned = [x.requires_grad_() for x in (query, key, value)]
    outcome = run(kernel, poisoned, given, context_gradient)
    for ours, clean in zip(outcome, run(kernel, tensors, given, context_gradient), strict=True):
        torch.testing.assert_close(ours, clean, rtol=0, atol=0)
    for gradient in outcome[2:]:
        assert (gradient[never_seen] == 0).all()


def test_a_hidden_key_takes_no_part_however_unlikely_the_others(kernel):
    query, key, value = (x.detach() for x in inputs((1, 1, 1, 3, 4, 4)))
    # scores of -2e8 for the two visible keys, of 0 for the hidden one
    query[:], key[:, :, :2], key[:, :, 2] = 1e4, -1e4, 0
    mask = torch.tensor([True, True, False])[None, None, None]
    assert weights(query, key, mask=mask).flatten().tolist() == [0.5, 0.5, 0]
    context = kernel(query, key, value, mask=mask)
    torch.testing.assert_close(context[0, 0, 0], value[0, 0, :2].mean(dim=0), rtol=1e-12, atol=1e-14)


def test_a_kernel_takes_masks_that_are_broadcast_over_heads_and_queries(kernel):
    size = (3, 2, 5, 9, 4, 4)
    tensors = inputs(size)
    mask, _ = hide("right padding", size)
    whole = kernel(*tensors, mask=mask["mask"].expand(3, 2, 5, 9))
    for shape in [(3, 1, 1, 9), (3, 2, 1, 9), (3, 1, 5, 9)]:
        torch.testing.assert_close(kernel(*tensors, mask=mask["mask"].expand(shape)), whole, rtol=1e-12, atol=1e-12)


def test_under_a_causal_mask_no_query_moves_with_a_later_key(kernel):
    query, key, value = inputs((1, 2, 6, 6, 4, 4))
    before = kernel(query, key, value, causal=True)
    for position in range(6):
        changed = value.detach().clone()
        changed[:, :, position] += 1
        moved = (kernel(query, key, changed, causal=True) != before).any(dim=-1).flatten(0, 1).any(dim=0)
        assert moved.tolist() == [index >= position for index in range(6)]


@pytest.mark.parametrize("autocast", [False, True])
def test_where_a_cpu_learns_in_bfloat16_attention_is_float32s_rounded(autocast):
    narrow = inputs((2, 3, 5, 13, 8, 5), torch.bfloat16)
    wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
    context = KERNELS["fused"](*wide)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = KERNELS["fused"](*narrow)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, context.bfloat16())
    looked_for = torch.randn_like(context).bfloat16()
    context.backward(looked_for.float()), found.backward(looked_for)
    assert all(torch.equal(one.grad, other.grad.bfloat16()) for one, other in zip(narrow, wide, strict=True))
