"""Adapters go both ways between peft and Regard, give the same logits merged and apart, and leave the base alone."""

import json

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

import regard
from regard.errors import RegardError
from regard.models.pretrained.folder import load_folder, load_own
from regard.models.pretrained.lora import read_adapter
from regard.training.lora import LoRAConfig, add_adapters, save_adapters

# peft asks transformers by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
IDS = torch.tensor([[1, 5, 70, 8, 8, 3, 90, 2]])
FAMILIES = ["gpt2", "llama", "smollm2", "qwen2", "qwen3", "llama-wide-heads"]


@torch.no_grad()
def logits(module):
    return module(IDS).logits


def own(folder, **settings):
    found = load_own(folder, dtype=torch.float32, **settings)
    assert found is not None
    return found[0]


def randomise(module):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)


def close(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def trained(folder, tmp_path, *, base=None, **settings):
    """Regard's own model with adapters that are not what they began as, and the folder they are saved in."""
    module, config = own(folder), LoRAConfig(rank=3, alpha=5.0, **settings)
    add_adapters(module, config)
    randomise(module)
    save_adapters(module, config, tmp_path, base=str(folder) if base is None else base)
    return module.eval()


def of_peft(theirs, tmp_path, **settings):
    """A model of transformers with adapters of peft's own."""
    settings = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", **settings}
    model = peft.get_peft_model(theirs, peft.LoraConfig(**settings))
    randomise(model)
    # or peft asks the hub whether it knows of other embeddings
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_peft_loads_what_was_trained_here_onto_transformers_with_the_same_logits(family, tmp_path, name):
    pair = family(name)
    before = logits(pair.ours)
    module = trained(pair.folder, tmp_path)
    theirs = peft.PeftModel.from_pretrained(load_folder(pair.folder, dtype=torch.float32)[0], tmp_path)
    assert close(logits(theirs), logits(module))
    assert not close(logits(module), before)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("library", ["regard", "transformers"])
def test_merged_weights_give_the_logits_of_the_adapters_in_either_library(family, tmp_path, name, library):
    pair = family(name)
    module = trained(pair.folder, tmp_path)
    files = {path: path.read_bytes() for path in pair.folder.iterdir()}
    assert close(logits(regard.load(tmp_path, library=library).module), logits(module))
    assert {path: path.read_bytes() for path in pair.folder.iterdir()} == files


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"]}),
        ("smollm2", {"target_modules": ["q_proj", "up_proj", "down_proj"], "use_rslora": True}),
        (
            "qwen2",
            {
                "target_modules": "all-linear",
                "rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.k_proj": 1},
                "alpha_pattern": {"mlp.up_proj": 3, "k_proj": 1},
            },
        ),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("gpt2-untied", {"target_modules": "all-linear", "fan_in_fan_out": True, "init_lora_weights": "gaussian"}),
    ],
)
def test_what_peft_made_is_merged_with_the_same_logits(family, tmp_path, name, settings):
    pair = family(name)
    theirs = of_peft(load_folder(pair.folder, dtype=torch.float32)[0], tmp_path, **settings)
    for library in ("regard", "transformers"):
        found = regard.load(pair.folder, adapter=tmp_path, library=library)
        assert close(logits(found.module), logits(theirs))


def test_with_the_adapters_off_the_model_is_the_base_bit_for_bit(family, tmp_path):
    pair = family("smollm2")
    module = trained(pair.folder, tmp_path)
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(False)
    assert torch.equal(logits(module), logits(pair.ours))
    assert torch.equal(logits(regard.load(pair.folder).module), logits(pair.ours))


def test_adapters_that_have_learned_nothing_add_nothing_and_are_all_that_is_trained(family):
    pair = family("qwen2")
    module = own(pair.folder)
    add_adapters(module, LoRAConfig(rank=2))
    assert torch.equal(logits(module), logits(pair.ours))
    assert {"lora_" in name for name, each in module.named_parameters() if each.requires_grad} == {True}
    assert sum("lora_A" in name for name, _ in module.named_parameters()) == 4 * module.config.num_layers
    module.train()(IDS).logits.square().sum().backward()
    # what is multiplied by nothing has no part in the loss yet
    learned = {name: bool(each.grad.any()) for name, each in module.named_parameters() if each.grad is not None}
    assert learned
    assert all(any_gradient == ("lora_B" in name) for name, any_gradient in learned.items())


