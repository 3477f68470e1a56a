"""Heads ablated and patched, against plain hooks on what each model's output projection is given."""

import pytest
import torch

pytest.importorskip("transformers")
from benchmarks.zoo import ARCHITECTURES

import regard
from regard.models.gpt import GPT, GPTConfig

IDS = [[5, 17, 3, 42, 8, 60, 11, 29]]
OTHER = [[9, 2, 55, 31, 70, 6, 23, 48]]
# the projection after attention, by the end of its path: grouped keys, fused projections, one key head, latent keys
PROJECTIONS = {
    "llama": "self_attn.o_proj",
    "qwen3": "self_attn.o_proj",
    "gemma2": "self_attn.o_proj",
    "gpt2": "attn.c_proj",
    "gpt_bigcode": "attn.c_proj",
    "gpt_neox": "attention.dense",
    "phi3": "self_attn.o_proj",
    "falcon": "self_attention.dense",
    "bloom": "self_attention.dense",
    "opt": "self_attn.out_proj",
    "deepseek_v3": "self_attn.o_proj",
    "minicpm3": "self_attn.o_proj",
    "gptj": "attn.out_proj",
}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def built(name):
    architecture = ARCHITECTURES[name]
    return architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")


def projections(model, ending):
    return [module for path, module in model.named_modules() if path.endswith(ending)]


class Hooked:
    """A plain implementation: what the output projections of layers are given is changed by hooks."""

    def __init__(self, modules, num_heads, change):
        self.modules, self.num_heads, self.change = modules, num_heads, change

    def __enter__(self):
        def hook(layer):
            def changed(_, inputs):
                x = inputs[0].clone()
                self.change(layer, x.unflatten(-1, (self.num_heads, -1)))
                return (x, *inputs[1:])

            return changed

        self.handles = [module.register_forward_pre_hook(hook(layer)) for layer, module in enumerate(self.modules)]

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def logits(model, ids):
    return model(torch.tensor(ids)).logits


@pytest.mark.parametrize("by", ["zero", "mean"])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_ablation_equals_plain_hooks(name, by):
    model = built(name)
    plain = logits(model, IDS)

    def change(layer, heads):
        for of, head in ((0, 2), (1, 0), (1, 3)):
            if of == layer:
                heads[..., head, :] = 0 if by == "zero" else heads[..., head, :].mean(1, keepdim=True)

    with Hooked(projections(model, PROJECTIONS[name]), 4, change):
        expected = logits(model, IDS)
    with regard.ablating(model, heads=[(0, 2), (1, 0), (1, 3)], by=by):
        found = logits(model, IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - plain).abs().max() > 1e-3
    assert torch.equal(logits(model, IDS), plain)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_patching_equals_plain_hooks(name):
    model = built(name)
    taken, plain = {}, logits(model, IDS)
    modules = projections(model, PROJECTIONS[name])
    with Hooked(modules, 4, lambda layer, heads: taken.__setitem__(layer, heads.clone())):
        logits(model, OTHER)

    def change(layer, heads):
        if layer == 1:
            heads[:, [2, 7], 1] = taken[1][:, [2, 7], 1]

    with Hooked(modules, 4, change):
        expected = logits(model, IDS)
    with regard.patching(model, from_=OTHER[0], to=IDS[0], heads=[(1, 1)], positions=[2, -1]):
        found = logits(model, IDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - plain).abs().max() > 1e-4
    assert torch.equal(logits(model, IDS), plain)


def test_all_layers_patched_at_all_positions_leave_what_attention_did_not_carry():
    """Each token's own embedding alone is then of `to`."""
    model = built("llama")
    with regard.patching(model, from_=OTHER[0], to=IDS[0], layers=[0, 1]):
        found = logits(model, IDS)
    assert not torch.allclose(found, logits(model, IDS))
    with regard.patching(model, from_=IDS[0], to=IDS[0], layers=[0, 1]):
        torch.testing.assert_close(logits(model, IDS), logits(model, IDS), rtol=0, atol=1e-6)


def own_gpt(**settings):
    config = GPTConfig(model_dim=32, num_heads=4, num_layers=2, feed_forward_dim=48, max_length=64, **settings)
    torch.manual_seed(1)
    model = GPT(config, 80).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model


