"""Every statistic, summed tile by tile, beside the formula of its source over the dense weights in float64."""

import numpy as np
import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from torch.utils._python_dispatch import TorchDispatchMode

import regard
from regard.errors import RegardError
from regard.generation.steps import cache_name, cache_of
from regard.kernels import softmax
from regard.reading.compute import tiles
from regard.reading.compute.statistics import ROLLOUT, SINK_SHARE, STATISTICS
from regard.reading.labels import segments
from regard.reading.segments import SEGMENTERS

transformers = pytest.importorskip("transformers")

LENGTH, SHORT, STOP = 41, 26, 10
SWEPT = [name for name, statistic in STATISTICS.items() if statistic.is_swept]
ALL = (*SWEPT, "value_norm")


class Stops:
    """A tokenizer of words; every id below STOP ends a sentence."""

    def decode(self, ids, **_):
        return "".join(f"Word{id}. " if id < STOP else f"Word{id} " for id in ids)


class Bytes:
    """A tokenizer of bytes, of which several make one character."""

    def decode(self, ids, **_):
        return bytes(ids).decode("utf-8", errors="replace")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_SCORES", 64)
    monkeypatch.setattr(tiles, "LEAST_QUERIES", 3)
    monkeypatch.setattr(tiles, "MOST_QUERIES", 5)
    with torch.no_grad():
        yield


