"""Multi-head attention is torch's own, with the same weights; reading it changes no bit of what it gives."""

import pytest
import torch
from torch import nn

from regard.attention.multi_head import MultiHeadAttention
from regard.errors import RegardError

# batch, query, key, model_dim, heads
SIZES = [(1, 1, 1, 4, 1), (1, 5, 7, 6, 3), (3, 7, 5, 8, 2), (2, 6, 6, 12, 4)]


def pair(model_dim, num_heads):
    """Ours, and torch's with the same weights."""
    ours = MultiHeadAttention(model_dim, num_heads).double().eval()
    theirs = nn.MultiheadAttention(model_dim, num_heads, batch_first=True).double().eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.in_proj.weight)
        theirs.in_proj_bias.copy_(ours.in_proj.bias)
        theirs.out_proj.weight.copy_(ours.out_proj.weight)
        theirs.out_proj.bias.copy_(ours.out_proj.bias)
    return ours, theirs


def padded(batch, keys, *, left=False):
    mask = torch.arange(keys) < torch.tensor([max(1, keys - row) for row in range(batch)])[:, None]
    return mask.flip(-1) if left else mask


def assert_same(ours, theirs, query, memory, **options):
    output, heads = ours(ours.ask(query), ours.remember(memory), read=True, **options)
    visible = options.get("mask")
    expected, weights = theirs(
        query,
        memory,
        memory,
        key_padding_mask=None if visible is None else ~visible[:, 0],
        attn_mask=torch.ones(query.shape[1], memory.shape[1]).triu(1) > 0 if options.get("causal") else None,
        average_attn_weights=False,
    )
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(heads.weights, weights, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("batch", "queries", "keys", "model_dim", "heads"), SIZES)
def test_attention_to_another_sequence_is_torchs(batch, queries, keys, model_dim, heads):
    ours, theirs = pair(model_dim, heads)
    query = torch.randn(batch, queries, model_dim, dtype=torch.float64)
    memory = torch.randn(batch, keys, model_dim, dtype=torch.float64)
    assert_same(ours, theirs, query, memory)
    for left in (False, True):
        assert_same(ours, theirs, query, memory, mask=padded(batch, keys, left=left)[:, None])


@pytest.mark.parametrize(("batch", "queries", "_keys", "model_dim", "heads"), SIZES)
def test_attention_of_a_sequence_to_itself_is_torchs(batch, queries, _keys, model_dim, heads):
    ours, theirs = pair(model_dim, heads)
    inputs = torch.randn(batch, queries, model_dim, dtype=torch.float64)
    assert_same(ours, theirs, inputs, inputs)
    assert_same(ours, theirs, inputs, inputs, causal=True)
    assert_same(ours, theirs, inputs, inputs, mask=padded(batch, queries)[:, None])
    assert_same(ours, theirs, inputs, inputs, mask=padded(batch, queries)[:, None], causal=True)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": padded(3, 9)[:, None]}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_reading_changes_no_bit_of_the_output(dtype, options):
    attention = MultiHeadAttention(24, 3).to(dtype)
    inputs = torch.randn(3, 9, 24).to(dtype)
    unread, blind = attention(*attention.ask_and_remember(inputs), **options)
    output, heads = attention(*attention.ask_and_remember(inputs), **options, read=True)
    assert torch.equal(output, unread)
    assert torch.equal(heads.context, blind.context)
    assert blind.weights is None


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": padded(3, 9)[:, None]}], ids=str)
def test_the_weights_that_are_read_make_the_context_that_was_used(options):
    attention = MultiHeadAttention(24, 3).double()
    inputs = torch.randn(3, 9, 24, dtype=torch.float64)
    query, memory = attention.ask_and_remember(inputs)
    _, heads = attention(query, memory, **options, read=True)
    torch.testing.assert_close(heads.weights @ memory.value, heads.context, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(heads.weights.sum(-1), torch.ones(3, 3, 9, dtype=torch.float64), rtol=1e-14, atol=0)


def test_a_memory_made_once_serves_queries_one_at_a_time():
    attention = MultiHeadAttention(8, 2).double()
    query = attention.ask(torch.randn(2, 5, 8, dtype=torch.float64))
    memory = attention.remember(torch.randn(2, 7, 8, dtype=torch.float64))
    steps = [attention(query[:, :, step : step + 1], memory)[0] for step in range(5)]
    torch.testing.assert_close(torch.cat(steps, dim=1), attention(query, memory)[0], rtol=1e-12, atol=1e-14)


def test_a_sequence_asks_and_remembers_at_once_what_it_does_apart():
    attention = MultiHeadAttention(12, 4).double()
    inputs = torch.randn(3, 5, 12, dtype=torch.float64)
    query, memory = attention.ask_and_remember(inputs)
    apart = (attention.ask(inputs), *attention.remember(inputs))
    for joint, alone in zip((query, *memory), apart, strict=True):
        torch.testing.assert_close(joint, alone, rtol=1e-12, atol=1e-14)


def test_heads_that_do_not_divide_the_model_are_refused():
    with pytest.raises(RegardError, match="model_dim 10 cannot be cut into 3 heads"):
        MultiHeadAttention(10, 3)