@pytest.mark.parametrize("settings", [{}, {"num_key_value_heads": 2, "positions": "rotary", "norm": "rms"}])
def test_a_gpt_of_ours_is_ablated_as_by_plain_hooks(settings):
    model = own_gpt(**settings)

    def change(layer, heads):
        if layer == 1:
            heads[..., 2, :] = 0

    modules = [block.attention.out_proj for block in model.blocks]
    with Hooked(modules, 4, change):
        expected = logits(model, IDS)
    with regard.ablating(model, [(1, 2)]):
        torch.testing.assert_close(logits(model, IDS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bart"])
def test_generate_writes_with_the_change(name):
    model = built(name)
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    ending = {"llama": "self_attn.o_proj", "gpt2": "attn.c_proj", "bart": "decoder.layers.{}.self_attn.out_proj"}[name]
    modules = [
        module
        for layer in range(2)
        for path, module in model.named_modules()
        if path.endswith(ending.format(layer)) and ("{}" in ending or f".{layer}." in path)
    ]
    how = {"do_sample": False, "max_new_tokens": 8, "num_beams": 1}

    def zero(layer, heads):
        heads.zero_()

    with Hooked(modules, 4, zero):
        expected = model.generate(torch.tensor(IDS), **how)
    with regard.ablating(model, heads):
        found = model.generate(torch.tensor(IDS), **how)
    assert torch.equal(found, expected)
    assert not torch.equal(found, model.generate(torch.tensor(IDS), **how))


def test_cross_attention_is_a_kind_of_its_own():
    model = built("bart")
    inputs = {"input_ids": torch.tensor(IDS), "decoder_input_ids": torch.tensor(OTHER)}
    modules = [module for path, module in model.named_modules() if path.endswith("encoder_attn.out_proj")]

    def change(layer, heads):
        if layer == 0:
            heads[..., 1, :] = 0

    with Hooked(modules, 4, change):
        expected = model(**inputs).logits
    with regard.ablating(model, [(0, 1)], kind="cross"):
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=1e-5)


def test_the_mean_is_over_real_tokens_and_goes_on_with_a_cache():
    model = built("llama")
    alone = torch.tensor(IDS)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), alone], dim=1)
    mask = torch.tensor([[0] * 3 + [1] * 8])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with regard.ablating(model, [(0, 1), (1, 2)], by="mean"):
        expected = model(alone).logits
        found = model(padded, attention_mask=mask, position_ids=places).logits[:, 3:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    means = {}

    def change(layer, heads):
        if heads.shape[1] > 1:
            means[layer] = heads[..., 1, :].mean(1, keepdim=True)
        heads[..., 1, :] = means[layer]

    with Hooked(projections(model, "self_attn.o_proj"), 4, change):
        expected = model.generate(alone, do_sample=False, max_new_tokens=6)
    with regard.ablating(model, [(0, 1), (1, 1)], by="mean"):
        found = model.generate(alone, do_sample=False, max_new_tokens=6)
    assert torch.equal(found, expected)


def test_nested_ones_add_up_and_an_exception_leaves_nothing_behind():
    model = built("llama")
    plain = logits(model, IDS)
    with regard.ablating(model, [(0, 1), (1, 2)]):
        both = logits(model, IDS)
    with regard.ablating(model, [(0, 1)]), regard.ablating(model, [(1, 2)]):
        assert torch.equal(logits(model, IDS), both)
    with pytest.raises(ZeroDivisionError), regard.ablating(model, [(0, 1)]):
        raise ZeroDivisionError
    assert torch.equal(logits(model, IDS), plain)


def test_a_reading_taken_meanwhile_is_of_the_changed_model():
    model = built("llama")
    with regard.ablating(model, [(0, head) for head in range(4)]), regard.watching(model, rows="all") as watch:
        logits(model, IDS)
    changed = watch.reading()

    def zero(layer, heads):
        if layer == 0:
            heads.zero_()

    with Hooked(projections(model, "self_attn.o_proj"), 4, zero), regard.watching(model, rows="all") as watch:
        logits(model, IDS)
    for layer in (0, 1):
        assert (changed.weights("decoder", layer) == watch.reading().weights("decoder", layer)).all()


def test_sources_and_effects_are_refused_meanwhile():
    model = built("llama")
    with regard.watching(model) as watch:
        logits(model, IDS)
    reading = watch.reading()
    with regard.ablating(model, [(0, 1)]), pytest.raises(regard.RegardError, match="ablated or patched"):
        reading.effects(6, [(1, 2)])


@pytest.mark.parametrize(
    ("heads", "by", "message"),
    [
        ([(2, 0)], "zero", "there is no decoder layer 2 that attends; there are 0, 1"),
        ([(0, 4)], "zero", "layer 0 has no head 4; it has heads 0 to 3"),
        ([(-1, 0)], "zero", "counted from 0"),
        ([(0, 1), (0, 1)], "zero", "given twice"),
        ([3], "zero", "pairs of a layer and a head"),
        ("01", "zero", "pairs of a layer and a head"),
        ([(0, True)], "zero", "pairs of a layer and a head"),
        ([(0, 0)], "median", "by must be 'zero' or 'mean'"),
    ],
)
def test_heads_that_there_are_not_are_told_at_once(heads, by, message):
    with pytest.raises(regard.RegardError, match=message), regard.ablating(built("llama"), heads, by):
        pytest.fail("it was opened")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": [1, 2]}, "from_ has 8 tokens and to has 2"),
        ({"positions": [8]}, "there is no position 8; the texts have 8 tokens"),
        ({"layers": None}, "either layers or heads"),
        ({"heads": [(0, 0)]}, "either layers or heads"),
        ({"from_": "a text"}, "a bare module has no tokenizer"),
        ({"from_": []}, "at least one token"),
        ({"layers": [7]}, "no decoder layer 7"),
    ],
)
def test_patches_that_do_not_fit_are_told_at_once(settings, message):
    given = {"from_": OTHER[0], "to": IDS[0], "layers": [0]} | settings
    with pytest.raises(regard.RegardError, match=message), regard.patching(built("llama"), **given):
        pytest.fail("it was opened")


