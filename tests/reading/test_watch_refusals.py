"""What cannot be read is refused by layer, with the reason and, where there is one, the remedy; nothing is made up."""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from torch import nn

import regard
from regard.errors import RegardError
from regard.generation.steps import cache_name, cache_of

transformers = pytest.importorskip("transformers")

from transformers import AttentionInterface, AttentionMaskInterface  # noqa: E402
from transformers.masking_utils import sdpa_mask  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def model_of(name, implementation="sdpa", dtype=torch.float32):
    return ARCHITECTURES[name].build(implementation, dtype=dtype), ARCHITECTURES[name].inputs(dtype)


def test_a_softmax_in_float32_of_a_float64_model_is_said_to_be_one():
    # transformers' eager attention computes it so in every dtype
    model, inputs = model_of("llama", "eager", torch.float64)
    with regard.watching(model) as watch:
        model(**inputs)
    reading = watch.reading(0)
    assert reading.refused.keys() == {("decoder", 0), ("decoder", 1)}
    assert all(why.startswith("its softmax is computed in float32: off by") for why in reading.refused.values())


# attention functions that are not softmax over the keys that their mask shows


def sigmoid(scores, seen):
    return scores.sigmoid() * seen


def normed_sigmoid(scores, seen):
    weights = sigmoid(scores, seen)
    return weights / weights.sum(-1, keepdim=True)


def sparsemax(scores, seen):
    """Martins and Astudillo 2016, "From softmax to sparsemax", algorithm 1."""
    ordered = scores.masked_fill(~seen, -1e9).sort(-1, descending=True).values
    count = torch.arange(1, scores.shape[-1] + 1)
    sums = ordered.cumsum(-1)
    support = ((1 + count * ordered) > sums).sum(-1, keepdim=True)
    threshold = (sums.gather(-1, support - 1) - 1) / support
    return ((scores - threshold) * seen).clamp(min=0)


def squared_relu(scores, seen):
    weights = scores.relu().square() * seen
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-3)


def soft(scores, seen):
    # 0 where nothing is seen
    return scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num()


def other_scale(scores, seen):
    return soft(scores * 1.01, seen)


def no_first_key(scores, seen):
    kept = seen.clone()
    kept[..., 1:, 0] = False
    return soft(scores, torch.where(kept.any(-1, keepdim=True), kept, seen))


def window(scores, seen):
    return soft(scores, seen & torch.ones_like(seen).triu(-2))


def sees_ahead(scores, seen):
    return soft(scores, torch.ones_like(seen))


def dropout(scores, seen):
    return F.dropout(soft(scores, seen), 0.2)


def top_two(scores, seen):
    least = scores.masked_fill(~seen, -1e9).topk(2).values[..., -1:]
    return soft(scores, seen & (scores >= least))


def linear(scores, seen):
    weights = (F.elu(scores) + 1) * seen
    return weights / weights.sum(-1, keepdim=True)


def one_head_off(scores, seen):
    weights = soft(scores, seen)
    weights[:, 3] = weights[:, 2]
    return weights


def last_row_off(scores, seen):
    weights = soft(scores, seen)
    weights[:, :, -1] = weights[:, :, -2]
    return weights


# with how much of what they do shows in half precision
NOT_SOFTMAX = [
    sigmoid, normed_sigmoid, sparsemax, squared_relu, no_first_key, window, sees_ahead, dropout, top_two, linear,
    one_head_off, last_row_off,
]  # fmt: skip


@pytest.fixture
def registered():
    """Registers a function of scores and what is seen as attention, under a name of its own."""
    names = []

    def register(weigh):
        def attend(module, query, key, value, attention_mask, scaling=None, **_):
            groups = query.shape[1] // key.shape[1]
            key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
            scores = (query @ key.mT).float() * scaling
            seen = torch.ones_like(scores, dtype=torch.bool)
            seen = seen.tril() if attention_mask is None else seen & attention_mask[..., : key.shape[2]]
            weights = weigh(scores, seen).to(query.dtype)
            return (weights @ value).transpose(1, 2).contiguous(), None

        name = f"{weigh.__name__}_attention"
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, sdpa_mask)
        names.append(name)
        return name

    yield register
    for name in names:
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)
    assert not set(names) & set(ALL_ATTENTION_FUNCTIONS)


