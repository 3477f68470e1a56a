"""Embeddings, positions and first weights."""

import math

import pytest
import torch
from torch import nn

from regard.attention.multi_head import MultiHeadAttention
from regard.data.batch import PAD, UNKNOWN
from regard.kernels.linear import Linear
from regard.models.blocks import Embedding, TokenDropout, initialise, sinusoidal_positions


@pytest.mark.parametrize(("length", "dim"), [(1, 1), (5, 2), (40, 7), (300, 16)])
def test_positions_are_the_papers_formula(length, dim):
    """Vaswani et al. 2017, section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = cos of the same."""
    positions = sinusoidal_positions(length, dim)
    assert positions.shape == (length, dim)
    for position in range(length):
        for i in range(dim):
            angle = position / 10_000 ** (2 * (i // 2) / dim)
            truth = math.cos(angle) if i % 2 else math.sin(angle)
            # one rounding to float32
            assert float(positions[position, i]) == pytest.approx(truth, rel=2**-23, abs=1e-12)


def test_token_vectors_are_scaled_by_the_root_of_their_size():
    embedding = Embedding(7, 9)
    tokens = torch.tensor([[4, 1], [0, 6]])
    torch.testing.assert_close(embedding(tokens), 3 * embedding.weight[tokens])


def test_the_output_layer_is_the_product_with_every_token_vector():
    embedding = Embedding(7, 5).double()
    features = torch.randn(2, 3, 5, dtype=torch.float64)
    logits = embedding.logits(features)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(7)):
        b, s, token = index.tolist()
        torch.testing.assert_close(logits[b, s, token], (features[b, s] * embedding.weight[token]).sum())


def test_no_gradient_reaches_the_vector_of_padding():
    embedding = Embedding(7, 5)
    embedding(torch.tensor([[4, 5, PAD]])).sum().backward()
    assert (embedding.weight.grad[PAD] == 0).all()
    assert (embedding.weight.grad[4:6] != 0).all()


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
def test_each_gates_recurrent_matrix_starts_as_a_rotation_and_its_biases_as_nothing(kind, gates):
    rnn = kind(4, 6, num_layers=2, bidirectional=True).double()
    initialise(nn.ModuleList([rnn]))
    for name, parameter in rnn.named_parameters():
        if name.startswith("bias"):
            assert (parameter == 0).all()
        elif name.startswith("weight_hh"):
            for gate in parameter.detach().chunk(gates):
                torch.testing.assert_close(gate @ gate.T, torch.eye(6, dtype=torch.float64))


def test_matrices_start_within_glorots_bound_and_reach_out_to_it():
    """Glorot and Bengio 2010, equation 16: uniform within sqrt(6 / (fan in + fan out)), for each gate by itself."""
    linear, rnn, attention = Linear(60, 40), nn.GRU(60, 40), MultiHeadAttention(50, 2)
    initialise(nn.ModuleList([linear, rnn, attention]))
    bound = math.sqrt(6 / (60 + 40))
    for matrix in (linear.weight, *rnn.weight_ih_l0.split(40), *attention.in_proj.weight.split(50)):
        assert 0.98 * bound < float(matrix.detach().abs().max()) <= bound
    assert (linear.bias == 0).all()


def test_as_many_tokens_as_asked_are_unknown_in_training_and_none_afterwards():
    torch.manual_seed(0)
    tokens = torch.arange(4, 40_004).view(100, -1)
    dropout = TokenDropout(0.3)
    found = dropout(tokens)
    dropped = found != tokens
    assert (found[dropped] == UNKNOWN).all()
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(dropout.eval()(tokens), tokens)
