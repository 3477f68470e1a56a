"""Hugging Face folders in Regard's own model: every setting and every tensor accounted for, or told by name."""

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import regard
from regard.errors import RegardError
from regard.export.hugging_face import config_values
from regard.language_model import LanguageModel
from regard.models.gpt import GPT, GPTConfig
from regard.models.pretrained.folder import load_own
from regard.models.pretrained.gpt_weights import ARCHITECTURES, Unknown, config_of, parts
from regard.models.rotary import RotaryConfig

IDS = torch.tensor([[1, 5, 70, 8, 8, 3, 90, 2]])


@pytest.fixture
def copied(tmp_path):
    """A folder that may be changed: settings of config.json, and the tensors."""

    def copy(source, change=lambda tensors: None, **settings):
        values = json.loads((source / "config.json").read_text()) | settings
        (tmp_path / "config.json").write_text(json.dumps(values))
        tensors = load_file(source / "model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path

    return copy


def own(folder, dtype=torch.float32):
    found = load_own(folder, dtype=dtype)
    assert found is not None
    return found[0]


@torch.no_grad()
def logits(module):
    return module(IDS).logits


def test_every_tensor_of_a_family_is_a_parameter_and_every_parameter_is_loaded(pair):
    names = {name for part in parts(pair.ours) for name in part.theirs}
    assert names == set(load_file(pair.folder / "model.safetensors"))
    assert {part.ours for part in parts(pair.ours)} == {name for name, _ in pair.ours.named_parameters()}
    assert not any(parameter.is_meta for parameter in pair.ours.parameters())
    assert not pair.ours.training


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_a_configuration_leaves_out_is_what_transformers_takes(name):
    """Of files that were written by others than save_pretrained."""
    theirs = getattr(transformers, name).config_class()
    whole = theirs.to_dict() | {"architectures": [name]}
    bare = {"architectures": [name], "vocab_size": 7}
    ours, wanted = (config_of(values) for values in (bare, whole))
    assert dataclasses.replace(ours, head_dim=ours.size_of_head) == dataclasses.replace(
        wanted, head_dim=wanted.size_of_head
    )


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
def test_every_tensor_that_is_missing_is_named(family, copied, name):
    folder = family(name).folder
    for tensor in load_file(folder / "model.safetensors"):
        with pytest.raises(RegardError, match=f"lacks {tensor}; fetch the folder again"):
            own(copied(folder, lambda tensors, tensor=tensor: tensors.pop(tensor)))


@pytest.mark.parametrize("name", ["gpt2", "llama-attention-bias", "qwen3"])
def test_every_tensor_of_another_shape_is_named(family, copied, name):
    folder = family(name).folder
    for tensor, values in load_file(folder / "model.safetensors").items():
        longer = torch.cat([values, values[:1]])
        with pytest.raises(RegardError) as told:
            own(copied(folder, lambda tensors, tensor=tensor, longer=longer: tensors.update({tensor: longer})))
        assert tensor in str(told.value)
        assert str(list(longer.shape)) in str(told.value)


def test_surplus_tensors_are_named_and_so_many_are_counted(family, copied):
    more = {f"model.extra.{index}": torch.zeros(1) for index in range(5)}
    with pytest.raises(RegardError, match=r"has model.extra.0, which is no part.*extra.2.*and 2 more; fetch"):
        own(copied(family("llama").folder, lambda tensors: tensors.update(more)))


def test_tables_that_are_no_weights_are_left_out(family, copied):
    tables = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.0.attn.masked_bias": torch.zeros(1)}
    module = own(copied(family("gpt2").folder, lambda tensors: tensors.update(tables)))
    assert torch.equal(logits(module), logits(family("gpt2").ours))


def test_swapped_projections_of_one_whole_are_told(family, copied):
    """Query and key together have as many rows either way."""

    def swap(tensors):
        q, k = (f"model.layers.1.self_attn.{name}_proj.weight" for name in "qk")
        tensors[q], tensors[k] = tensors[k], tensors[q]

    with pytest.raises(RegardError, match=r"layers.1.self_attn.q_proj.weight"):
        own(copied(family("llama").folder, swap))


def test_a_tied_head_may_be_there_but_not_another_one(family, copied):
    folder = family("llama-tied").folder

    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    assert torch.equal(logits(own(copied(folder, add))), logits(family("llama-tied").ours))
    with pytest.raises(RegardError, match=r"lm_head.weight is not the embedding"):
        own(copied(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(97, 24)})))


def test_a_model_that_was_saved_without_its_head_is_read(family, tmp_path):
    pair = family("llama-tied")
    pair.theirs.model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert torch.equal(logits(own(tmp_path)), logits(pair.ours))


def test_whole_numbers_are_no_weights(family, copied):
    name = "model.layers.0.mlp.down_proj.weight"
    with pytest.raises(RegardError, match=f"{name} as int8, no floating-point numbers"):
        own(copied(family("llama").folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)})))


def test_weights_are_cast_as_asked(pair):
    module = own(pair.folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, pair.ours.get_parameter(name).bfloat16())