@pytest.mark.parametrize(
    ("weigh", "dtype"),
    [(weigh, dtype) for weigh in NOT_SOFTMAX for dtype in (torch.float32, torch.bfloat16)]
    # in half precision an error of 1 % is no more than rounding
    + [(other_scale, torch.float32)],
)
@pytest.mark.parametrize("rows", ["last", "all"])
def test_what_is_not_softmax_over_what_the_mask_shows_is_refused(registered, weigh, dtype, rows):
    model, inputs = model_of("llama", registered(weigh), dtype)
    ids = inputs["input_ids"][:1]
    # one key that is hidden, so that there is a mask
    mask = torch.ones_like(ids).index_fill(1, torch.tensor(5), 0)
    with regard.watching(model, rows=rows, top_k=2) as watch:
        model(input_ids=ids, attention_mask=mask)
    reading = watch.reading(0)
    assert reading.refused.keys() == {("decoder", 0), ("decoder", 1)}
    assert all("not the context" in why or "do not sum to 1" in why for why in reading.refused.values())
    with pytest.raises(RegardError, match=r"decoder layer 1 was refused: .*(context|sum to 1)"):
        reading.weights("decoder", 1)
    with pytest.raises(RegardError, match="decoder layer 0 was refused"):
        reading.top("decoder", 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_of_an_unknown_name_is_read(registered, dtype):
    model, inputs = model_of("llama", registered(soft), dtype)
    with regard.watching(model, rows="all") as watch:
        model(**inputs)
    assert watch.reading(1).layers("decoder") == [0, 1]
    assert watch.reading(1).weights("decoder", 1).shape == (4, 9, 9)


def test_a_kernel_that_leaves_out_the_softcap_is_named_with_the_remedy(registered):
    # of Gemma 2, whose softcap transformers 5.5 does not give to its fused kernel
    model, inputs = model_of("gemma2", registered(soft))
    with regard.watching(model, rows="last") as watch:
        model(**inputs)
    reading = watch.reading(0)
    assert sorted(reading.refused) == [("decoder", 0), ("decoder", 1)]
    assert all("softcap of 3" in why and "implementation='eager'" in why for why in reading.refused.values())


def test_layers_without_attention_are_refused_and_the_others_read():
    for name, kind, layers, sort in (
        # older versions of transformers call a state space mamba
        ("jamba", "decoder", [1], r" \((linear_attention|mamba)\)"),
        ("qwen3_next", "decoder", [1, 3], r" \(linear_attention\)"),
        ("mamba", "decoder", [], r" \((linear_attention|mamba)\)"),
        ("fnet", "encoder", [], ""),
    ):
        model, inputs = model_of(name, ARCHITECTURES[name].implementations[-1] if name == "qwen3_next" else "eager")
        with regard.watching(model, statistics=("entropy",)) as watch, torch.compiler.set_stance("force_eager"):
            model(**inputs)
        reading = watch.reading(0)
        assert [layer for _, layer in reading.maps] == layers
        others = [layer for layer in range(model.config.num_hidden_layers) if layer not in layers]
        assert sorted(reading.refused) == [(kind, layer) for layer in others]
        assert all(re.match(f"it{sort} did not attend by a softmax", why) for why in reading.refused.values())
        with pytest.raises(RegardError, match="layer 0 was refused"):
            reading.weights(kind, 0)


@pytest.mark.parametrize("name", ["llama", "gptj", "bart", "falcon_alibi", "bert"])
def test_attention_dropout_is_refused_with_the_remedy_and_only_where_it_is_on(name):
    architecture = ARCHITECTURES[name]
    # Falcon leaves dropout out of torch's fused function
    implementation = "sdpa" if "sdpa" in architecture.implementations and name != "falcon_alibi" else "eager"
    model, inputs = architecture.build(implementation), architecture.inputs()
    for module in model.modules():
        for setting in ("attention_dropout", "dropout", "attention_dropout_prob"):
            if isinstance(getattr(module, setting, None), float):
                setattr(module, setting, 0.3)
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    with regard.watching(model.train()) as watch:
        model(**inputs)
    refused = watch.reading(0).refused
    assert refused.keys() >= {(kind, layer) for kind, layers in architecture.layers.items() for layer in layers}
    assert all("model.eval()" in why for why in refused.values())
    with regard.watching(model.eval()) as watch:
        model(**inputs)
    assert not watch.reading(0).refused


def test_training_without_dropout_of_attention_is_read():
    model, inputs = model_of("llama")
    with regard.watching(model.train()) as watch, torch.enable_grad():
        model.requires_grad_(True)
        loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    assert watch.reading(0).layers("decoder") == [0, 1]
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().max() > 0


def test_a_compiled_model_is_refused_with_the_remedy():
    model, _ = model_of("llama")
    by_part, by_method = copy.deepcopy(model), copy.deepcopy(model)
    by_part.model.layers[1].mlp = torch.compile(by_part.model.layers[1].mlp, backend="eager")
    by_method.model.layers[0].compile(backend="eager")
    by_forward, by_inner_forward = copy.deepcopy(model), copy.deepcopy(model)
    for module in (by_forward, by_inner_forward.model.layers[1].self_attn):
        module.forward = torch.compile(module.forward, backend="eager")
    for each in (torch.compile(model, backend="eager"), by_part, by_method, by_forward, by_inner_forward):
        with pytest.raises(RegardError, match=r"before torch\.compile"), regard.watching(each):
            pass
    with pytest.raises(RegardError, match="takes a torch module"), regard.watching("llama"):
        pass


def test_a_class_whose_forward_was_compiled_is_refused_before_it_runs(monkeypatch):
    model, _ = model_of("llama")
    cls = type(model.model.layers[0].mlp)
    monkeypatch.setattr(cls, "forward", torch.compile(cls.forward, backend="eager"))
    with pytest.raises(RegardError, match=r"before torch\.compile"), regard.watching(model):
        pass


def test_a_compiled_function_around_a_model_runs_as_ever_and_says_why_nothing_was_read():
    model, inputs = model_of("llama")
    function = torch.compile(lambda ids: model(ids, use_cache=False).logits, backend="eager")
    expected = function(inputs["input_ids"])
    with regard.watching(model) as watch:
        found = function(inputs["input_ids"])
    assert torch.equal(found, expected)
    with pytest.raises(RegardError, match=r"ran compiled or traced \(torch\.compile"):
        watch.reading(0)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("name", "implementation", "path"),
    [
        ("llama", "sdpa", "model.layers.1.self_attn.q_proj"),
        ("llama", "eager", "model.layers.1.self_attn.v_proj"),
        ("llama", "sdpa", "model.layers.1.input_layernorm"),
        ("gptj", "eager", "transformer.h.1.attn.q_proj"),
        ("gptj", "eager", "transformer.h.1.attn.v_proj"),
        ("bert", "sdpa", "encoder.layer.1.attention.self.value"),
        ("falcon", "sdpa", "transformer.h.1.self_attention.query_key_value"),
    ],
)
def test_what_is_no_number_is_told_with_its_layer(name, implementation, path):
    model, inputs = model_of(name, implementation)
    model.get_parameter(f"{path}.weight").view(-1)[3] = torch.nan
    with regard.watching(model, rows="all", top_k=2, statistics=("received", "entropy")) as watch:
        model(**inputs)
    reading = watch.reading(0)
    (kind,) = reading.kinds
    assert reading.layers(kind) == [0]
    assert "NaN" in reading.refused[kind, 1]