@pytest.mark.parametrize("kind", ["Marian", "T5"])
def test_adapters_of_an_encoder_decoder_go_both_ways(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 16, "vocab_size": 97, "decoder_start_token_id": 0, "pad_token_id": 0}
    if kind == "Marian":
        sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
        sizes |= dict.fromkeys(("encoder_layers", "decoder_layers"), 2)
        sizes |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 24) | {"max_position_embeddings": 32}
        module = transformers.MarianMTModel(transformers.MarianConfig(**sizes, eos_token_id=1))
    else:
        sizes |= {"d_ff": 24, "d_kv": 8, "num_layers": 2, "num_heads": 2}
        module = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    base, folder = tmp_path / "base", tmp_path / "adapter"
    module.eval().save_pretrained(base)
    folder.mkdir()
    add_adapters(module, LoRAConfig(rank=2))
    randomise(module)
    save_adapters(module, LoRAConfig(rank=2), folder, base="../base")
    loaded, _ = load_folder(base, dtype=torch.float32)
    merged, _ = load_folder(base, dtype=torch.float32, adapters=[read_adapter(folder)])
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}
    with torch.no_grad():
        wanted = module(**inputs).logits
        assert close(merged(**inputs).logits, wanted)
        assert not close(loaded(**inputs).logits, wanted)
        assert close(peft.PeftModel.from_pretrained(loaded, folder)(**inputs).logits, wanted)


@pytest.mark.parametrize("beside", [True, False])
def test_the_base_is_found_beside_the_adapter_or_by_its_path(family, tmp_path, beside):
    pair = family("llama")
    if beside:
        (tmp_path / "base").symlink_to(pair.folder)
    (tmp_path / "adapter").mkdir()
    module = trained(pair.folder, tmp_path / "adapter", base="../base" if beside else None)
    found = regard.load(tmp_path / "adapter")
    assert found.name == "adapter"
    assert close(logits(found.module), logits(module))


def test_in_bfloat16_the_sum_is_rounded_not_its_parts(family, tmp_path):
    pair = family("smollm2")
    trained(pair.folder, tmp_path)
    exact = regard.load(tmp_path).module
    for name, weight in regard.load(tmp_path, dtype="bfloat16").module.named_parameters():
        assert torch.equal(weight, exact.get_parameter(name).bfloat16())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "an adapter of the kind 'IA3', not LORA"),
        ({"use_dora": True}, "use_dora is True, which is not known here"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\], which is not known here"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"of_a_later_release": {"a": 1}}, "of_a_later_release"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', a changed base"),
        ({"r": 4}, "which have no rank 4"),
        ({"rank_pattern": {"up_proj": 2}}, "up_proj has matrices of shape"),
        ({"rank_pattern": 3}, "rank_pattern is 3, which must be a table"),
        ({"alpha_pattern": {"(": 2}}, "no table of patterns"),
        ({"lora_alpha": "many"}, "lora_alpha is 'many', which must be a number"),
        ({"base_model_name_or_path": None}, r"names no base_model_name_or_path; give its base: regard\.load\(BASE"),
        ({"base_model_name_or_path": "./gone"}, r"its base cannot be had: .*gone.*; or give its base"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is 3"),
    ],
)
def test_settings_that_are_not_known_are_refused(family, tmp_path, change, told):
    trained(family("smollm2").folder, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RegardError, match=told):
        regard.load(tmp_path)


def first(tensors, half):
    return next(name for name in tensors if name.endswith(half))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop(first(tensors, "lora_B.weight")), "it lacks base_model.model.model.layers.0"),
        (lambda tensors: tensors.clear(), "it lacks any.lora_A.weight"),
        (
            lambda tensors: tensors.update({"lm_head.weight": torch.ones(2)}),
            "it has lm_head.weight, which is not known",
        ),
        (lambda tensors: tensors[first(tensors, "lora_A.weight")].fill_(torch.nan), "not finite"),
    ],
)
def test_tensors_that_are_no_adapter_are_refused(family, tmp_path, change, told):
    trained(family("smollm2").folder, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(RegardError, match=told):
        regard.load(tmp_path)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("gpt2", r"the base has no model\.layers\.0\.mlp\.down_proj\.weight"),
        ("llama", r"has model\.layers\.0\.mlp\.down_proj\.weight of shape \[24, 40\], not \[36, 40\]"),
    ],
)
@pytest.mark.parametrize("library", ["regard", "transformers"])
def test_an_adapter_for_another_model_is_refused(family, tmp_path, other, told, library):
    trained(family("smollm2").folder, tmp_path)
    with pytest.raises(RegardError, match=f"an adapter for another model: .*{told}"):
        regard.load(family(other).folder, adapter=tmp_path, library=library)


def test_a_pickled_adapter_is_refused(family, tmp_path):
    trained(family("smollm2").folder, tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(RegardError, match="a pickle, which may hold code and is not read"):
        regard.load(tmp_path)


def test_an_adapter_of_an_adapter_is_merged_after_it(family, tmp_path):
    base, one, two, merged = family("smollm2").folder, *(tmp_path / name for name in ("one", "two", "merged"))
    one.mkdir()
    two.mkdir()
    trained(base, one)
    regard.load(one, library="transformers").module.save_pretrained(merged)
    module = trained(merged, two, base="../one")
    assert close(logits(regard.load(two).module), logits(module))


def test_an_adapter_of_itself_is_refused(family, tmp_path):
    trained(family("smollm2").folder, tmp_path, base=".")
    with pytest.raises(RegardError, match="an adapter of an adapter, and so on for ever"):
        regard.load(tmp_path)
