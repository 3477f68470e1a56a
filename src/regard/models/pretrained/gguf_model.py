"""A language model of the Llama family or Gemma 3 in a GGUF file, under the names that Hugging Face gives its parts.

llama.cpp writes the rows of Llama's query and key projections in another order than Hugging Face has them, pairs of
rotated features side by side instead of half a head apart, and adds 1 to the norms of Gemma, whose model at Hugging
Face adds it itself; both are undone here.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError
from regard.models.pretrained.gguf_head import GGUFHead, GGUFTensor

OTHER_WAY = "load the model's Hugging Face folder instead"


class Family(NamedTuple):
    """How Hugging Face calls a family, and where it departs from Llama."""

    architecture: str
    model_type: str
    is_permuted: bool = False
    has_bias: bool = False
    has_norms: bool = False
    is_gemma: bool = False


# by the name that stands in the file; Mistral's files call themselves llama
FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", is_permuted=True),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", has_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", "qwen3", has_norms=True),
    "gemma3": Family("Gemma3ForCausalLM", "gemma3_text", has_norms=True, is_gemma=True),
}
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


class Part(NamedTuple):
    """A parameter: its name at Hugging Face, its shape, the heads whose rows are to be put in order, what was added."""

    name: str
    shape: tuple[int, ...]
    permuted_heads: int = 0
    added: int = 0


def read_config(head: GGUFHead) -> dict[str, Any]:
    """The contents of config.json. Raises RegardError for a family that is not known, or sizes that make no sense."""
    metadata = _Metadata(head)
    name = head.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in FAMILIES:
        raise RegardError(f"{head.path}: its architecture is {name!r}, not {', '.join(FAMILIES)}; {OTHER_WAY}")
    if head.metadata.get("split.count", 1) != 1:
        raise RegardError(f"{head.path}: one part of several; join them with `llama-gguf-split --merge`")
    family = FAMILIES[name]
    for key, value in head.metadata.items():
        # scaled rotary embeddings are not told in full by the file, and without them every weight would be wrong
        if key.startswith(tuple(f"{name}.{each}" for each in _refused(family))) and value not in ("none", 0, 1):
            raise RegardError(f"{head.path}: {key} is {value!r}, which cannot be told to Hugging Face; {OTHER_WAY}")
    dim, heads = metadata.whole("embedding_length"), metadata.whole("attention.head_count")
    head_dim = metadata.whole(
        "attention.key_length", default=metadata.whole("rope.dimension_count", default=dim // heads)
    )
    rotated = metadata.whole("rope.dimension_count", default=head_dim)
    kv_heads = metadata.whole("attention.head_count_kv", default=heads)
    if metadata.whole("attention.value_length", default=head_dim) != head_dim or rotated != head_dim or head_dim % 2:
        raise RegardError(f"{head.path}: heads of {head_dim} with {rotated} rotated features; {OTHER_WAY}")
    if heads % kv_heads:
        raise RegardError(f"{head.path}: {heads} heads cannot share {kv_heads} key/value heads; fetch it again")
    base = metadata.positive("rope.freq_base", default=10000.0)
    config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": _rows(head, "token_embd.weight"),
        "hidden_size": dim,
        "intermediate_size": metadata.whole("feed_forward_length"),
        "num_hidden_layers": metadata.whole("block_count", most=len(head.tensors)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": metadata.whole("context_length"),
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rotary(base),
        "tie_word_embeddings": "output.weight" not in head.tensors,
        "dtype": "float32",
    }
    return config | _gemma(metadata, config) if family.is_gemma else config


def _refused(family: Family) -> tuple[str, ...]:
    """Settings that change the model and are not passed on to Hugging Face."""
    refused = ("rope.scal", "attn_logit_softcapping", "final_logit_softcapping")
    return refused if family.is_gemma else (*refused, "attention.sliding_window")


def _gemma(metadata: "_Metadata", config: dict[str, Any]) -> dict[str, Any]:
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
            "sliding_attention": _rotary(metadata.positive("rope.freq_base_swa", default=GEMMA_LOCAL_BASE)),
        },
    }


def _rotary(base: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": base}


def read_parts(head: GGUFHead, config: dict[str, Any]) -> dict[str, Part]:
    """Which parameter each tensor of the file is.

    Raises RegardError where the file lacks one, has one that the model has no place for, or one of another shape.
    """
    parts = _parts(FAMILIES[head.metadata["general.architecture"]], config)
    if surplus := sorted(head.tensors.keys() - parts.keys()):
        raise RegardError(
            f"{head.path}: no place for tensor {surplus[0]!r} in {config['architectures'][0]}; {OTHER_WAY}"
        )
    if missing := sorted(parts.keys() - head.tensors.keys()):
        raise RegardError(f"{head.path}: tensor {missing[0]!r} is missing; fetch it again")
    for name, part in parts.items():
        if (shape := head.tensors[name].shape) != part.shape:
            raise RegardError(f"{head.path}: {name} has shape {list(shape)}, the model needs {list(part.shape)}")
    return parts


def read_weights(head: GGUFHead, parts: dict[str, Part]) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
    """Name and values, float32, of each parameter."""
    from gguf import GGMLQuantizationType, dequantize

    data = np.memmap(head.path, mode="r", dtype=np.uint8)
    for name, part in parts.items():
        tensor: GGUFTensor = head.tensors[name]
        rows = data[tensor.start : tensor.start + tensor.size].reshape(math.prod(tensor.shape[:-1]), -1)
        values = dequantize(rows, GGMLQuantizationType(tensor.kind)).astype(np.float32, copy=False)
        if part.permuted_heads:
            values = values.reshape(part.permuted_heads, -1, 2, tensor.shape[-1]).swapaxes(1, 2)
        if part.added:
            values = values - part.added
        yield part.name, np.ascontiguousarray(values.reshape(tensor.shape))


def _parts(family: Family, config: dict[str, Any]) -> dict[str, Part]:
    dim, feed_forward, vocab_size = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads, kv_heads, head_dim = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    permuted = {"q": heads, "k": kv_heads} if family.is_permuted else {}
    added = int(family.is_gemma)
    parts = {
        "token_embd.weight": Part("model.embed_tokens.weight", (vocab_size, dim)),
        "output_norm.weight": Part("model.norm.weight", (dim,), added=added),
    }
    if not config["tie_word_embeddings"]:
        parts["output.weight"] = Part("lm_head.weight", (vocab_size, dim))
    for layer in range(config["num_hidden_layers"]):
        block, here = f"blk.{layer}", f"model.layers.{layer}"
        for theirs, name in (GEMMA_NORMS if family.is_gemma else NORMS).items():
            parts[f"{block}.{theirs}.weight"] = Part(f"{here}.{name}.weight", (dim,), added=added)
        for letter, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            name, rows = f"{here}.self_attn.{letter}_proj", count * head_dim
            parts[f"{block}.attn_{letter}.weight"] = Part(f"{name}.weight", (rows, dim), permuted.get(letter, 0))
            if family.has_bias:
                parts[f"{block}.attn_{letter}.bias"] = Part(f"{name}.bias", (rows,))
            if family.has_norms and letter != "v":
                parts[f"{block}.attn_{letter}_norm.weight"] = Part(
                    f"{here}.self_attn.{letter}_norm.weight", (head_dim,), added=added
                )
        parts[f"{block}.attn_output.weight"] = Part(f"{here}.self_attn.o_proj.weight", (dim, heads * head_dim))
        parts[f"{block}.ffn_gate.weight"] = Part(f"{here}.mlp.gate_proj.weight", (feed_forward, dim))
        parts[f"{block}.ffn_up.weight"] = Part(f"{here}.mlp.up_proj.weight", (feed_forward, dim))
        parts[f"{block}.ffn_down.weight"] = Part(f"{here}.mlp.down_proj.weight", (dim, feed_forward))
    return parts


def _rows(head: GGUFHead, name: str) -> int:
    if name not in head.tensors:
        raise RegardError(f"{head.path}: tensor {name!r} is missing; fetch it again")
    return head.tensors[name].shape[0]


class _Metadata:
    """The sizes that stand under the architecture's own name. Raises RegardError."""

    def __init__(self, head: GGUFHead) -> None:
        self.head = head

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

    def _get(self, name: str, default: object) -> object:
        return self.head.metadata.get(f"{self.head.metadata.get('general.architecture')}.{name}", default)

    def _error(self, name: str, wanted: str, value: object) -> RegardError:
        return RegardError(f"{self.head.path}: {name} must be {wanted}, not {value!r}; fetch the file again")