# shapes at the edge


@pytest.mark.parametrize("name", ["llama", "gptj", "bert", "t5", "falcon_alibi", "gpt_oss", "mistral"])
def test_one_token_looks_at_itself(name):
    architecture = ARCHITECTURES[name]
    model = architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")
    one = torch.tensor([[5]])
    inputs = {"input_ids": one} | ({"decoder_input_ids": one} if "cross" in architecture.kinds else {})
    settings = {"rows": "all", "top_k": 2, "statistics": ("received", "entropy", "distance", "rollout")}
    with regard.watching(model, **settings) as watch:
        model(**inputs)
    reading = watch.reading(0)
    assert reading.kinds == [kind for kind in ("encoder", "decoder", "cross") if kind in architecture.kinds]
    for place in reading.maps:
        total = 1 - reading.statistic("sink_share", *place)[..., None] if name == "gpt_oss" else 1.0
        np.testing.assert_allclose(reading.weights(*place), np.broadcast_to(total, (4, 1, 1)), atol=1e-6)
        assert reading.top(*place).positions.tolist() == [[[0, -1]]] * 4


def test_packed_documents_look_at_their_own_alone():
    model, inputs = model_of("llama")
    ids = inputs["input_ids"][:1]
    document = torch.tensor([0] * 5 + [1] * 8)
    seen = (document[:, None] == document) & torch.ones(13, 13, dtype=torch.bool).tril()
    positions = torch.tensor([[*range(5), *range(8)]])
    added = torch.zeros(1, 1, 13, 13).masked_fill(~seen, torch.finfo(torch.float32).min)
    for mask in (seen[None, None], added):
        with regard.watching(model, rows="all", top_k=3, statistics=("received",)) as watch:
            model(input_ids=ids, attention_mask=mask, position_ids=positions)
        reading = watch.reading(0)
        for part in (slice(0, 5), slice(5, 13)):
            alone = witness.capture(model, lambda part=part: model(input_ids=ids[:, part]))
            for call in alone:
                own = torch.as_tensor(reading.weights("decoder", call.layer))[:, part].double()
                torch.testing.assert_close(own[..., part], witness.truth(call)[0], rtol=0, atol=1e-6)
                assert own.sum() == pytest.approx(own[..., part].sum().item(), abs=1e-12)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_row_that_sees_nothing_has_no_weights(implementation):
    model, inputs = model_of("llama", implementation)
    seen = torch.ones(13, 13, dtype=torch.bool).tril()
    seen[4] = False
    added = torch.zeros(1, 1, 13, 13).masked_fill(~seen, torch.finfo(torch.float32).min)
    settings = {"rows": "all", "top_k": 2, "statistics": ("received", "entropy")}
    with regard.watching(model, **settings) as watch:
        model(
            input_ids=inputs["input_ids"][:1], attention_mask=added if implementation == "eager" else seen[None, None]
        )
    reading = watch.reading(0)
    for layer in (0, 1):
        weights = reading.weights("decoder", layer)
        assert (weights[:, 4] == 0).all()
        np.testing.assert_allclose(weights.sum(-1)[:, np.arange(13) != 4], 1, atol=1e-6)
        assert (reading.top("decoder", layer).positions[:, 4] == -1).all()
        np.testing.assert_allclose(reading.statistic("received", "decoder", layer), weights.sum(1), atol=1e-5)
        assert (reading.statistic("entropy", "decoder", layer)[:, 4] == 0).all()


