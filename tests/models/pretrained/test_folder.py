"""Hugging Face folders: loaded as transformers loads them, or refused; nothing in them is run."""

import json
import struct
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BambaConfig,
    BambaForCausalLM,
    BertConfig,
    BertForMaskedLM,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from regard.errors import RegardError
from regard.models.pretrained.folder import load_folder, load_own

IDS = torch.tensor([[1, 5, 70, 8]])


def load(folder, dtype=torch.float32):
    return load_folder(folder, dtype=dtype)


def change(path, **settings):
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | settings))


def test_a_folder_gives_the_model_that_transformers_gives(llama_folder):
    module, tokenizer = load(llama_folder)
    theirs = LlamaForCausalLM.from_pretrained(llama_folder)
    assert torch.equal(module(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    assert not module.training
    assert module.config._attn_implementation == "sdpa"
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert tokenizer("hello")["input_ids"]


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_encoders_are_loaded_as_their_configuration_names_them(tmp_path, kind):
    sizes = {
        "vocab_size": 40,
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 20,
    }
    if kind == "encoder":
        model = BertForMaskedLM(BertConfig(**sizes))
    else:
        model = T5ForConditionalGeneration(
            T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=20, num_layers=2, num_heads=2)
        )
    model.save_pretrained(tmp_path)
    found, tokenizer = load(tmp_path)
    assert type(found) is type(model)
    assert tokenizer is None
    for (name, ours), (_, theirs) in zip(found.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_weights_in_several_files_are_one_model(llama_folder):
    whole, _ = load(llama_folder)
    tensors = load_file(llama_folder / "model.safetensors")
    (llama_folder / "model.safetensors").unlink()
    names = {name: f"model-{1 + index % 2}.safetensors" for index, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == file}, llama_folder / file)
    index = llama_folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    found, _ = load(llama_folder)
    assert torch.equal(found(input_ids=IDS).logits, whole(input_ids=IDS).logits)
    change(index, weight_map=dict.fromkeys(names, "../model.safetensors"))
    with pytest.raises(RegardError, match=r"must name .safetensors files of the folder"):
        load(llama_folder)
    change(index, weight_map=dict.fromkeys(names, "model-3.safetensors"))
    with pytest.raises(RegardError, match=r"model-3.safetensors: there is no such file"):
        load(llama_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_weights_that_may_hold_code_are_refused_unread(llama_folder, name):
    (llama_folder / "model.safetensors").unlink()
    (llama_folder / name).write_bytes(b"no pickle at all")
    with pytest.raises(RegardError, match=f"only in {name}, which may hold code.*save_pretrained"):
        load(llama_folder)
    (llama_folder / name).unlink()
    with pytest.raises(RegardError, match=r"holds no model.safetensors"):
        load(llama_folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_never_run(llama_folder, file):
    (llama_folder / "modeling_mine.py").write_text("open('ran', 'w').close()")
    change(llama_folder / file, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    with pytest.raises(RegardError, match=f"{file}: auto_map asks to run code"):
        load(llama_folder)
    assert not list(llama_folder.rglob("ran"))


def test_weights_that_are_missing_are_named_and_never_made_up(llama_folder):
    path = llama_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(47, 32)
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    save_file(tensors, path)
    with pytest.raises(
        RegardError,
        match=r"lacks model.layers.1.self_attn.q_proj.weight, has model.layers.0.mlp.up_proj.weight of shape "
        r"\[47, 32\], not \[48, 32\]",
    ):
        load(llama_folder)


def test_a_tied_weight_is_not_missing(tmp_path, module):
    model = module(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    found, _ = load(tmp_path)
    assert torch.equal(found(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_weights_without_a_place_are_told(llama_folder, caplog):
    path = llama_folder / "model.safetensors"
    save_file(load_file(path) | {"model.extra.weight": torch.zeros(1)}, path)
    load(llama_folder)
    assert "model.extra.weight" in caplog.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "must hold a table"),
        ("{}", "names no architecture"),
        ('{"architectures": ["MineForCausalLM"]}', "has no model 'MineForCausalLM'"),
        ('{"architectures": ["AutoModel"]}', "has no model 'AutoModel'"),
        ('{"architectures": ["utils"]}', "has no model 'utils'"),
        ('{"architectures": ["LlamaForCausalLM"], "hidden_size": "x"}', "cannot make LlamaForCausalLM"),
        ('{"architectures": ["LlamaForCausalLM"], "hidden_size": 0}', "LlamaForCausalLM"),
        ('{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1000000000}', "num_hidden_layers is 1000000000"),
        ('{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "vocab_size": 900000000000}', "parameters"),
    ],
)
def test_a_bad_configuration_is_told_at_once(llama_folder, content, says):
    path = llama_folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    started = time.monotonic()
    with pytest.raises(RegardError, match=says):
        load(llama_folder)
    assert time.monotonic() - started < 10


SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
VISION = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
# tables of text as long as this would not fit into any memory
FOR_EVER = 10**12


def qwen2_vl(**settings):
    text = SMALL | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
    ids = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text | settings, vision_config=VISION, **ids))


def gemma3n():
    unlike = {
        "layer_types": ["full_attention"] * 2,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0] * 2,
    }
    per_layer = {"hidden_size_per_layer_input": 300, "vocab_size_per_layer_input": 500}
    return Gemma3nForCausalLM(Gemma3nTextConfig(**SMALL | unlike | per_layer, laurel_rank=4))


GOOD = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen2, no layer with a window": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, max_window_layers=FOR_EVER)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    "qwen2-moe": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**SMALL, num_experts=4, moe_intermediate_size=8, shared_expert_intermediate_size=8)
    ),
    "qwen2-vl": qwen2_vl,
    "qwen2-vl, no layer with a window": lambda: qwen2_vl(max_window_layers=FOR_EVER),
    "layers that share their weights": lambda: AlbertForMaskedLM(
        AlbertConfig(**SMALL | {"num_hidden_layers": 60}, embedding_size=16)
    ),
    "sizes of each layer": gemma3n,
    "long texts": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8, max_position_embeddings=FOR_EVER)),
    "a wide window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=FOR_EVER)),
    "an infinite limit": lambda: BambaForCausalLM(
        BambaConfig(**SMALL, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1)
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_settings_that_allocate_nothing_may_be_as_large_as_they_like(tmp_path, name):
    theirs = GOOD[name]().eval()
    theirs.save_pretrained(tmp_path)
    wanted = theirs(input_ids=IDS).logits
    module, _ = load(tmp_path)
    assert torch.equal(module(input_ids=IDS).logits, wanted)
    if (found := load_own(tmp_path, dtype=torch.float32)) is not None:
        torch.testing.assert_close(found[0](IDS).logits, wanted)


def test_a_token_of_number_minus_one_is_none(llama_folder):
    change(llama_folder / "generation_config.json", pad_token_id=-1, eos_token_id=[2, 3], forced_eos_token_id=[2, 3])
    found = load(llama_folder)[0].generation_config
    assert (found.pad_token_id, found.eos_token_id, found.forced_eos_token_id) == (None, [2, 3], [2, 3])
    change(llama_folder / "generation_config.json", eos_token_id=[2, -3])
    with pytest.raises(RegardError, match=r"eos_token_id is \[2, -3\], which must be a token's number"):
        load(llama_folder)


def swin():
    return SwinForImageClassification(
        SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2)
    )


