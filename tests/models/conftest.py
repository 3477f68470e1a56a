"""Tiny language models of every family, with random weights, in transformers and in Regard."""

import functools
from types import SimpleNamespace

import pytest
import torch

SIZES = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}
# by name: what transformers calls it, and its settings over the sizes
FAMILIES = {
    "gpt2": ("GPT2", {"n_inner": 36}),
    "gpt2-untied": ("GPT2", {"tie_word_embeddings": False}),
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-linear": ("Llama", {"rope_parameters": LINEAR}),
    "llama-llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-attention-bias": ("Llama", {"attention_bias": True}),
    "llama-mlp-bias": ("Llama", {"mlp_bias": True}),
    "llama-wide-heads": ("Llama", {"head_dim": 10, "num_key_value_heads": 1}),
    "smollm2": ("Llama", {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "mistral-whole": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
}
GPT2_SIZES = {"vocab_size": 97, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 96}


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """By its name: `folder`, and the module of transformers, `theirs`, and of Regard, `ours`, that it holds."""
    import transformers

    from regard.models.pretrained.folder import load_own

    def make(name):
        kind, settings = FAMILIES[name]
        sizes = GPT2_SIZES if kind == "GPT2" else SIZES
        config = getattr(transformers, f"{kind}Config")(**{**sizes, **settings})
        architecture = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")
        torch.manual_seed(11)
        theirs = architecture(config).eval()
        # far from what they begin with, so that biases and norms that change places are seen
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.25 + (parameter.dim() == 1) * 0.5)
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        own = load_own(folder, dtype=torch.float32)
        assert own is not None
        return SimpleNamespace(folder=folder, theirs=theirs, ours=own[0])

    return functools.cache(make)


@pytest.fixture(scope="session", params=FAMILIES)
def pair(request, family):
    return family(request.param)
