"""Rung 1: the encoder is torch's RNN run on each sentence alone, and the decoder sees its last state and no more."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from regard.data.batch import BOS, collate
from regard.models import build
from regard.models.rnn import CELLS, RNNConfig, RNNEncoder

VOCAB_SIZE = 11
EMBEDDING_DIM, HIDDEN_DIM = 6, 5
SOURCES = [[4, 5, 6, 7, 8], [9], [10, 4, 4], []]
TARGETS = [[7, 8], [5, 6, 9, 10], [], [6, 6, 6]]


def config(**settings):
    return RNNConfig(embedding_dim=EMBEDDING_DIM, hidden_dim=HIDDEN_DIM, **settings)


def translator(**settings):
    return build(config(**settings), VOCAB_SIZE).double().eval()


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("cell", "num_layers", "bidirectional"), list(itertools.product(CELLS, (1, 2, 3), (False, True)))
)
@torch.no_grad()
def test_the_encoder_is_torchs_rnn_over_each_sentence_alone(cell, num_layers, bidirectional):
    encoder = RNNEncoder(config(cell=cell, num_layers=num_layers, bidirectional=bidirectional)).double().eval()
    lengths = [3, 6, 1, 4]
    embedded = torch.randn(4, 6, EMBEDDING_DIM, dtype=torch.float64)
    source, first = encoder(embedded, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        # unbatched: [position, dim]
        sentence = embedded[row, :length]
        states = [encoder.forwards(sentence)[0]]
        # forwards the last state is at the end, backwards at the start
        ends = [states[0][-1]]
        if bidirectional:
            states.append(encoder.backwards(sentence.flip(0))[0].flip(0))
            ends.append(states[1][0])
        torch.testing.assert_close(source.states[row, :length], torch.cat(states, dim=-1), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(source.last[row], torch.cat(ends), rtol=1e-12, atol=1e-14)
        assert source.mask[row].tolist() == [True] * length + [False] * (6 - length)
        start = encoder.bridge(torch.cat(ends)).tanh().view(len(first), num_layers, HIDDEN_DIM)
        torch.testing.assert_close(torch.stack([state[:, row] for state in first]), start, rtol=1e-12, atol=1e-14)
    assert encoder.forwards.num_layers == num_layers
    assert type(encoder.forwards) is CELLS[cell]


@pytest.mark.parametrize(("cell", "bidirectional"), list(itertools.product(CELLS, (False, True))))
@torch.no_grad()
def test_what_rung_one_keeps_of_a_source_does_not_grow_with_it(cell, bidirectional):
    model = translator(cell=cell, bidirectional=bidirectional)
    shapes = []
    for length in (3, 17):
        batch = collate([[4] * length], [[]])
        cache = model.encode(batch.source, batch.source_lengths)
        shapes.append([tuple(tensor.shape) for tensor in (*cache.source, *cache.hypotheses)])
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_with_attention_what_is_kept_of_a_source_does_grow():
    # the test above can tell the two apart
    model = translator(attention="additive")
    lengths = [
        {tensor.shape[1] for tensor in model.encode(batch.source, batch.source_lengths).source}
        for batch in (collate([[4] * 3], [[]]), collate([[4] * 17], [[]]))
    ]
    assert lengths == [{4}, {18}]


def logits_with(model, batch, **changes):
    """The logits where the encoder had left this, in place of what it found."""

    def change(_module, _inputs, output):
        return replace(output[0], **changes), output[1]

    handle = model.encoder.register_forward_hook(change)
    logits = model(batch).logits
    handle.remove()
    return logits


@pytest.mark.parametrize("attention", ["none", "additive", "general"])
@torch.no_grad()
def test_rung_one_reads_the_last_state_alone_and_rung_two_every_state(attention):
    model, batch = translator(attention=attention), collate(SOURCES, TARGETS)
    logits = model(batch).logits
    states = torch.randn(*batch.source.shape, 2 * HIDDEN_DIM, dtype=torch.float64)
    last = torch.randn(len(SOURCES), 2 * HIDDEN_DIM, dtype=torch.float64)
    assert torch.equal(logits_with(model, batch, states=states), logits) == (attention == "none")
    assert torch.equal(logits_with(model, batch, last=last), logits) == (attention != "none")


@pytest.mark.parametrize("tied_embeddings", [False, True])
@torch.no_grad()
def test_the_decoder_of_rung_one_is_a_loop_over_one_gru_cell(tied_embeddings):
    """Cho et al. 2014, section 2.2: state, last token and the source's one vector, at every step."""
    model = translator(tied_embeddings=tied_embeddings)
    cell = nn.GRUCell(EMBEDDING_DIM + 2 * HIDDEN_DIM, HIDDEN_DIM).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in model.decoder.rnn.state_dict().items()})
    for source, target in zip(SOURCES, TARGETS, strict=True):
        batch = collate([source], [target])
        embedded = model.source_embedding.weight[batch.source] * EMBEDDING_DIM**0.5
        read, (first,) = model.encoder(embedded, batch.source_lengths)
        context, state = read.last[0], first[0, 0]
        for step, token in enumerate([BOS, *target]):
            vector = model.target_embedding.weight[token] * EMBEDDING_DIM**0.5
            state = cell(torch.cat([vector, context]), state)
            features = model.decoder.readout(torch.cat([state, vector, context])).tanh()
            expected = model.output.weight @ features
            torch.testing.assert_close(model(batch).logits[0, step], expected, rtol=1e-11, atol=1e-12)
