"""Rung 2 is the papers' recurrences, written out as loops over torch's cells."""

import itertools

import pytest
import torch
from torch import nn

from regard.data.batch import BOS, collate
from regard.models import build
from regard.models.rnn import RNNConfig

VOCAB_SIZE = 11
EMBEDDING_DIM, HIDDEN_DIM = 6, 5
SOURCES = [[4, 5, 6, 7, 8], [9], [10, 4, 4], []]
TARGETS = [[7, 8], [5, 6, 9, 10], [], [6, 6, 6]]


def translator(**settings):
    config = RNNConfig(embedding_dim=EMBEDDING_DIM, hidden_dim=HIDDEN_DIM, **settings)
    return build(config, VOCAB_SIZE).double().eval()


def stack(rnn):
    """A whole RNN as torch's cells: one step of all layers, whose states are (hidden,) or (hidden, cell) each."""
    cells = []
    for layer in range(rnn.num_layers):
        kind = nn.GRUCell if isinstance(rnn, nn.GRU) else nn.LSTMCell
        cells.append(kind(rnn.hidden_size if layer else rnn.input_size, rnn.hidden_size).double())
        names = {name: name.removesuffix(f"_l{layer}") for name in rnn.state_dict() if name.endswith(f"_l{layer}")}
        cells[-1].load_state_dict({short: rnn.state_dict()[name] for name, short in names.items()})

    def move(inputs, states):
        moved = []
        for cell, state in zip(cells, states, strict=True):
            after = cell(inputs, state[0] if len(state) == 1 else state)
            moved.append(after if isinstance(after, tuple) else (after,))
            inputs = moved[-1][0]
        return moved

    return move


def look(model, query, states):
    """Weights and context of one query over the states of one sentence."""
    layers = dict(model.decoder.attention.named_children())
    if "score_proj" in layers:
        scores = [
            layers["score_proj"](torch.tanh(layers["query_proj"](query) + layers["key_proj"](h)))[0] for h in states
        ]
    elif "key_proj" in layers:
        scores = [query @ layers["key_proj"].weight @ h for h in states]
    else:
        scores = [query @ h for h in states]
    exps = torch.stack(scores).exp()
    weights = exps / exps.sum()
    return weights, sum(weight * state for weight, state in zip(weights, states, strict=True))


def read_source(model, source):
    batch = collate([source], [[]])
    embedded = model.source_embedding.weight[batch.source] * EMBEDDING_DIM**0.5
    read, first = model.encoder(embedded, batch.source_lengths)
    return list(read.states[0]), list(zip(*(part[:, 0] for part in first), strict=True))


def bahdanau(model, source, target):
    """Bahdanau et al. 2015, appendix A.2.2: c_i looks with s_{i-1}; s_i = f(s_{i-1}, y_{i-1}, c_i)."""
    move = stack(model.decoder.rnn)
    states, state = read_source(model, source)
    for token in [BOS, *target]:
        vector = model.target_embedding.weight[token] * EMBEDDING_DIM**0.5
        weights, context = look(model, state[-1][0], states)
        state = move(torch.cat([vector, context]), state)
        features = model.decoder.readout(torch.cat([state[-1][0], vector, context])).tanh()
        yield model.output.weight @ features, weights, context


def luong(model, source, target):
    """Luong et al. 2015, equations 5 and 6 and section 3.3: h̃_t = tanh(W [c_t; h_t]), fed into the next step."""
    move = stack(model.decoder.rnn)
    states, state = read_source(model, source)
    features = torch.zeros(EMBEDDING_DIM, dtype=torch.float64)
    for token in [BOS, *target]:
        vector = model.target_embedding.weight[token] * EMBEDDING_DIM**0.5
        if model.decoder.input_feeding:
            vector = torch.cat([vector, features])
        state = move(vector, state)
        weights, context = look(model, state[-1][0], states)
        features = model.decoder.readout(torch.cat([context, state[-1][0]])).tanh()
        yield model.output.weight @ features, weights, context


def settings():
    for cell, num_layers, bidirectional in itertools.product(("gru", "lstm"), (1, 2), (False, True)):
        shared = {"cell": cell, "num_layers": num_layers, "bidirectional": bidirectional}
        # either way with either cell
        shared["tied_embeddings"] = (cell == "gru") == bidirectional
        yield bahdanau, shared | {"attention": "additive"}
        for attention, feeding in itertools.product(("dot", "general", "concat"), (False, True)):
            if attention != "dot" or not bidirectional:
                yield luong, shared | {"attention": attention, "input_feeding": feeding}


def label(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value.__name__


@pytest.mark.parametrize(("loop", "settings"), list(settings()), ids=label)
@torch.no_grad()
def test_logits_weights_and_contexts_are_those_of_the_papers_loop(loop, settings):
    model = translator(**settings)
    output = model(collate(SOURCES, TARGETS), read=True)
    (map,) = output.attention
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        for step, (logits, weights, context) in enumerate(loop(model, source, target)):
            torch.testing.assert_close(output.logits[row, step], logits, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(map.weights[row, 0, step, : len(source) + 1], weights, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(map.context[row, 0, step], context, rtol=1e-10, atol=1e-12)
