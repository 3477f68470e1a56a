"""`output_norm` beside what the attention module itself adds to its output for one key of one head."""

import numpy as np
import pytest
import torch
from benchmarks.zoo import DECODERS
from benchmarks.zoo.architecture import scatter
from benchmarks.zoo.decoders import UNWRITTEN
from torch import nn
from torch.overrides import TorchFunctionMode

import regard
from regard.errors import RegardError
from regard.reading.reading import Reading

transformers = pytest.importorskip("transformers")

IDS = torch.randint(3, 101, (1, 6), generator=torch.Generator().manual_seed(4))
ROW = 5
SOFTMAXES = (torch.softmax, nn.functional.softmax, torch.Tensor.softmax)
PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


class Shares(TorchFunctionMode):
    """Puts in place of the first context of a run, at row ROW, the share of one key and one head, in each batch item.

    Item 0 has a context of 0. The first context is the first product of what a softmax returned.
    """

    def __init__(self, weights):
        super().__init__()
        self.weights, self.softmaxes, self.done = weights, [], False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in SOFTMAXES and result.dim() > 2:
            self.softmaxes.append(result)
        elif func in PRODUCTS and not self.done and args[0].data_ptr() in {each.data_ptr() for each in self.softmaxes}:
            self.done = True
            heads, keys = self.weights.shape
            value = args[1].expand(*result.shape[:-2], *args[1].shape[-2:]).reshape(1 + heads * keys, heads, keys, -1)
            context = result.view(1 + heads * keys, heads, len(IDS[0]), -1)
            context[:, :, ROW] = 0
            for head in range(heads):
                for key in range(keys):
                    item = 1 + head * keys + key
                    context[item, head, ROW] = self.weights[head, key].to(value.dtype) * value[item, head, key]
        return result


def contributions(model, module, weights):
    """The norm of what each head and key of the first attention adds to row ROW of the output of its module."""
    heads, keys = weights.shape
    outputs = []
    hook = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        with Shares(weights) as shares:
            model(input_ids=IDS.expand(1 + heads * keys, -1), use_cache=False)
    finally:
        hook.remove()
    assert shares.done
    output = outputs[0][0] if isinstance(outputs[0], tuple | list) else outputs[0]
    rows = output.view(1 + heads * keys, len(IDS[0]), -1)[:, ROW].double()
    return (rows[1:] - rows[0]).norm(dim=-1).view(heads, keys).numpy()


def first_layer(model):
    """The reading of a run, the number of the first layer that attends, and its module."""
    with regard.watching(model, rows=[ROW], statistics="output_norm") as watch:
        model(input_ids=IDS, use_cache=False)
    reading = watch.reading(0)
    layer = reading.layers("decoder")[0]
    path = next(path for (_, path, _), number in watch.numbers.items() if number == layer)
    return reading, layer, model.get_submodule(path)


def assert_right(model, *, rtol=1e-4):
    reading, layer, module = first_layer(model)
    weights = torch.as_tensor(reading.weights("decoder", layer))[:, 0]
    expected = contributions(model, module, weights)
    found = reading.statistic("output_norm", "decoder", layer)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * expected.max())
    assert expected.max() > 1e-3


def left_out(model):
    """Why a model's first layer has no `output_norm`; its weights are there all the same."""
    reading, layer, _ = first_layer(model)
    assert not reading.refused.get(("decoder", layer))
    assert reading.weights("decoder", layer).shape[1] == 1
    with pytest.raises(RegardError) as error:
        reading.statistic("output_norm", "decoder", layer)
    return str(error.value)


# the module's output is no sum over keys, or its projection is part of another module
LEFT_OUT = {
    # whose context older versions make of both softmaxes at once
    "diffllama": "between the attention of model.layers.0.self_attn and its output projection",
    "bitnet": "not known to be linear in the context",
    "jetmoe": "output projection of model.layers.0.self_attention is not known",
    "bert_decoder": "output projection of bert.encoder.layer.0.attention.self is not known",
}


@pytest.mark.parametrize("name", [name for name in DECODERS if DECODERS[name].layers and name not in UNWRITTEN])
def test_the_output_norm_is_of_what_a_key_adds_to_the_modules_output(name):
    model = DECODERS[name].build("eager")
    if name in LEFT_OUT:
        assert LEFT_OUT[name] in left_out(model)
    else:
        assert_right(model)