def inputs_of(name):
    """Two sequences of a few tokens that come again and again, the second padded on the family's side."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 24, (2, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    left = ARCHITECTURES[name].kinds == ("decoder",)
    mask[1, : LENGTH - SHORT] = 0 if left else 1
    mask[1, SHORT:] = 1 if left else 0
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    if "cross" in ARCHITECTURES[name].kinds:
        inputs["decoder_input_ids"] = torch.randint(3, 24, (2, 17), generator=generator)
    return inputs


def dense(weights, query_ids, key_ids):
    """All statistics of weights [head, query, key] as their sources define them."""
    num_queries, num_keys = weights.shape[1:]
    i, j = np.mgrid[:num_queries, :num_keys]
    safe = np.where(weights > 0, weights, 1)
    # a sentence begins after a word that ends one
    parts = [np.concatenate([[0], np.cumsum(ids < STOP)[:-1]]) for ids in (query_ids, key_ids)]
    count = 1 + max(part[-1] for part in parts)
    queries_of, keys_of = (np.eye(count)[part] for part in parts)
    before = np.concatenate([[-1], key_ids[:-1]])
    return {
        "received": weights.sum(1),
        "received_by_segment": np.einsum("qs,hqk->hsk", queries_of, weights),
        "segments": np.einsum("hqk,ks->hqs", weights, keys_of),
        "entropy": -(weights * np.log(safe)).sum(-1),
        "distance": (weights * abs(i - j)).sum(-1),
        "first_token": weights[..., 0],
        "previous_token": (weights * (j == i - 1)).sum(-1),
        "induction": (weights * ((before[j] == query_ids[i]) & (j <= i))).sum(-1),
        "duplicate_token": (weights * ((key_ids[j] == query_ids[i]) & (j < i))).sum(-1),
        "local": (weights * (abs(i - j) <= 8)).sum(-1),
        "own_segment": (weights * (parts[0][i] == parts[1][j])).sum(-1),
    }


def close(found, expected, name):
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "mistral",
        "gpt_oss",
        "gemma2",
        "falcon_alibi",
        "gptj",
        "deepseek_v3",
        "bert",
        "modernbert",
        "t5",
        "bart",
    ],
)
@pytest.mark.parametrize("long", [0, softmax.LONG], ids=["compiled", "torch"])
def test_statistics_are_what_their_sources_define(name, long, monkeypatch):
    monkeypatch.setattr(softmax, "LONG", long)
    architecture, inputs = ARCHITECTURES[name], inputs_of(name)
    model = architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")
    with regard.watching(model, rows="all", statistics=ALL, top_k=4, tokenizer=Stops()) as watch:
        model(**inputs)
    calls = witness.capture(model, lambda: model(**inputs), kinds=architecture.kinds)
    source = [inputs["input_ids"][item][inputs["attention_mask"][item] > 0].numpy() for item in range(2)]
    target = [ids.numpy() for ids in inputs.get("decoder_input_ids", ())] or source
    ids = {"encoder": (source, source), "decoder": (target, target), "cross": (target, source)}
    for item in range(2):
        reading = watch.reading(item)
        assert not reading.refused
        for call in calls:
            place, weights = (call.kind, call.layer), witness.truth(call)[item]
            own = [torch.ones(count, dtype=torch.bool) for count in weights.shape[1:]]
            for axis, side in enumerate(ids[call.kind]):
                if side is source:
                    own[axis] = inputs["attention_mask"][item] > 0
            weights = weights[:, own[0]][..., own[1]].numpy()
            expected = dense(weights, *(side[item] for side in ids[call.kind]))
            assert [*expected] == SWEPT
            for statistic, values in expected.items():
                close(reading.statistic(statistic, *place), values, f"{statistic} of {place}")
            positions, strongest = reading.top(*place)
            np.testing.assert_allclose(strongest, -np.sort(-weights, axis=-1)[..., :4], atol=1e-6)
            assert ((positions >= 0) == (strongest > 0)).all()
            if call.value is not None:
                value = call.value[item][:, own[1]].double()
                norms = value.repeat_interleave(len(weights) // len(value), dim=0).norm(dim=-1).numpy()
                close(reading.statistic("value_norm", *place), weights * norms[:, None], "value_norm")


PROJECTIONS = {
    "llama": lambda layer: layer.self_attn.o_proj.weight.T,
    "gpt2": lambda layer: layer.attn.c_proj.weight,
    "deepseek_v3": lambda layer: layer.self_attn.o_proj.weight.T,
    "gptj": lambda layer: layer.attn.out_proj.weight.T,
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_the_output_norm_is_of_what_a_head_adds_to_the_output(name):
    model, inputs = ARCHITECTURES[name].build("eager"), inputs_of(name)
    with regard.watching(model, rows=[-1, 3], statistics="output_norm") as watch:
        model(**inputs)
    values = {}
    for call in witness.capture(model, lambda: model(**inputs)):
        layers = model.transformer.h if name in ("gpt2", "gptj") else model.model.layers
        projection = PROJECTIONS[name](layers[call.layer]).double()
        value = call.value
        if value is None:
            # GPT-J's own: from its projection
            hidden = model.transformer(**inputs, output_hidden_states=True).hidden_states[call.layer]
            value = layers[call.layer].attn.v_proj(layers[call.layer].ln_1(hidden))
            value = value.unflatten(-1, (4, -1)).transpose(1, 2)
        weights = witness.truth(call)[0]
        value = value[0].double().repeat_interleave(len(weights) // value.shape[1], dim=0)
        added = value @ projection.view(len(weights), -1, projection.shape[1])
        values[call.layer] = (weights[:, [3, LENGTH - 1]] * added.norm(dim=-1)[:, None]).numpy()
    assert values.keys() == {0, 1}
    for layer, expected in values.items():
        close(watch.reading(0).statistic("output_norm", "decoder", layer), expected, "output_norm")


@pytest.mark.parametrize("name", ["llama", "mistral", "bert", "gptj"])
def test_rollout_is_the_product_of_what_the_layers_mix(name):
    """Abnar and Zuidema 2020, section 3."""
    model, inputs = ARCHITECTURES[name].build("eager"), inputs_of(name)
    kind = ARCHITECTURES[name].kinds[0]
    with regard.watching(model, rows=[0, 11, -1], statistics=ROLLOUT) as watch:
        model(**inputs)
    calls = witness.capture(model, lambda: model(**inputs), kinds=(kind,))
    for item, mask in enumerate(inputs["attention_mask"].bool()):
        product = np.eye(int(mask.sum()))
        for call in sorted(calls, key=lambda call: -call.layer):
            mixed = witness.truth(call)[item][:, mask][..., mask].mean(0).numpy()
            product = product @ (mixed + np.eye(len(mixed))) / 2
            found = watch.reading(item).statistic(ROLLOUT, kind, call.layer)
            close(found, product[[0, 11, -1]], f"rollout down to layer {call.layer}")
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_oss", "gptj"])
def test_statistics_of_steps_on_a_cache_are_those_of_one_run(name):
    model, inputs = ARCHITECTURES[name].build("eager"), inputs_of(name)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    settings = {"rows": "all", "statistics": (*ALL, ROLLOUT), "top_k": 4, "tokenizer": Stops()}
    with regard.watching(model, **settings) as whole:
        model(**inputs, position_ids=positions)
    with regard.watching(model, **settings) as steps:
        cache, start = None, 0
        for stop in (20, 21, 22, 30, 31, LENGTH):
            given = {"input_ids": ids[:, start:stop], "position_ids": positions[:, start:stop]}
            given |= {"attention_mask": mask[:, :stop], cache_name(model): cache}
            cache, start = cache_of(model(**given, use_cache=True)), stop
    for item in range(2):
        once, stepped = whole.reading(item), steps.reading(item)
        for place in once.maps:
            for statistic in ALL:
                found, expected = (each.statistic(statistic, *place) for each in (stepped, once))
                assert found.shape == expected.shape
                np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=statistic)
            # a step has no queries of the tokens before it
            with pytest.raises(RegardError, match="no statistic 'rollout'"):
                stepped.statistic(ROLLOUT, *place)


SENTENCES = {
    "english": [
        "A fox ran. ",
        "Did it? ",
        'It said: "No." ',
        "(Yes!) ",
        "3.14 is pi… ",
        "End",
    ],
    "chinese": ["我来了。", "你呢？", "他说：「走吧。」", "好！ ", "3.14 是 π。", "完"],
    "japanese": ["猫です。\n", "名前は？", "ない｡", "終"],
    "mixed": ["Hello, 世界。", "再见 🙂! ", "Bye.\n", "\U0001f44b", ""],
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_of_any_script_are_parts_of_the_text(name):
    sentences = SENTENCES[name]
    # spaces before a sentence's first letter belong to it or to the one before: bytes there are not asked about
    text = "".join(sentences)
    ids = torch.tensor(list(text.encode()))
    expected = [number for number, sentence in enumerate(sentences) for _ in sentence.encode()]
    found = segments(ids, "sentences", Bytes()).tolist()
    letters = [index for index, byte in enumerate(text.encode()) if byte not in b" \n"]
    assert [found[index] for index in letters] == [expected[index] for index in letters]
    assert found == sorted(found)


def test_paragraphs_turns_and_documents():
    texts = {
        "paragraphs": ["One. Two.\nStill.\n\n", "Three.\n \n\n", "四。"],
        "turns": ["<|im_start|>user\nHi.\n\n", "<|im_start|>assistant\nHello."],
        "documents": ["One.\n\nTwo.", "\fThree.", "\fFour"],
    }
    for name, parts in texts.items():
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        found = SEGMENTERS[name]("".join(parts))
        # a form feed ends the document before it
        assert found == [start + (name == "documents" and start > 0) for start in starts]


class Largest(TorchDispatchMode):
    """The most elements that any tensor had that was made while this is on."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_nothing_is_ever_as_large_as_all_pairs(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_SCORES", 1 << 13)
    monkeypatch.setattr(tiles, "LEAST_QUERIES", 8)
    monkeypatch.setattr(tiles, "MOST_QUERIES", 512)
    length, model = 1500, ARCHITECTURES["llama"].build("sdpa")
    ids = torch.randint(10, 100, (1, length))
    statistics = [name for name in STATISTICS if name != SINK_SHARE]
    with Largest() as plain:
        model(input_ids=ids)
    with Largest() as read, regard.watching(model, statistics=statistics, top_k=8, tokenizer=Stops()) as watch:
        model(input_ids=ids)
    # of one head: without padding this model needs no mask
    assert plain.elements < length**2 / 4
    assert read.elements < length**2 / 4
    assert len(watch.reading(0).statistics["decoder", 1]) == len(statistics)


def test_a_statistic_that_there_is_not_is_an_error():
    model = ARCHITECTURES["llama"].build()
    with regard.watching(model, statistics=("entropy",)) as watch:
        model(**inputs_of("llama"))
    with pytest.raises(RegardError, match=r"no statistic 'entropie'; did you mean 'entropy'"):
        watch.reading(0).statistic("entropie", "decoder", 0)


def test_a_statistic_that_a_module_cannot_give_is_left_out_and_the_layer_read():
    class Attention(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    x = torch.randn(1, 2, 5, 4)
    module = Attention()
    with regard.watching(module, statistics=("output_norm",)) as watch:
        assert torch.equal(module(x), torch.nn.functional.scaled_dot_product_attention(x, x, x))
    reading = watch.reading(0)
    assert reading.layers("encoder") == [0]
    with pytest.raises(RegardError, match="left out: the output projection"):
        reading.statistic("output_norm", "encoder", 0)