def test_a_run_over_another_text_is_told():
    model = built("llama")
    with (
        pytest.raises(regard.RegardError, match="another text than `to`"),
        regard.patching(model, from_=OTHER[0], to=IDS[0], layers=[0]),
    ):
        logits(model, OTHER)


def test_layers_that_do_not_attend_and_heads_that_are_not_told_apart_are_refused():
    jamba = built("jamba")
    with (
        pytest.raises(regard.RegardError, match="no decoder layer 0 that attends; there are 1"),
        regard.ablating(jamba, [(0, 0)]),
    ):
        logits(jamba, IDS)
    torch_own = torch.nn.TransformerEncoderLayer(16, 2, 16, batch_first=True).eval()
    with (
        pytest.raises(regard.RegardError, match="keeps its context to itself"),
        regard.ablating(torch_own, [(0, 0)], kind="encoder"),
    ):
        torch_own(torch.randn(1, 3, 16))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_no_gradient_is_taken_through_a_changed_head(implementation):
    model = ARCHITECTURES["llama"].build(implementation).requires_grad_(True)
    with torch.enable_grad(), regard.ablating(model, [(0, 0)]):
        loss = logits(model, IDS).sum()
        # the fused kernel keeps its context, and torch is the first to mind
        with pytest.raises(RuntimeError if implementation == "sdpa" else regard.RegardError):
            loss.backward()


@pytest.mark.parametrize("by", ["zero", "mean"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "deepseek_v3"])
def test_effects_of_heads_are_those_of_one_ablation_after_the_other(name, by):
    model = built(name)
    prompts = [IDS[0], OTHER[0][:5]]

    def likelihood(ids):
        found = logits(model, [ids]).double().log_softmax(-1)[0]
        return sum(float(found[place, token]) for place, token in enumerate(ids[1:]))

    found = regard.effects_of_heads(model, prompts, by=by)
    assert found.values.shape == (2, 2, 4)
    for number, ids in enumerate(prompts):
        plain = likelihood(ids)
        for of in range(2):
            for head in range(4):

                def change(layer, heads, of=of, head=head):
                    if layer == of:
                        heads[..., head, :] = 0 if by == "zero" else heads[..., head, :].mean(1, keepdim=True)

                with Hooked(projections(model, PROJECTIONS[name]), 4, change):
                    assert found.values[number, of, head] == pytest.approx(likelihood(ids) - plain, abs=1e-4)
    strongest = found.strongest(1)[0]
    assert found.mean[strongest] == found.mean.min()


def test_effects_on_an_answer_and_by_a_metric_of_ones_own(tiny_smollm2):
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    question, answer = model.encode("one two")[0], model.encode(" three")[0]
    whole = regard.effects_of_heads(model, [[*question, *answer]]).values
    without = regard.effects_of_heads(model, ["one two"]).values
    found = regard.effects_of_heads(model, [("one two", " three")]).values
    assert found == pytest.approx(whole - without, abs=1e-4)

    def last(logits, ids):
        return logits[:, -1, ids[0]]

    found = regard.effects_of_heads(model, ["one two"], metric=last)
    assert found.metric == "last"
    heads = []
    tokens = torch.tensor([question])
    plain = model.module(tokens).logits[0, -1, question[0]]
    for head in range(4):
        with regard.ablating(model, [(2, head)]):
            heads.append(float(model.module(tokens).logits[0, -1, question[0]] - plain))
    assert found.values[0, 2] == pytest.approx(heads, abs=1e-5)


def test_effects_are_a_frame():
    pytest.importorskip("pandas")
    found = regard.effects_of_heads(built("llama"), IDS)
    frame = found.to_frame()
    assert list(frame.columns) == ["prompt", "layer", "head", "effect"]
    row = frame[(frame.layer == 1) & (frame["head"] == 3)]
    assert row.effect.tolist() == [found.values[0, 1, 3]]


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[5]], {}, "prompt 0 is too short"),
        ([IDS[0], []], {}, "prompt 1 is too short"),
        ([], {}, "a list of at least one"),
        ("a text", {}, "a list of at least one"),
        (["a text"], {}, "a bare module has no tokenizer"),
        (IDS, {"by": "noise"}, "by must be"),
        (IDS, {"metric": "accuracy"}, "metric must be 'log_probability' or a function"),
        (IDS, {"metric": lambda logits, ids: logits.sum()}, "one finite number for each item"),
    ],
)
def test_prompts_without_an_effect_are_told(prompts, settings, message):
    with pytest.raises(regard.RegardError, match=message):
        regard.effects_of_heads(built("llama"), prompts, **settings)
