"""A language model as a folder that `AutoModelForCausalLM` of transformers loads, with the same logits."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from regard.errors import RegardError
from regard.files import check_new_folder, new_folder
from regard.models.gpt import GPT, GPTConfig
from regard.models.pretrained.folder import CONFIG, GENERATION_CONFIG, WEIGHTS, load_folder
from regard.models.pretrained.gpt_weights import config_of, weights
from regard.models.pretrained.needs import quiet
from regard.models.rotary import RotaryConfig

# of the largest logit; weights in bfloat16 are compared as float32 ones
TOLERANCE = 1e-4
CHECKED_TOKENS = 64
MODEL_TYPES = {
    "GPT2LMHeadModel": "gpt2",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


def export(module: GPT, tokenizer: Any, folder: Path, *, name: str, ends: frozenset[int]) -> None:
    """Write configuration, weights, tokenizer, and a README.md that tells how to use them.

    The folder appears once transformers has loaded it and given the same logits.
    Raises RegardError for a model that is none of transformers', and if the folder is not empty.
    """
    check_new_folder(folder)
    values = config_values(module.config, len(module.embedding.weight))
    tensors = weights(module)
    dtype = module.norm.weight.dtype
    values |= {"dtype": str(dtype).removeprefix("torch.")}
    if ends:
        values["eos_token_id"] = sorted(ends)
    with new_folder(folder) as made:
        (made / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        ended = {"eos_token_id": sorted(ends)} if ends else {}
        (made / GENERATION_CONFIG).write_text(json.dumps(ended, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, made / WEIGHTS, metadata={"format": "pt"})
        if hasattr(tokenizer, "save_pretrained"):
            with quiet():
                tokenizer.save_pretrained(str(made))
        elif tokenizer is not None:
            tokenizer.save(made / "tokenizer.json")
        check_logits(module, load_folder(made, dtype=torch.float32)[0], name)
        (made / "README.md").write_text(_card(name, has_tokenizer=tokenizer is not None), encoding="utf-8")


def config_values(config: GPTConfig, vocab_size: int) -> dict[str, Any]:
    """A config.json. Raises RegardError for a model that is none of transformers'."""
    name = _architecture(config)
    shared = {
        "architectures": [name],
        "model_type": MODEL_TYPES[name],
        "vocab_size": vocab_size,
        "tie_word_embeddings": config.tied_embeddings,
        # whoever asks for them by name shall find none, rather than those of the family
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if name == "GPT2LMHeadModel":
        values = shared | {
            "n_embd": config.model_dim,
            "n_head": config.num_heads,
            "n_layer": config.num_layers,
            "n_inner": config.feed_forward_dim,
            "n_positions": config.max_length,
            "layer_norm_epsilon": config.norm_epsilon,
            "activation_function": "gelu" if config.feed_forward == "gelu_exact" else "gelu_new",
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        }
    else:
        values = shared | {
            "hidden_size": config.model_dim,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.key_value_heads,
            "head_dim": config.size_of_head,
            "num_hidden_layers": config.num_layers,
            "intermediate_size": config.feed_forward_dim,
            "max_position_embeddings": config.max_length,
            "rms_norm_eps": config.norm_epsilon,
            "hidden_act": "silu",
            "attention_bias": config.bias,
            "mlp_bias": config.bias if config.feed_forward_bias is None else config.feed_forward_bias,
            "sliding_window": config.window,
            **_rotary_values(config.rotary),
        }
    # what training alone knows of is not part of the model
    apart = {"dropout", "checkpoint_activations"}
    if name == "GPT2LMHeadModel":
        # what it lacks is written as zeros
        apart |= {"bias", "query_key_value_bias", "feed_forward_bias"}
    ours, theirs = (_told(each) for each in (config, config_of(values)))
    if differing := [key for key in ours if key not in apart and ours[key] != theirs[key]]:
        settings = ", ".join(f"{key} = {ours[key]!r}" for key in differing)
        raise RegardError(f"transformers has no model with {settings} beside the other settings of this one")
    return values


def _told(config: GPTConfig) -> dict[str, Any]:
    """Settings with what stands for another spelt out."""
    default = {
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.size_of_head,
        "query_key_value_bias": config.bias if config.query_key_value_bias is None else config.query_key_value_bias,
        "feed_forward_bias": config.bias if config.feed_forward_bias is None else config.feed_forward_bias,
    }
    # without rotary positions their settings say nothing
    return vars(config) | default | ({} if config.positions == "rotary" else {"rotary": None})


def _architecture(config: GPTConfig) -> str:
    if config.positions == "learned":
        return "GPT2LMHeadModel"
    if config.query_key_norm:
        return "Qwen3ForCausalLM"
    if config.query_key_value_bias and not config.bias:
        return "Qwen2ForCausalLM"
    return "LlamaForCausalLM" if config.window is None else "MistralForCausalLM"


def _rotary_values(rotary: RotaryConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"rope_type": "default" if rotary.scaling == "none" else rotary.scaling}
    if rotary.scaling != "none":
        values["factor"] = rotary.factor
    if rotary.scaling == "llama3":
        values |= {
            "low_freq_factor": rotary.low_frequency_factor,
            "high_freq_factor": rotary.high_frequency_factor,
            "original_max_position_embeddings": rotary.original_length,
        }
    # older releases of transformers look for them where they used to stand
    scaling = {} if rotary.scaling == "none" else {"rope_scaling": dict(values)}
    return {"rope_parameters": {**values, "rope_theta": rotary.base}, "rope_theta": rotary.base, **scaling}


@torch.inference_mode()
def check_logits(module: GPT, theirs: Any, name: str) -> None:
    """Raises RegardError where a module of transformers gives other logits than Regard's own."""
    ours = GPT(module.config, len(module.embedding.weight))
    ours.load_state_dict(module.state_dict())
    length = min(CHECKED_TOKENS, module.config.max_length)
    tokens = torch.randint(len(module.embedding.weight), (1, length), generator=torch.Generator().manual_seed(0))
    logits, other = ours.eval()(tokens).logits, theirs(input_ids=tokens).logits
    error = float((logits - other).abs().max() / logits.abs().max())
    if not error <= TOLERANCE:
        raise RegardError(
            f"transformers gives other logits than Regard for {name}, by {error:.1e} of the largest, so that nothing "
            "was exported; install the transformers that constraints.txt names"
        )


def _card(name: str, *, has_tokenizer: bool) -> str:
    tokenizer = '\ntokenizer = AutoTokenizer.from_pretrained(".")' if has_tokenizer else ""
    imported = "AutoModelForCausalLM, AutoTokenizer" if has_tokenizer else "AutoModelForCausalLM"
    return f"""# {name}, for transformers

Written by Regard, and checked then: transformers gives the same logits.

`pip install transformers`, then, in this folder:

```python
from transformers import {imported}

model = AutoModelForCausalLM.from_pretrained("."){tokenizer}
```
"""
