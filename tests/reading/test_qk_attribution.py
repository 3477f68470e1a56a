"""The score of a weight split by earlier layers' outputs, against plain hooks and matrices in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
import transformers
from benchmarks.zoo import ARCHITECTURES
from benchmarks.zoo.architecture import SETTINGS, scatter

import regard
from regard.models.gpt import GPT, GPTConfig
from regard.reading.contributions import Component

IDS = [5, 17, 3, 42, 8, 60, 11, 29, 5, 17]
# grouped and latent keys, fused and separate projections, biases, norms of queries and keys, before and after blocks,
# parallel blocks, experts, soft caps, sinks, ALiBi, learned and partly rotary positions
ADDITIVE = [
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma4", "phi", "phi3", "gpt2", "gpt_neox",
    "gpt_bigcode", "gpt_oss", "opt", "falcon", "falcon_alibi", "falcon_new", "stablelm", "olmo2", "cohere", "granite",
    "deepseek_v3", "minicpm3", "glm4", "nemotron",
]  # fmt: skip
PARTLY = {
    "qwen3_next": ["embedding", "block 0", "attention 1", "feed-forward 1", "block 2", "bias"],
    "jamba": ["embedding", "block 0", "bias"],
    "bitnet": ["embedding", "attention 0", "feed-forward 0", "bias"],
}
REFUSED = {
    "bloom": "weights in code of its own",
    "gptj": "weights in code of its own",
    "bert_decoder": "what attention and feed-forward of layer 0 give is not what it adds",
    "falcon_h1": "what attention and feed-forward of layer 0 give is not what it adds",
    "diffllama": "attends several times",
    "llama4": "its query depends on more than its position",
    "gemma3n": r"not given \[batch, position, dim\]",
}


def read(model, **options):
    with regard.watching(model, rows="all", **options) as watch, torch.no_grad():
        model(torch.tensor([IDS]))
    return watch.reading()


def built(name):
    architecture = ARCHITECTURES[name]
    return architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")


def large(model_class, **settings) -> Any:
    config = model_class.config_class(**SETTINGS | {"num_hidden_layers": 3} | settings)
    torch.manual_seed(3)
    model = model_class._from_config(config, attn_implementation="sdpa", dtype=torch.float64).eval()
    model.requires_grad_(False)
    scatter(model, 1.5)
    for each in model.modules():
        if "norm" in type(each).__name__.lower():
            each.weight.copy_(torch.rand_like(each.weight) + 0.5)
            if getattr(each, "bias", None) is not None:
                each.bias.copy_(torch.randn_like(each.bias) * 0.1)
    return model


def seen(model, names):
    """What modules were given and gave in a run, by plain hooks."""
    found, handles = {}, []
    for name in names:
        note = lambda _, inputs, output, name=name: found.__setitem__(name, (inputs, output))  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_hook(note))
    model(torch.tensor([IDS]))
    for handle in handles:
        handle.remove()
    return found


def turned(x, position, base=10_000.0):
    """Su et al. 2021, equation 34, in the order of Llama: one half of a head turns with the other."""
    half = len(x) // 2
    angle = position * base ** (-torch.arange(half, dtype=torch.float64) / half)
    one, other = x[:half], x[half:]
    return torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()])


def of_heads(projected, matrix, num_heads):
    """Each head's part of what an output projection gives, [head, dim], with the matrix as [context, dim]."""
    parts, matrices = projected.unflatten(-1, (num_heads, -1)), matrix.unflatten(0, (num_heads, -1))
    return [parts[head] @ matrices[head] for head in range(num_heads)]


