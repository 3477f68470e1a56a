"""Documents that share a window are read as if each were alone."""

import itertools

import pytest
import torch

from regard.models.gpt import GPT, FeedForward, GPTConfig

SIZES = {"model_dim": 16, "num_heads": 2, "num_layers": 2, "feed_forward_dim": 24, "max_length": 12}
SETTINGS = [
    {"positions": positions, "window": window}
    for positions, window in itertools.product(("learned", "rotary"), (None, 3))
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_each_document_of_a_window_has_the_logits_that_it_has_alone(settings):
    model = GPT(GPTConfig(**SIZES, **settings), 20).double().eval()
    tokens = torch.randint(20, (2, 12))
    # the second row begins within a document, and its numbers are its own
    documents = torch.tensor([[1] * 5 + [2] + [3] * 6, [0] * 3 + [1] * 9])
    found = model(tokens, None, documents)
    for row, lengths in enumerate(((5, 1, 6), (3, 9))):
        start = 0
        for length in lengths:
            alone = model(tokens[row : row + 1, start : start + length])
            torch.testing.assert_close(found.logits[row, start : start + length], alone.logits[0])
            start += length
    assert not torch.allclose(found.logits, model(tokens).logits)
    read = model(tokens, None, documents, read=True)
    assert torch.equal(read.logits, found.logits)
    for map in read.attention:
        torch.testing.assert_close(map.weights.sum(-1), torch.ones_like(map.weights[..., 0]))
        apart = documents[:, None, :, None] != documents[:, None, None]
        assert (map.weights[apart.expand_as(map.weights)] == 0).all()


@torch.no_grad()
def test_the_exact_gelu_is_that_of_the_normal_distribution():
    layer = FeedForward(GPTConfig(**SIZES, feed_forward="gelu_exact")).double()
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    inner = layer.in_proj(x)
    wanted = layer.out_proj(inner * torch.special.ndtr(inner))
    torch.testing.assert_close(layer(x), wanted)
