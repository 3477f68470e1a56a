"""Tiny models with random weights, as the folders and GGUF files that users bring."""

import gguf
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
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
}


def gguf_name(name: str) -> str:
    stem, suffix = name.rsplit(".", 1)
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{suffix}"


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
        made = architecture(config(**SIZES, **settings)).eval()
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

    def write(module, *, family="llama", pre="gpt-2", quantize=(), name="tiny.gguf", skip=(), pieces=(), **metadata):
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
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if family == "qwen3":
            writer.add_key_length(config.head_dim)
            writer.add_rope_dimension_count(config.head_dim)
        if pieces:
            # SentencePiece: unknown, begin and end, all bytes, and the pieces, the likeliest last
            writer.add_tokenizer_model("llama")
            writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces])
            writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(pieces)])
            writer.add_token_scores([0.0] * 259 + [float(index - len(pieces)) for index in range(len(pieces))])
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
            key = key.replace("__", ".")
            (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
        for name, parameter in module.named_parameters():
            values = parameter.detach()
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
                name.split(".")[-2]
            )
            if family == "llama" and heads:
                # permute() of llama.cpp's convert_hf_to_gguf.py
                values = values.view(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
            values = values.contiguous().numpy()
            if gguf_name(name) in skip:
                continue
            if gguf_name(name) in quantize:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(gguf_name(name), gguf.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(gguf_name(name), values)
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