def gated(name, **settings):
    """A tiny model of a family with gates between attention and projection."""
    config = transformers.CONFIG_MAPPING[name](
        vocab_size=101, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    scatter(model, 1.0)
    return model


def test_a_gate_of_a_released_family_is_part_of_what_a_key_adds():
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_dense_layers": 1}
    assert_right(gated("afmoe", sliding_window=8, **experts))
    assert_right(gated("qwen3_5_text", layer_types=["full_attention"] * 2))


class Attention(nn.Module):
    """Causal attention with something between context and projection, made by `between(module, context, x, gate)`."""

    def __init__(self, between, projection):
        super().__init__()
        self.between = between
        self.in_proj = nn.Linear(12, 36)
        self.gate_proj = nn.Linear(12, 12)
        self.head_gate_proj = nn.Linear(12, 3)
        self.o_proj = projection

    def forward(self, x):
        gate = self.gate_proj(x)
        heads = self.in_proj(x).unflatten(-1, (9, 4)).transpose(1, 2).chunk(3, dim=1)
        context = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.finish(context.transpose(1, 2), x, gate)

    def finish(self, context, x, gate):
        return self.o_proj(self.between(self, context, x, gate).flatten(2))


def late(module, context, x, gate):
    return context * module.gate_proj(x).sigmoid().view_as(context)


def by_head(module, context, x, gate):
    return context * module.head_gate_proj(x).tanh()[..., None]


def in_place(module, context, x, gate):
    return context.mul_(nn.functional.silu(gate).view_as(context))


def plain(module, context, x, gate):
    return context


class LowRank(nn.Module):
    """A projection that is no plain matrix, with a bias that is large beside it."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(12, 10)
        self.weight = self.base.weight
        self.down, self.up = nn.Linear(12, 2, bias=False), nn.Linear(2, 10, bias=False)
        self.base.bias.fill_(50.0)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Quantised(nn.Module):
    """Eight-bit weights with a scale for each output."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(10, 12)
        self.register_buffer("scale", weight.abs().amax(1) / 127)
        self.register_buffer("weight", (weight / self.scale[:, None]).round().to(torch.int8))

    def forward(self, x):
        return (x @ self.weight.to(x.dtype).T) * self.scale


@pytest.mark.parametrize("between", [plain, late, by_head, in_place])
@pytest.mark.parametrize("make", [lambda: nn.Linear(12, 10), LowRank, Quantised])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gate_and_a_projection_of_any_make_are_part_of_what_a_key_adds(between, make, dtype):
    torch.manual_seed(3)
    module = Attention(between, make()).to(dtype).eval()
    x = torch.randn(2, 7, 12, dtype=dtype)
    with regard.watching(module, rows="all", statistics="output_norm") as watch:
        module(x)
    gate = module.gate_proj(x)
    _, _, value = module.in_proj(x).unflatten(-1, (9, 4)).chunk(3, dim=2)
    nothing = module.finish(torch.zeros(2, 7, 3, 4, dtype=dtype), x, gate).double()
    for item in range(2):
        reading = watch.reading(item)
        ((kind, layer),) = reading.maps
        weights, found = reading.weights(kind, layer), reading.statistic("output_norm", kind, layer)
        for head in range(3):
            for key in range(7):
                share = torch.zeros(2, 7, 3, 4, dtype=dtype)
                share[:, :, head] = (
                    torch.as_tensor(weights[head, :, key]).to(dtype)[:, None] * value[:, key, head][:, None]
                )
                added = (module.finish(share, x, gate).double() - nothing)[item].norm(dim=-1)
                np.testing.assert_allclose(found[head, :, key], added, rtol=1e-4, atol=2e-5)


def normed(module, context, x, gate):
    return nn.functional.layer_norm(context, (4,))


def scaled_by_itself(module, context, x, gate):
    return context * context.square().mean((2, 3), keepdim=True).add(1e-6).rsqrt()


def gated_by_itself(module, context, x, gate):
    return context * context.sigmoid()


def reordered(module, context, x, gate):
    return context.flip(2)


@pytest.mark.parametrize(
    ("between", "make", "message"),
    [
        (normed, lambda: nn.Linear(12, 10), "not known to be linear in the context"),
        (scaled_by_itself, lambda: nn.Linear(12, 10), "not known to be linear in the context"),
        (gated_by_itself, lambda: nn.Linear(12, 10), "not known to be linear in the context"),
        (reordered, lambda: nn.Linear(12, 10), "not known to be linear in the context"),
        (plain, lambda: nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 10)), "is not linear: off by"),
    ],
)
def test_where_keys_do_not_add_up_the_statistic_is_left_out_and_the_layer_is_read(between, make, message):
    torch.manual_seed(3)
    module, x = Attention(between, make()).eval(), torch.randn(2, 7, 12)
    expected = module(x)
    with regard.watching(module, rows="all", statistics=("output_norm", "entropy")) as watch:
        assert torch.equal(module(x), expected)
    reading = watch.reading(1)
    ((kind, layer),) = reading.maps
    assert reading.statistic("entropy", kind, layer).shape == (3, 7)
    with pytest.raises(RegardError, match=message):
        reading.statistic("output_norm", kind, layer)
    assert not module.o_proj._forward_hooks


