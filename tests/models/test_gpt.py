"""The decoder-only model: what transformers' models of the same weights do, with and without what it keeps."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

import regard
from regard.attention.key_values import KeyValues
from regard.config import from_dict
from regard.errors import RegardError
from regard.models.gpt import GPT, GPTConfig
from regard.reading.effects import Effects

pytest.importorskip("transformers")

# of the largest logit
TOLERANCE = 1e-4


def tokens(*shape, seed=3):
    return torch.randint(97, shape, generator=torch.Generator().manual_seed(seed))


def error(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def logits(module, ids, **settings):
    return module(ids, **settings).logits


@pytest.mark.parametrize("length", [1, 2, 13, 96])
def test_logits_are_those_of_transformers(pair, length):
    ids = tokens(2, length)
    assert error(logits(pair.ours, ids), logits(pair.theirs, ids)) < TOLERANCE


def test_in_bfloat16_it_is_as_near_the_truth_as_transformers(pair):
    ids = tokens(2, 33)
    truth = logits(copy.deepcopy(pair.theirs).double(), ids)
    found = logits(copy.deepcopy(pair.ours).bfloat16(), ids)
    wanted = logits(copy.deepcopy(pair.theirs).bfloat16(), ids)
    assert found.dtype == torch.bfloat16
    assert error(found.double(), truth) < 2 * error(wanted.double(), truth)


@pytest.mark.parametrize("sizes", [[1] * 19, [13, 1, 1, 4], [1, 5, 13], [18, 1]], ids=str)
def test_text_fed_in_parts_gives_the_logits_of_the_whole(pair, sizes):
    ids = tokens(2, sum(sizes))
    past = KeyValues(sum(sizes) + 2)
    found = [logits(pair.ours, part, past=past) for part in ids.split(sizes, dim=1)]
    assert past.length == sum(sizes)
    assert error(torch.cat(found, dim=1), logits(pair.theirs, ids)) < TOLERANCE


@pytest.mark.parametrize("step", [1, 4])
def test_in_a_batch_each_text_has_the_logits_that_it_has_alone(pair, step):
    texts = [tokens(1, length, seed=length) for length in (1, 17, 9)]
    padding = torch.tensor([17 - text.shape[1] for text in texts])
    # whatever stands in the padding is not seen
    batch = torch.cat([torch.cat([tokens(1, 17 - text.shape[1], seed=8), text], dim=1) for text in texts])
    more = tokens(3, step, seed=5)
    past = KeyValues(17 + step, padding=padding)
    first = logits(pair.ours, batch, past=past, last=1)
    then = logits(pair.ours, more, past=past)
    for row, text in enumerate(texts):
        whole = logits(pair.theirs, torch.cat([text, more[row : row + 1]], dim=1))[0]
        assert error(torch.cat([first[row], then[row]]), whole[-step - 1 :]) < TOLERANCE


def test_the_longest_text_of_a_batch_does_not_shorten_the_others(family):
    ours = family("llama").ours
    past = KeyValues(98, padding=torch.tensor([0, 60]))
    assert logits(ours, tokens(2, 96), past=past).shape[1] == 96
    with pytest.raises(RegardError, match="97 tokens are more than the 96 that the model takes"):
        logits(ours, tokens(2, 1), past=past)
    past.select(torch.tensor([1]))
    found = logits(ours, tokens(1, 1, seed=4), past=past)
    alone = logits(ours, torch.cat([tokens(2, 96)[1:, 60:], tokens(1, 1, seed=4)], dim=1))
    assert error(found[:, -1], alone[:, -1]) < TOLERANCE


def test_the_weights_that_are_read_give_the_context_and_leave_the_logits(pair):
    ids = tokens(2, 21)
    with torch.no_grad():
        output = pair.ours(ids, read=True)
    assert torch.equal(output.logits, logits(pair.ours, ids))
    assert [(map.kind, map.layer) for map in output.attention] == [("decoder", layer) for layer in range(3)]
    theirs = copy.deepcopy(pair.theirs)
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = theirs(ids, output_attentions=True).attentions
    for map, weights in zip(output.attention, wanted, strict=True):
        torch.testing.assert_close(map.weights, weights, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(map.weights.sum(-1), torch.ones(2, 4 if weights.shape[1] == 4 else 9, 21))
        torch.testing.assert_close(map.weights @ map.value, map.context, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_weights_are_read_with_a_cache_too(family, name):
    ours, ids = family(name).ours, tokens(1, 20)
    past = KeyValues(20)
    with torch.no_grad():
        whole = ours(ids, read=True).attention
        ours(ids[:, :15], past)
        rest = [ours(part, past, read=True).attention for part in (ids[:, 15:19], ids[:, 19:])]
    for layer, map in enumerate(whole):
        found = [torch.nn.functional.pad(maps[layer].weights, (0, 20 - maps[layer].weights.shape[-1])) for maps in rest]
        torch.testing.assert_close(torch.cat(found, dim=2), map.weights[:, :, 15:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", ["all", slice(3, 7)])
def test_what_is_read_of_it_is_what_is_read_of_transformers(pair, rows):
    ids = tokens(1, 18)
    readings = []
    for module in (pair.ours, pair.theirs):
        with regard.watching(module, rows=rows, statistics=("received", "entropy"), top_k=2) as watch, torch.no_grad():
            watched = module(ids).logits
        assert torch.equal(watched, logits(module, ids))
        readings.append(watch.reading(0))
    ours, theirs = readings
    assert not ours.refused
    assert ours.maps.keys() == theirs.maps.keys() == {("decoder", layer) for layer in range(3)}
    for key, map in theirs.maps.items():
        np.testing.assert_allclose(ours.maps[key], map, rtol=1e-3, atol=1e-5)
    assert ours.statistics.keys() == theirs.statistics.keys()


def test_effects_of_hiding_a_part_are_those_in_transformers(pair):
    ids = tokens(15, seed=6).tolist()
    spans = [(0, 1), (2, 6), (5, 12), (11, 12), (3, 3 + 1)]
    found, wanted = (Effects(module, ids)(12, spans) for module in (pair.ours, pair.theirs))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-5)
    assert np.abs(wanted).max() > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "mistral"])
def test_checkpoints_change_no_gradient(family, name):
    ours = family(name).ours
    ids = tokens(2, 12)
    gradients = []
    for checkpoints in (False, True):
        config = dataclasses.replace(ours.config, checkpoint_activations=checkpoints)
        module = GPT(config, 97)
        module.load_state_dict(ours.state_dict())
        module.train()
        module(ids).logits.logsumexp(-1).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in module.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_gradients_are_those_of_transformers(family):
    pair = family("qwen2")
    ids = tokens(2, 12)
    ours, theirs = GPT(pair.ours.config, 97), copy.deepcopy(pair.theirs)
    ours.load_state_dict(pair.ours.state_dict())
    # a run without gradients before must not stand in the way
    with torch.inference_mode():
        ours(ids)
    for module in (ours, theirs):
        module(ids).logits.logsumexp(-1).sum().backward()
    found, wanted = ours.blocks[0].attention.in_proj.weight.grad, theirs.model.layers[0].self_attn
    wanted = torch.cat([getattr(wanted, f"{name}_proj").weight.grad for name in "qkv"])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("length", [1, 7])
def test_with_last_only_the_last_logits_are_made(family, length):
    ours = family("llama-tied").ours
    ids = tokens(2, length)
    torch.testing.assert_close(logits(ours, ids, last=1), logits(ours, ids)[:, -1:])


def test_more_tokens_than_the_model_takes_are_told(family):
    with pytest.raises(RegardError, match="97 tokens are more than the 96 that the model takes; shorten"):
        family("gpt2").ours(tokens(1, 97))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model_dim": 10}, "model_dim 10 cannot be cut into 4 heads"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 key/value heads"),
        ({"positions": "rotary", "model_dim": 12}, "turn pairs of numbers, and a head has 3"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"model_dim": -1}, "model_dim must be at least 1"),
        ({"norm": "batch"}, "norm must be one of layer, rms"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_settings_that_make_no_model_are_told(settings, says):
    with pytest.raises(RegardError, match=says):
        from_dict(GPTConfig, settings, where="[model]")


def test_attention_is_the_softmax_of_what_query_and_key_say():
    """Against the sum written out in float64, for one layer that sees no other part of the model."""
    torch.manual_seed(2)
    config = GPTConfig(model_dim=8, num_heads=4, num_key_value_heads=2, num_layers=1, window=3, max_length=16)
    module = GPT(config, 11).double().eval()
    ids = torch.randint(11, (1, 9))
    map = module(ids, read=True).attention[0]
    x = module.blocks[0].attention_norm(module.embedding(ids) + module.positions.weight[:9])
    query, key, value = module.blocks[0].attention.in_proj(x)[0].split([8, 4, 4], -1)
    for head in range(4):
        shared = head // 2
        scores = query[:, 2 * head : 2 * head + 2] @ key[:, 2 * shared : 2 * shared + 2].T / 2**0.5
        for row in range(9):
            first = max(0, row - 2)
            exps = scores[row, first : row + 1].exp()
            torch.testing.assert_close(map.weights[0, head, row, first : row + 1], exps / exps.sum())
            wanted = (exps / exps.sum()) @ value[first : row + 1, 2 * shared : 2 * shared + 2]
            torch.testing.assert_close(map.context[0, head, row], wanted)