@pytest.mark.parametrize("name", ["gpt2", "smollm2"])
def test_weights_in_several_files_are_one_model(family, tmp_path, name):
    pair = family(name)
    pair.theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert torch.equal(logits(own(tmp_path)), logits(pair.ours))
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    for name in ("../../x.safetensors", "../model-00001-of-00009.safetensors", "/etc/x.safetensors", "a.bin", 3):
        index.write_text(json.dumps(values | {"weight_map": values["weight_map"] | {"model.norm.weight": name}}))
        with pytest.raises(RegardError, match=r"must name .safetensors files of the folder"):
            own(tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and the weights have"),
        ({"num_hidden_layers": 4}, "lacks model.layers.3.input_layernorm.weight"),
        ({"num_hidden_layers": 2}, "has model.layers.2.* no part of the model"),
        ({"hidden_size": -1}, "hidden_size is -1, which must be a whole number of reasonable size"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000, which must be"),
        ({"hidden_size": 1 << 23}, r"not \[97, 8388608\]"),
        ({"hidden_size": "24"}, "hidden_size is '24'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 key/value heads"),
        ({"vocab_size": 96}, r"has model.embed_tokens.weight of shape \[97, 24\], not \[96, 24\]"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0, which must be a whole number of positions"),
        ({"max_position_embeddings": 10**30}, "max_position_embeddings is 1000000000000000000000000000000"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', which must be a number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"head_dim": 5}, "turn pairs of numbers, and a head has 5"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is None"),
        ({"rope_parameters": [1]}, r"its rotary settings are \[1\], which must be a table"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor is None"),
    ],
)
def test_a_configuration_without_sense_is_refused_before_anything_is_made(family, copied, settings, says):
    with pytest.raises(RegardError, match=says):
        own(copied(family("llama").folder, **settings))


def test_room_is_made_for_the_text_and_not_for_the_longest_there_could_be(family, copied):
    """Angles of a billion positions would fill gigabytes."""
    module = own(copied(family("llama").folder, max_position_embeddings=10**9))
    torch.testing.assert_close(logits(module), logits(family("llama").ours))
    assert len(module._angles[0]) < 1 << 12


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10_000.0}}),
        ("llama", {"hidden_act": "gelu"}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "layer_types": None}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ],
)
def test_a_setting_that_is_not_known_goes_to_transformers_and_is_told(family, copied, name, settings, caplog):
    folder = copied(family(name).folder, **settings)
    with pytest.raises(Unknown, match=r"config.json: .*not known here"):
        own(folder)
    with caplog.at_level("INFO", logger="regard"):
        model = regard.load(folder)
    assert model.library == "transformers"
    assert "it runs in transformers" in caplog.text
    with pytest.raises(RegardError, match="not known here"):
        regard.load(folder, library="regard")


def test_an_unknown_architecture_goes_to_transformers(tmp_path):
    sizes = {"vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4}
    config = transformers.GPTNeoXConfig(**sizes, num_hidden_layers=1)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    assert load_own(tmp_path, dtype=torch.float32) is None
    assert regard.load(tmp_path).library == "transformers"
    with pytest.raises(RegardError, match="no model of its own for this architecture"):
        regard.load(tmp_path, library="regard")


def test_a_folder_that_was_exported_is_the_model(pair, tmp_path):
    model = regard.load(pair.folder)
    model.export("hf", tmp_path / "made")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not any(info.values())
    # Mistral without its window is Llama
    assert type(theirs) is type(pair.theirs) or pair.ours.config.window is None
    found, wanted = logits(theirs), logits(pair.ours)
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    again = regard.load(tmp_path / "made")
    assert torch.equal(logits(again.module), wanted)
    with pytest.raises(RegardError, match="made exists already"):
        model.export("hf", tmp_path / "made")


@pytest.mark.parametrize("bias", ["bias", "query_key_value_bias", "feed_forward_bias"])
def test_what_gpt2_has_and_a_model_lacks_is_exported_as_nothing(tmp_path, bias):
    torch.manual_seed(0)
    config = GPTConfig(model_dim=16, num_heads=2, num_layers=2, feed_forward_dim=20, max_length=12, **{bias: False})
    module = GPT(config, 97).eval()
    LanguageModel(module, None, name="tiny", device=torch.device("cpu")).export("hf", tmp_path / "made")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not any(info.values())
    assert isinstance(theirs, transformers.GPT2LMHeadModel)
    found, wanted = logits(theirs), logits(module)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "rms"},
        {"positions": "rotary"},
        {"num_key_value_heads": 2},
        {"window": 4},
        {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "query_key_norm": True, "window": 4},
    ],
)
def test_a_model_that_transformers_has_not_is_not_exported(settings):
    with pytest.raises(RegardError, match="transformers has no model with"):
        config_values(GPTConfig(**settings), 97)


@pytest.mark.parametrize("scaling", [{}, {"scaling": "linear", "factor": 2.0}, {"scaling": "llama3", "factor": 8.0}])
def test_what_is_written_of_a_configuration_reads_as_it_was(scaling):
    parts = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "bias": False}
    config = GPTConfig(**parts, rotary=RotaryConfig(base=700.0, **scaling))
    again = config_of(config_values(config, 97))
    assert again.rotary == config.rotary
    assert not again.bias
    assert config_values(again, 97) == config_values(config, 97)
