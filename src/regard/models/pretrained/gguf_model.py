"""A language model in a GGUF file, under the names that Hugging Face gives its parts.

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
from regard.models.pretrained.gguf_families import FAMILIES, OTHER_WAY, Family, Metadata, rotary
from regard.models.pretrained.gguf_head import GGUFHead, GGUFTensor

# settings that change the model: those that a family does not pass on to Hugging Face are refused
CHANGING = ("rope.scal", "attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window")


class Part(NamedTuple):
    """A parameter: its name at Hugging Face, its shape, the heads whose rows are to be put in order, what was added."""

    name: str
    shape: tuple[int, ...]
    permuted_heads: int = 0
    added: int = 0


def read_config(head: GGUFHead) -> dict[str, Any]:
    """The contents of config.json. Raises RegardError for a family that is not known, or sizes that make no sense."""
    metadata = Metadata(head)
    name = head.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in FAMILIES:
        raise RegardError(f"{head.path}: its architecture is {name!r}, not {', '.join(FAMILIES)}; {OTHER_WAY}")
    family = FAMILIES[name]
    for key, value in head.metadata.items():
        # scaled rotary embeddings are not told in full by the file, and without them every weight would be wrong
        setting = key.removeprefix(f"{name}.")
        is_taken = setting.startswith(family.takes) and bool(family.takes)
        if setting.startswith(CHANGING) and not is_taken and value not in ("none", 0, 1):
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
        "rope_parameters": rotary(base),
        "tie_word_embeddings": "output.weight" not in head.tensors,
        "dtype": "float32",
    }
    return config | family.settings(metadata, config)


def read_parts(head: GGUFHead, config: dict[str, Any]) -> dict[str, Part]:
    """Which parameter each tensor of the file is.

    Raises RegardError where the file lacks one, has one that the model has no place for, or one of another shape.
    """
    family = FAMILIES[head.metadata["general.architecture"]]
    parts = _parts(family, config)
    if surplus := sorted(head.tensors.keys() - parts.keys() - set(family.holds)):
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

    data = {path: np.memmap(path, mode="r", dtype=np.uint8) for path in head.paths}
    for name, part in parts.items():
        tensor: GGUFTensor = head.tensors[name]
        rows = data[tensor.path][tensor.start : tensor.start + tensor.size].reshape(math.prod(tensor.shape[:-1]), -1)
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
    added = family.added
    parts = {
        "token_embd.weight": Part("model.embed_tokens.weight", (vocab_size, dim)),
        "output_norm.weight": Part("model.norm.weight", (dim,), added=added),
    }
    if not config["tie_word_embeddings"]:
        parts["output.weight"] = Part("lm_head.weight", (vocab_size, dim))
    for layer in range(config["num_hidden_layers"]):
        block, here = f"blk.{layer}", f"model.layers.{layer}"
        for theirs, name in family.norms.items():
            parts[f"{block}.{theirs}.weight"] = Part(f"{here}.{name}.weight", (dim,), added=added)
        if family.is_fused:
            rows = (heads + 2 * kv_heads) * head_dim
            parts[f"{block}.attn_qkv.weight"] = Part(f"{here}.self_attn.qkv_proj.weight", (rows, dim))
            parts[f"{block}.ffn_up.weight"] = Part(f"{here}.mlp.gate_up_proj.weight", (2 * feed_forward, dim))
        for letter, count in () if family.is_fused else (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            name, rows = f"{here}.self_attn.{letter}_proj", count * head_dim
            parts[f"{block}.attn_{letter}.weight"] = Part(f"{name}.weight", (rows, dim), permuted.get(letter, 0))
            if family.has_bias:
                parts[f"{block}.attn_{letter}.bias"] = Part(f"{name}.bias", (rows,))
            if family.has_norms and letter != "v":
                parts[f"{block}.attn_{letter}_norm.weight"] = Part(
                    f"{here}.self_attn.{letter}_norm.weight", (head_dim,), added=added
                )
        parts[f"{block}.attn_output.weight"] = Part(f"{here}.self_attn.o_proj.weight", (dim, heads * head_dim))
        for theirs in () if family.is_fused else ("gate", "up"):
            parts[f"{block}.ffn_{theirs}.weight"] = Part(f"{here}.mlp.{theirs}_proj.weight", (feed_forward, dim))
        parts[f"{block}.ffn_down.weight"] = Part(f"{here}.mlp.down_proj.weight", (dim, feed_forward))
    return parts


def _rows(head: GGUFHead, name: str) -> int:
    if name not in head.tensors:
        raise RegardError(f"{head.path}: tensor {name!r} is missing; fetch it again")
    return head.tensors[name].shape[0]
