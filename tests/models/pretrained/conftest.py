"""Tiny models with random weights, as the folders and GGUF files that users bring."""

from types import MappingProxyType

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    "phi3": (Phi3Config, Phi3ForCausalLM),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM),
}
# both kinds of layers, a window that the tests' texts do not fit into, and heads of their own size
FAMILY_SIZES = {
    "gemma2": {"num_hidden_layers": 3, "sliding_window": 3, "head_dim": 12, "query_pre_attn_scalar": 12},
    "phi3": {"pad_token_id": None, "sliding_window": 3},
    "smollm3": {"num_hidden_layers": 5, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2},
    "gemma3": {"num_hidden_layers": 7, "sliding_window": 3, "head_dim": 12, "query_pre_attn_scalar": 12},
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
# how llama.cpp names what Hugging Face calls so
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
}
GEMMA_NAMES = GGUF_NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, family: str = "llama") -> str:
    names = GEMMA_NAMES if family.startswith("gemma") else GGUF_NAMES
    stem, suffix = name.rsplit(".", 1)
    if stem in names:
        return f"{names[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{names[part]}.{suffix}"


def byte_level_vocabulary():
    """Special tokens, all bytes, and a few merges."""
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello"), ("1", "2")]
    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)], merges


@pytest.fixture
def module():
    """A random model of a family."""

    def make(family="llama", **settings):
        config, architecture = FAMILIES[family]
        torch.manual_seed(7)
        made = architecture(config(**SIZES | FAMILY_SIZES.get(family, {}) | settings)).eval()
        # so that biases and norms that change places are seen
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        return made

    return make


@pytest.fixture
def tokenizer():
    tokens, merges = byte_level_vocabulary()
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2], chat_template=TEMPLATE
    )


@pytest.fixture
def llama_folder(tmp_path, module, tokenizer):
    folder = tmp_path / "tiny"
    module().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_gguf(tmp_path):
    """Writes a model as llama.cpp's converter does, with gguf's own writer; `metadata` are changes to what it says."""

    def write(
        module,
        *,
        family="llama",
        pre="gpt-2",
        quantize=(),
        name="tiny.gguf",
        skip=(),
        pieces=(),
        defined=(),
        tensors=MappingProxyType({}),
        **metadata,
    ):
        config = module.config
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, family)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        rotary = config.rope_parameters
        writer.add_rope_freq_base(rotary.get("full_attention", rotary)["rope_theta"])
        if family == "qwen3":
            writer.add_key_length(config.head_dim)
            writer.add_rope_dimension_count(config.head_dim)
        if family.startswith("gemma"):
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        if family.startswith(("gemma", "phi3")):
            writer.add_sliding_window(config.sliding_window)
        if family == "gemma2":
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
        for tensor, values in tensors.items():
            writer.add_tensor(tensor, np.array(values, dtype=np.float32))
        if pieces:
            # SentencePiece: unknown, begin and end, all bytes, the pieces, the likeliest last, and those of the user
            writer.add_tokenizer_model("llama")
            bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
            writer.add_token_list(["<unk>", "<s>", "</s>", *bytes_, *pieces, *defined])
            writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(pieces), *[4] * len(defined)])
            scores = [0.0] * 259 + [float(index - len(pieces)) for index in range(len(pieces))]
            writer.add_token_scores([*scores, *[-1000.0] * len(defined)])
            writer.add_unk_token_id(0)
        else:
            tokens, merges = byte_level_vocabulary()
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(pre)
            writer.add_token_list(tokens)
            writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
            writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(TEMPLATE)
        for key, value in metadata.items():
            add = {str: writer.add_string, bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32}
            add[type(value)](key.replace("__", "."), value)
        for name, parameter in module.named_parameters():
            values = parameter.detach()
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
                name.split(".")[-2]
            )
            if family in ("llama", "smollm3") and heads:
                # permute() of llama.cpp's convert_hf_to_gguf.py
                values = values.view(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
            if family.startswith("gemma") and "norm" in name:
                # norm_shift() of llama.cpp's convert_hf_to_gguf.py
                values = values + 1
            values = values.contiguous().numpy()
            theirs = gguf_name(name, family)
            if theirs in skip:
                continue
            if theirs in quantize:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(theirs, gguf.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(theirs, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