def test_a_module_without_a_projection_and_one_that_is_not_called_are_told_apart():
    class Bare(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    class Bypassing(Attention):
        def finish(self, context, x, gate):
            return nn.functional.linear(context.flatten(2), self.o_proj.weight)

    for module, x, message in (
        (Bare(), torch.randn(1, 2, 5, 4), "the output projection of  is not known"),
        (Bypassing(plain, nn.Linear(12, 10)), torch.randn(1, 7, 12), "was not called after its attention"),
    ):
        with regard.watching(module, statistics="output_norm") as watch:
            module(x)
        reading = watch.reading(0)
        ((kind, layer),) = reading.maps
        with pytest.raises(RegardError, match=message):
            reading.statistic("output_norm", kind, layer)
        assert not any(each._forward_hooks for each in module.modules())


def test_a_run_that_fails_before_the_projection_leaves_no_hook():
    def failing(module, context, x, gate):
        raise ValueError("the user's own")

    module = Attention(failing, nn.Linear(12, 10)).eval()
    with regard.watching(module, statistics="output_norm"), pytest.raises(ValueError, match="the user's own"):
        module(torch.randn(1, 7, 12))
    assert not module.o_proj._forward_hooks


def test_offloaded_weights_are_a_reason():
    module, x = Attention(plain, nn.Linear(12, 10)).eval(), torch.randn(1, 7, 12)
    weight = module.o_proj.weight
    module.o_proj.weight = nn.Parameter(weight.to("meta"))
    module.o_proj.forward = lambda x: nn.functional.linear(x, weight)
    with regard.watching(module, statistics="output_norm") as watch:
        module(x)
    ((kind, layer),) = watch.reading(0).maps
    with pytest.raises(RegardError, match="are offloaded"):
        watch.reading(0).statistic("output_norm", kind, layer)


def test_hooks_of_the_projection_see_the_models_own_calls_alone():
    torch.manual_seed(3)
    module, seen = Attention(plain, LowRank()).eval(), []
    module.o_proj.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    with regard.watching(module, statistics="output_norm") as watch:
        module(torch.randn(1, 7, 12))
    assert seen == [(1, 7, 12)]
    assert watch.reading(0).statistic("output_norm").shape == (1, 3, 1, 7)


def test_steps_on_a_cache_give_what_one_run_gives():
    model = DECODERS["qwen3_next"].build("sdpa")
    with regard.watching(model, rows="generated", statistics="output_norm") as steps:
        written = model.generate(IDS, max_new_tokens=4, do_sample=False, eos_token_id=None)
    with regard.watching(model, rows=[5, 6, 7, 8], statistics="output_norm") as whole:
        model(input_ids=written[:, :-1])
    for layer in (1, 3):
        found, expected = (each.reading(0).statistic("output_norm", "decoder", layer) for each in (steps, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_file_keeps_why_a_statistic_is_left_out(tmp_path):
    reading, layer, _ = first_layer(DECODERS["bitnet"].build("eager"))
    for suffix in (".safetensors", ".json"):
        reading.save(tmp_path / f"x{suffix}")
        with pytest.raises(RegardError, match="not known to be linear"):
            Reading.load(tmp_path / f"x{suffix}").statistic("output_norm", "decoder", layer)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_low_rank_adapters_are_part_of_the_projection():
    peft = pytest.importorskip("peft")
    model = DECODERS["llama"].build("eager")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["o_proj"])).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora" in name:
            nn.init.normal_(parameter, std=0.5)
    assert_right(wrapped.get_base_model())


def test_torchaos_eight_bit_weights_are_the_projection():
    quantization = pytest.importorskip("torchao.quantization")
    model = DECODERS["llama"].build("eager")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert_right(model)
