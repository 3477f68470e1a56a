"""Rung 3 is torch's own Transformer, with the same weights."""

import itertools
import math

import pytest
import torch
from torch import nn

from regard.data.batch import collate
from regard.errors import RegardError
from regard.models import build
from regard.models.transformer import TransformerConfig

VOCAB_SIZE = 11
SOURCES = [[4, 5, 6, 7, 8], [9], [10, 4, 4], []]
TARGETS = [[7, 8], [5, 6, 9, 10], [], [6, 6, 6]]
CASES = list(itertools.product(("pre", "post"), (False, True), (1, 3), (1, 2, 4)))


def transformer(norm, tied, num_layers, num_heads):
    config = TransformerConfig(
        model_dim=8,
        num_heads=num_heads,
        num_layers=num_layers,
        feed_forward_dim=12,
        norm=norm,
        tied_embeddings=tied,
        max_length=16,
    )
    model = build(config, VOCAB_SIZE).double().eval()
    with torch.no_grad():
        # biases and norms begin as nothing: a mix-up among them would not show
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model, config


def copy_attention(theirs, ours):
    theirs.in_proj_weight.copy_(ours.in_proj.weight)
    theirs.in_proj_bias.copy_(ours.in_proj.bias)
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def copy_rest(theirs, ours, norms):
    theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward[3].state_dict())
    for index, sublayer in enumerate(norms, 1):
        getattr(theirs, f"norm{index}").load_state_dict(sublayer.norm.state_dict())


@torch.no_grad()
def torchs(model, config):
    """torch's encoder and decoder with the weights of ours."""
    sizes = {"dim_feedforward": config.feed_forward_dim, "batch_first": True, "norm_first": config.norm == "pre"}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(config.model_dim, config.num_heads, **sizes),
        config.num_layers,
        norm=nn.LayerNorm(config.model_dim) if config.norm == "pre" else None,
        enable_nested_tensor=False,
    ).double()
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(config.model_dim, config.num_heads, **sizes),
        config.num_layers,
        norm=nn.LayerNorm(config.model_dim) if config.norm == "pre" else None,
    ).double()
    for theirs, ours in zip(encoder.layers, model.encoder_layers, strict=True):
        copy_attention(theirs.self_attn, ours.attention)
        copy_rest(theirs, ours, [ours.attention_sublayer, ours.feed_forward_sublayer])
    for theirs, ours in zip(decoder.layers, model.decoder_layers, strict=True):
        copy_attention(theirs.self_attn, ours.self_attention)
        copy_attention(theirs.multihead_attn, ours.cross_attention)
        copy_rest(theirs, ours, [ours.self_sublayer, ours.cross_sublayer, ours.feed_forward_sublayer])
    if config.norm == "pre":
        encoder.norm.load_state_dict(model.encoder_norm.state_dict())
        decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    return encoder.eval(), decoder.eval()


def positions(length, dim):
    """Vaswani et al. 2017, section 3.5."""
    waves = [
        [(math.cos if i % 2 else math.sin)(position / 10_000 ** ((i - i % 2) / dim)) for i in range(dim)]
        for position in range(length)
    ]
    return torch.tensor(waves, dtype=torch.float64)


def embed(embedding, tokens):
    """Vaswani et al. 2017, section 3.4: token vectors times sqrt(dim), plus their positions."""
    dim = embedding.weight.shape[1]
    return embedding.weight[tokens] * math.sqrt(dim) + positions(tokens.shape[1], dim)


@pytest.mark.parametrize(("norm", "tied", "num_layers", "num_heads"), CASES)
def test_the_logits_are_those_of_torchs_transformer(norm, tied, num_layers, num_heads):
    model, config = transformer(norm, tied, num_layers, num_heads)
    # the model's own are rounded to float32
    torch.testing.assert_close(model.positions, positions(config.max_length, config.model_dim), rtol=0, atol=1e-7)
    model.positions = positions(config.max_length, config.model_dim)
    encoder, decoder = torchs(model, config)
    batch = collate(SOURCES, TARGETS)
    hidden = torch.arange(batch.source.shape[1]) >= batch.source_lengths[:, None]
    memory = encoder(embed(model.source_embedding, batch.source), src_key_padding_mask=hidden)
    features = decoder(
        embed(model.target_embedding, batch.inputs),
        memory,
        tgt_mask=torch.ones(batch.inputs.shape[1], batch.inputs.shape[1]).triu(1) > 0,
        memory_key_padding_mask=hidden,
    )
    expected = features @ model.output.weight.T
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-10, atol=1e-11)


@torch.no_grad()
def test_the_encoder_looks_both_ways_and_the_decoder_back_only():
    model, _ = transformer("pre", True, 2, 2)
    for map in model(collate([[4, 5, 6, 7]], [[7, 8, 9, 10]]), read=True).attention:
        ahead = map.weights.triu(1)[..., :-1, 1:]
        assert (ahead.count_nonzero() == 0) == (map.kind == "decoder")


@torch.no_grad()
def test_the_order_of_the_tokens_counts():
    model, _ = transformer("pre", True, 1, 2)
    one, other = (model(collate([source], [[7]])).logits for source in ([4, 5], [5, 4]))
    assert not torch.allclose(one, other)


@torch.no_grad()
def test_layers_are_numbered_in_their_order():
    model, _ = transformer("post", False, 3, 2)
    batch = collate(SOURCES, TARGETS)
    maps = [map for map in model(batch, read=True).attention if map.kind == "decoder"]
    # the value of layer 0 is a function of the embedding alone
    x = model.target_embedding(batch.inputs) + model.positions[: batch.inputs.shape[1]]
    _, first = model.decoder_layers[0].self_attention.ask_and_remember(x)
    assert [map.layer for map in maps] == [0, 1, 2]
    assert torch.equal(maps[0].value, first.value)


@pytest.mark.parametrize("num_heads", [3, 5, 16])
def test_heads_that_do_not_divide_the_model_are_refused(num_heads):
    with pytest.raises(RegardError, match=f"model_dim 8 cannot be cut into {num_heads} heads"):
        TransformerConfig(model_dim=8, num_heads=num_heads)
