"""The families of language models that GGUF files hold: where each departs from Llama, and its own settings.

What llama.cpp does by a family's name and a file does not say (llama.cpp, src/models) is said here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from regard.errors import RegardError
from regard.models.pretrained.gguf_head import GGUFHead

OTHER_WAY = "load the model's Hugging Face folder instead"
# norms of a block, as llama.cpp and Hugging Face call them
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
GEMMA_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# in Gemma 3, every sixth layer attends to the whole text; the others attend to a window and have this rotary base
GEMMA_PERIOD = 6
GEMMA_LOCAL_BASE = 10000.0
# Gemma 2 of 27 billion parameters, which alone has so many layers, scales its scores otherwise
GEMMA_2_LARGE = 46
# in SmolLM3 every fourth layer has no positions
SMOLLM_PERIOD = 4
# Llama 3.1 and later: which wavelengths are stretched, by the context that the first Llama 3 was trained on
LLAMA_CONTEXT, LOW, HIGH = 8192, 1.0, 4.0
ROPE_FREQS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
FLOAT32 = 0
# some families pad by default with a token that a smaller vocabulary lacks
NO_PADDING = {"pad_token_id": None}


class Metadata:
    """The sizes that stand under the architecture's own name. Raises RegardError."""

    def __init__(self, head: GGUFHead) -> None:
        self.head = head

    def has(self, name: str) -> bool:
        return self._get(name, None) is not None

    def whole(self, name: str, *, default: int | None = None, most: int = 1 << 31) -> int:
        value = self._get(name, default)
        if type(value) is not int or not 0 < value <= most:
            raise self._error(name, f"a whole number from 1 to {most}", value)
        return value

    def positive(self, name: str, *, default: float | None = None) -> float:
        value = self._get(name, default)
        if type(value) is not float or not 0 < value < math.inf:
            raise self._error(name, "a number above 0", value)
        return value

    def factors(self, name: str, count: int) -> list[float] | None:
        """The numbers of a small float32 tensor; None where there is none."""
        if name not in self.head.tensors:
            return None
        tensor = self.head.tensors[name]
        if tensor.kind != FLOAT32 or tensor.shape != (count,):
            raise RegardError(f"{self.head.path}: {name} must be {count} float32 numbers; fetch the file again")
        with tensor.path.open("rb") as file:
            file.seek(tensor.start)
            values = np.frombuffer(file.read(tensor.size), dtype="<f4")
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise RegardError(f"{self.head.path}: {name} must be numbers above 0; fetch the file again")
        return [float(value) for value in values]

    def _get(self, name: str, default: object) -> object:
        return self.head.metadata.get(f"{self.head.metadata.get('general.architecture')}.{name}", default)

    def _error(self, name: str, wanted: str, value: object) -> RegardError:
        return RegardError(f"{self.head.path}: {name} must be {wanted}, not {value!r}; fetch the file again")


class Family(NamedTuple):
    """How Hugging Face calls a family, and where it departs from Llama.

    `norms` are those of a block, to which llama.cpp has `added` a number. `is_fused` says that one matrix holds query,
    key and value, and another both halves of the gated feed-forward layer. `settings` gives what config.json has
    beside Llama's, from metadata whose names begin with `takes` and from the tensors that it `holds`.
    """

    architecture: str
    model_type: str
    is_permuted: bool = False
    has_bias: bool = False
    has_norms: bool = False
    is_fused: bool = False
    norms: Mapping[str, str] = NORMS
    added: int = 0
    settings: Callable[[Metadata, dict[str, Any]], dict[str, Any]] = lambda metadata, config: {}
    takes: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


def rotary(base: float) -> dict[str, Any]:
    """Rotary embeddings as they were published."""
    return {"rope_type": "default", "rope_theta": base}