@pytest.mark.parametrize(("head", "row", "key"), [(1, 8, 3), (2, 9, 9), (3, 4, 0)])
def test_llama_is_split_as_by_plain_hooks(head, row, key):
    model = large(transformers.LlamaForCausalLM)
    layers = range(3)
    names = [f"model.layers.{n}.{part}" for n in layers for part in ("self_attn.o_proj", "mlp", "input_layernorm")]
    found = seen(model, ["model.embed_tokens", *names])
    asked = model.model.layers[2]

    def side(position, projection, own):
        parts = [found["model.embed_tokens"][1][0, position]]
        for n in (0, 1):
            given = found[f"model.layers.{n}.self_attn.o_proj"][0][0][0, position]
            parts += of_heads(given, model.model.layers[n].self_attn.o_proj.weight.T, 4)
            parts.append(found[f"model.layers.{n}.mlp"][1][0, position])
        x = torch.stack(parts).sum(0)
        torch.testing.assert_close(x, found["model.layers.2.input_layernorm"][0][0][0, position])
        scale = (x.square().mean() + asked.input_layernorm.variance_epsilon).rsqrt()
        matrix = projection.weight.unflatten(0, (-1, 16))[own]
        return torch.stack([turned(matrix @ (asked.input_layernorm.weight * part * scale), position) for part in parts])

    query = side(row, asked.self_attn.q_proj, head)
    keys = side(key, asked.self_attn.k_proj, head // 2)
    expected = query @ keys.T / 4
    why = read(model).why(2, head, row, key)
    assert [str(each) for each in why.components] == [
        "embedding",
        *(f"head 0.{n}" for n in range(4)), "feed-forward 0",
        *(f"head 1.{n}" for n in range(4)), "feed-forward 1",
        "bias",
    ]  # fmt: skip
    np.testing.assert_allclose(why.table[:-1, :-1], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(why.table[-1], 0, atol=1e-6)
    assert abs(why.score - float(expected.sum())) < 1e-5


@pytest.mark.parametrize(("head", "row", "key"), [(0, 9, 2), (3, 5, 5)])
def test_gpt2_is_split_as_by_plain_hooks(head, row, key):
    model = large(transformers.GPT2LMHeadModel, n_embd=64, n_head=4, n_layer=3, n_positions=64, n_inner=96)
    for each in model.modules():
        if isinstance(each, transformers.pytorch_utils.Conv1D):
            each.bias.copy_(torch.randn_like(each.bias) * 0.2)
    names = [f"transformer.h.{n}.{part}" for n in range(3) for part in ("attn.c_proj", "mlp", "ln_1")]
    found = seen(model, ["transformer.wte", "transformer.wpe", *names])
    asked = model.transformer.h[2]

    def side(position, columns):
        parts = [found["transformer.wte"][1][0, position], found["transformer.wpe"][1][0, position]]
        for n in (0, 1):
            projection = model.transformer.h[n].attn.c_proj
            given = found[f"transformer.h.{n}.attn.c_proj"][0][0][0, position]
            parts += of_heads(given, projection.weight, 4)
            parts += [projection.bias, found[f"transformer.h.{n}.mlp"][1][0, position]]
        x = torch.stack(parts).sum(0)
        scale = (x.var(unbiased=False) + asked.ln_1.eps).rsqrt()
        weight, bias = asked.attn.c_attn.weight[:, columns], asked.attn.c_attn.bias[columns]
        given = [(asked.ln_1.weight * (part - part.mean()) * scale) @ weight for part in parts]
        return torch.stack([*given, asked.ln_1.bias @ weight + bias])

    start = head * 16
    query, keys = side(row, slice(start, start + 16)), side(key, slice(64 + start, 64 + start + 16))
    why = read(model).why(-1, head, row, key)
    assert [str(each) for each in why.components] == [
        "token embedding", "position embedding",
        *(f"head 0.{n}" for n in range(4)), "attention bias 0", "feed-forward 0",
        *(f"head 1.{n}" for n in range(4)), "attention bias 1", "feed-forward 1",
        "bias",
    ]  # fmt: skip
    np.testing.assert_allclose(why.table, query @ keys.T / 4, rtol=1e-6, atol=1e-6)


def check(reading, layer, *, head=1, row=8, key=6):
    """The parts are all there and sum to the score, which is the reading's own after cap and bias."""
    why = reading.why(layer, head, row, key)
    bound = 1e-4 * max(1.0, abs(why.score))
    assert abs(why.table.sum() - why.score) <= bound
    assert abs(sum(why.by_query.values()) - why.score) <= bound
    assert abs(sum(why.by_key.values()) - why.score) <= bound
    capped = why.score if why.softcap is None else why.softcap * math.tanh(why.score / why.softcap)
    assert abs(capped + why.added - reading.scores("decoder", layer)[head, row, key]) <= bound
    assert abs(why.weight - reading.weights("decoder", layer)[head, row, key]) < 1e-5
    return why


@pytest.mark.parametrize("name", ADDITIVE)
def test_the_parts_sum_to_the_score(name):
    why = check(read(built(name), scores=True), 1)
    assert why.components[-1] == Component("bias")
    heads = [each for each in why.components if each.kind == "head"]
    assert heads == [Component("head", 0, head) for head in range(4)]
    assert Component("feed-forward", 0) in why.components
    assert (why.softcap is not None) == (name == "gemma2")
    assert (abs(why.added) > 1e-3) == (name == "falcon_alibi")


@pytest.mark.parametrize("name", PARTLY)
def test_a_block_whose_heads_cannot_be_told_apart_is_one_part(name):
    layer = max(ARCHITECTURES[name].layers["decoder"])
    assert [str(each) for each in check(read(built(name), scores=True), layer).components] == PARTLY[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_no_sum_of_such_parts_is_refused_with_the_reason(name):
    reading = read(built(name))
    layer = max(ARCHITECTURES[name].layers["decoder"])
    if ("decoder", layer) in reading.refused:
        pytest.skip("the reading itself refuses the layer")
    with pytest.raises(regard.RegardError, match=REFUSED[name]):
        reading.why(layer, 1, 8, 6)


def own(**settings):
    config = GPTConfig(model_dim=32, num_heads=4, num_layers=3, feed_forward_dim=48, max_length=64, **settings)
    torch.manual_seed(1)
    model = GPT(config, 80).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model


ROTARY = {"num_key_value_heads": 2, "positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "bias": False}


@pytest.mark.parametrize("settings", [{}, ROTARY, ROTARY | {"query_key_norm": True}, {"window": 4}])
def test_a_gpt_of_ours_is_split(settings):
    why = check(read(own(**settings), scores=True), 2)
    assert [str(each) for each in why.components[:2]] == (
        ["embedding", "head 0.0"] if "positions" in settings else ["token embedding", "position embedding"]
    )
    assert ("attention bias 0" in map(str, why.components)) == settings.get("bias", True)


def test_the_first_layer_has_its_embeddings_alone():
    assert [str(each) for each in check(read(built("llama"), scores=True), 0).components] == ["embedding", "bias"]


def test_the_strongest_pairs_come_first_and_the_frame_has_all():
    pandas = pytest.importorskip("pandas")
    why = read(built("llama")).why(1, 1, 8, 6)
    pairs = why.strongest(5)
    assert [abs(each.score) for each in pairs] == sorted(np.abs(why.table).ravel(), reverse=True)[:5]
    query, key, score = pairs[0]
    assert score == why.table[why.components.index(query), why.components.index(key)]
    frame = why.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == why.table.size
    assert abs(frame.set_index(["query", "key"]).score[str(query), str(key)] - score) < 1e-9
    assert f"{query} × {key}" in repr(why)


def test_the_model_and_open_watches_know_nothing_of_it():
    model = built("qwen3")
    reading, before = read(model), model(torch.tensor([IDS])).logits
    hooks = [(len(each._forward_hooks), len(each._forward_pre_hooks)) for each in model.modules()]
    with regard.watching(model) as watch:
        reading.why(1, 0, 8, 2)
    assert len(watch) == 0
    assert [(len(each._forward_hooks), len(each._forward_pre_hooks)) for each in model.modules()] == hooks
    assert torch.equal(model(torch.tensor([IDS])).logits, before)


def test_what_makes_no_sense_is_refused(tmp_path):
    model = built("mistral")
    reading = read(model)
    for asked, why in {
        (2, 0, 8, 6): "there is no decoder layer 2",
        (1, 4, 8, 6): "there is no head 4; layer 1 has heads 0 to 3",
        (1, 0, 10, 6): "there is no row 10",
        (1, 0, 5, 6): "row 5 sees keys 0 to 5, not 6",
        (1, 0, 8, -1): "row 8 sees keys 0 to 8, not -1",
        (1, 0, 8.0, 6): "whole numbers",
        # its window is of 5 tokens
        (1, 0, 8, 1): "row 8 does not see key 1",
    }.items():
        with pytest.raises(regard.RegardError, match=why):
            reading.why(*asked)
    with regard.ablating(model, [(0, 1)]), pytest.raises(regard.RegardError, match="ablated or patched"):
        reading.why(1, 0, 8, 6)
    reading.save(tmp_path / "reading.safetensors")
    with pytest.raises(regard.RegardError, match="needs the model itself"):
        regard.Reading.load(tmp_path / "reading.safetensors").why(1, 0, 8, 6)
    model.train()
    with pytest.raises(regard.RegardError, match="training mode"):
        reading.why(1, 0, 8, 6)
    model.eval()
    model.model.layers[1].self_attn.q_proj.weight.mul_(-1)
    with pytest.raises(regard.RegardError, match="changed since"):
        reading.why(1, 0, 8, 6)
    half = read(model.bfloat16())
    with pytest.raises(regard.RegardError, match='load it with dtype="float32"'):
        half.why(1, 0, 8, 6)