def test_what_goes_to_a_sink_makes_up_the_rest_of_a_row():
    model, inputs = model_of("gpt_oss", "eager")
    with regard.watching(model, rows="all") as watch:
        model(**inputs)
    calls = witness.capture(model, lambda: model(**inputs))
    for call in calls:
        weights, shares = (
            watch.reading(0).weights("decoder", call.layer),
            watch.reading(0).statistic("sink_share", "decoder", call.layer),
        )
        np.testing.assert_allclose(weights.sum(-1) + shares, 1, atol=1e-6)
        np.testing.assert_allclose(shares, 1 - witness.truth(call)[0].sum(-1), atol=1e-6)
        assert shares.max() > 0.01


def test_a_part_of_a_model_is_a_model():
    model, inputs = model_of("llama")
    with regard.watching(model.model, rows="all") as watch:
        model(**inputs)
    calls = witness.capture(model, lambda: model(**inputs))
    for call in calls:
        found = torch.as_tensor(watch.reading(1).weights("decoder", call.layer)).double()
        torch.testing.assert_close(found, witness.truth(call)[1][:, 4:, 4:], rtol=0, atol=1e-6)


def test_a_part_of_a_model_goes_on_with_its_own_cache():
    model, inputs = model_of("llama")
    ids = inputs["input_ids"][:1]
    with regard.watching(model, rows="all") as watch:
        # not the model that is watched but a part of it
        cache = cache_of(model.model(input_ids=ids))
        model.model(input_ids=ids[:, :1], **{cache_name(model.model): cache})
    fed = torch.cat([ids, ids[:, :1]], dim=1)
    reading = watch.reading(0)
    assert [token.id for token in reading.keys("decoder")] == fed[0].tolist()
    for call in witness.capture(model, lambda: model(input_ids=fed)):
        found = torch.as_tensor(reading.weights("decoder", call.layer)).double()
        torch.testing.assert_close(found, witness.truth(call)[0], rtol=0, atol=1e-5)