def _llama(metadata: Metadata, config: dict[str, Any]) -> dict[str, Any]:
    half = config["head_dim"] // 2
    factors = metadata.factors(ROPE_FREQS, half)
    if factors is None:
        return {}
    base = config["rope_parameters"]["rope_theta"]
    scaled = {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": max(factors),
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": LLAMA_CONTEXT,
    }
    # the file has the factor of each frequency, Hugging Face the rule that they follow: it must give the same
    wavelengths = 2 * math.pi * base ** (np.arange(half) / half)
    share = np.clip((LLAMA_CONTEXT / wavelengths - LOW) / (HIGH - LOW), 0, 1)
    if not np.allclose(1 / ((1 - share) / scaled["factor"] + share), factors, rtol=1e-4):
        raise RegardError(f"{metadata.head.path}: {ROPE_FREQS} does not follow the rule of Llama 3; {OTHER_WAY}")
    return {"rope_parameters": scaled}


def _smollm_3(metadata: Metadata, config: dict[str, Any]) -> dict[str, Any]:
    layers = range(1, config["num_hidden_layers"] + 1)
    return {**NO_PADDING, "no_rope_layers": [int(layer % SMOLLM_PERIOD > 0) for layer in layers]}


def _gemma_2(metadata: Metadata, config: dict[str, Any]) -> dict[str, Any]:
    layers = range(config["num_hidden_layers"])
    is_large = config["num_hidden_layers"] == GEMMA_2_LARGE
    per_head = config["hidden_size"] // config["num_attention_heads"]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": per_head if is_large else config["head_dim"],
        "sliding_window": metadata.whole("attention.sliding_window"),
        "layer_types": ["full_attention" if layer % 2 else "sliding_attention" for layer in layers],
        "attn_logit_softcapping": metadata.positive("attn_logit_softcapping"),
        "final_logit_softcapping": metadata.positive("final_logit_softcapping"),
    }


def _gemma_3(metadata: Metadata, config: dict[str, Any]) -> dict[str, Any]:
    layers = range(1, config["num_hidden_layers"] + 1)
    period = metadata.whole("attention.sliding_window_pattern", default=GEMMA_PERIOD)
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        # scores are divided by its square root
        "query_pre_attn_scalar": config["head_dim"],
        "sliding_window": metadata.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if layer % period else "full_attention" for layer in layers],
        "rope_parameters": {
            "full_attention": config["rope_parameters"],
            "sliding_attention": rotary(metadata.positive("rope.freq_base_swa", default=GEMMA_LOCAL_BASE)),
        },
    }


def _phi_3(metadata: Metadata, config: dict[str, Any]) -> dict[str, Any]:
    half = config["head_dim"] // 2
    window = metadata.whole("attention.sliding_window") if metadata.has("attention.sliding_window") else None
    found: dict[str, Any] = {**NO_PADDING, "sliding_window": window}
    long, short = metadata.factors(LONG, half), metadata.factors(SHORT, half)
    if (long is None) != (short is None):
        raise RegardError(f"{metadata.head.path}: it has one of {LONG} and {SHORT}; fetch the file again")
    if long is not None:
        original = metadata.whole("rope.scaling.original_context_length")
        scaled = {
            "rope_type": "longrope",
            "rope_theta": config["rope_parameters"]["rope_theta"],
            "long_factor": long,
            "short_factor": short,
            "original_max_position_embeddings": original,
        }
        if metadata.has("rope.scaling.attn_factor"):
            scaled["attention_factor"] = metadata.positive("rope.scaling.attn_factor")
        found |= {"rope_parameters": scaled, "original_max_position_embeddings": original}
    return found


# by the name that stands in the file; Mistral's files call themselves llama
FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", is_permuted=True, settings=_llama, holds=(ROPE_FREQS,)),
    "smollm3": Family("SmolLM3ForCausalLM", "smollm3", is_permuted=True, settings=_smollm_3),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", has_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", "qwen3", has_norms=True),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        "gemma2",
        norms=GEMMA_NORMS,
        added=1,
        settings=_gemma_2,
        takes=("attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"),
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        "gemma3_text",
        has_norms=True,
        norms=GEMMA_NORMS,
        added=1,
        settings=_gemma_3,
        takes=("attention.sliding_window",),
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        "phi3",
        is_fused=True,
        settings=_phi_3,
        takes=("attention.sliding_window", "rope.scaling.attn_factor", "rope.scaling.original_context_length"),
        holds=(LONG, SHORT),
    ),
}