@pytest.mark.parametrize(
    ("make", "part", "settings", "says"),
    [
        (GOOD["qwen2"], None, {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        # few enough to be listed, too many to be built
        (GOOD["qwen2"], None, {"num_hidden_layers": 50_000, "layer_types": None}, "far more layers than the weights"),
        (GOOD["qwen2"], None, {"num_labels": 10**9}, "num_labels is 1000000000"),
        (GOOD["qwen2-vl"], "text_config", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        (GOOD["qwen2-vl"], "vision_config", {"depth": 10**9}, "depth is 1000000000"),
        (GOOD["qwen2-vl"], "vision_config", {"depth": 50_000}, "far more layers than the weights have tensors"),
        (swin, None, {"depths": [1, 10**9]}, r"depths is \[1, 1000000000\]"),
    ],
)
@pytest.mark.parametrize("loads", [load_folder, load_own])
def test_settings_that_would_build_for_ever_are_refused_at_once(tmp_path, loads, make, part, settings, says):
    make().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (values if part is None else values[part]).update(settings)
    (tmp_path / "config.json").write_text(json.dumps(values))
    started = time.monotonic()
    if loads is load_own and "Qwen2ForCausalLM" not in values["architectures"]:
        assert load_own(tmp_path, dtype=torch.float32) is None
    else:
        with pytest.raises(RegardError, match=says):
            loads(tmp_path, dtype=torch.float32)
    assert time.monotonic() - started < 10
    assert torch.is_grad_enabled()


def test_a_part_without_the_implementation_of_the_whole_keeps_its_own(tmp_path):
    from benchmarks.zoo import ARCHITECTURES

    ARCHITECTURES["detr"].build().save_pretrained(tmp_path)
    module, _ = load(tmp_path)
    assert module.config._attn_implementation == "sdpa"
    assert module.config.backbone_config._attn_implementation == "eager"


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, shape: list[int]) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        safetensors({}, length=1 << 62),
        safetensors({}, length=99_000_000),
        safetensors(b"not json"),
        safetensors({"a": entry(0, 16, [4])}, b"\0" * 8),
        safetensors({"a": entry(0, 16, [1 << 40, 1 << 40])}, b"\0" * 16),
        safetensors({"a": entry(0, 16, [4]), "b": entry(8, 24, [4])}, b"\0" * 24),
        safetensors({"a": entry(0, 16, [8])}, b"\0" * 16),
        safetensors({"a": entry(16, 0, [4])}, b"\0" * 16),
    ],
    ids=[
        "empty",
        "cut",
        "long header",
        "header over 99 MB",
        "no JSON",
        "past the end",
        "huge",
        "overlap",
        "shape",
        "back",
    ],
)
def test_a_crafted_weights_file_is_refused_at_once(llama_folder, data):
    (llama_folder / "model.safetensors").write_bytes(data)
    started = time.monotonic()
    with pytest.raises(RegardError, match=r"model.safetensors: not a readable safetensors file"):
        load(llama_folder)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["b", "c"]]}}']
)
def test_a_bad_tokenizer_is_told(llama_folder, content):
    (llama_folder / "tokenizer.json").write_text(content)
    with pytest.raises(RegardError, match="cannot read its tokenizer"):
        load(llama_folder)


def test_loading_writes_nothing_on_the_screen_and_leaves_transformers_as_it_was(llama_folder, capfd):
    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    load(llama_folder)
    assert capfd.readouterr() == ("", "")
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == before