def test_a_cache_that_was_filled_unseen_has_no_names_and_exact_weights():
    model, inputs = model_of("llama")
    ids = inputs["input_ids"][:1]
    cache = cache_of(model(input_ids=ids[:, :9]))
    with regard.watching(model, rows="all") as watch:
        model(input_ids=ids[:, 9:], **{cache_name(model): cache})
    reading = watch.reading(0)
    assert reading.rows("decoder") == [9, 10, 11, 12]
    assert [token.id for token in reading.keys("decoder")] == [-1] * 9 + ids[0, 9:].tolist()
    assert {token.sort for token in reading.keys("decoder")[:9]} == {"position"}
    for call in witness.capture(model, lambda: model(input_ids=ids)):
        found = torch.as_tensor(reading.weights("decoder", call.layer)).double()
        torch.testing.assert_close(found, witness.truth(call)[0][:, 9:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gptj", "bert"])
def test_a_sequence_of_padding_alone_has_no_rows(name):
    architecture = ARCHITECTURES[name]
    model, inputs = architecture.build("eager"), architecture.inputs()
    inputs["attention_mask"][1] = 0
    with regard.watching(model, rows="all", top_k=2, statistics=("received", "entropy")) as watch:
        model(**inputs)
    (kind,) = architecture.kinds
    assert watch.reading(0).weights(kind, 0).shape == (4, 13, 13)
    assert watch.reading(1).weights(kind, 0).shape == (4, 0, 0)
    assert watch.reading(1).keys() == watch.reading(1).queries() == []


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_what_gradient_checkpointing_runs_again_is_not_seen(use_reentrant):
    model, inputs = model_of("llama")
    model.train().requires_grad_(True).gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    with regard.watching(model, rows="all") as watch, torch.enable_grad():
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    assert len(watch.recording.seen) == 1
    assert watch.reading(1).weights("decoder", 1).shape == (4, 9, 9)


def test_steps_that_are_fed_embeddings_beside_what_was_written_are_no_rows_of_it():
    # as prompt tuning does where it does not find the cache that a newer transformers gives it
    model, inputs = model_of("llama")
    prepare, table = model.prepare_inputs_for_generation, model.get_input_embeddings()

    def prepared(*args, **kwargs):
        given = prepare(*args, **kwargs)
        embeds = table(given.pop("input_ids"))
        embeds = torch.cat([embeds[:, :1] + 1, embeds], dim=1)
        return given | {"inputs_embeds": embeds, "position_ids": None, "attention_mask": None}

    model.prepare_inputs_for_generation = prepared
    with regard.watching(model, rows="generated") as watch:
        model.generate(inputs["input_ids"][:1], max_new_tokens=4, do_sample=False, eos_token_id=None)
    with pytest.raises(RegardError, match=r"3 tokens of sequence 0 were written in runs that .* fed something else"):
        watch.reading(0)
