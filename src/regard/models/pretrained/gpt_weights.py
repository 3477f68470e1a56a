"""Configurations and weights of Hugging Face's GPT-2 and Llama families in Regard's own model, and back.

Every tensor is accounted for: what is missing, surplus or misshapen is an error by name.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import RegardError
from regard.models.gpt import GPT, GPTConfig
from regard.models.rotary import RotaryConfig

# by Hugging Face's name of an architecture, how its configuration reads
ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], GPTConfig]] = {}
# what a file may hold beside the weights: tables that are made, not learned
MADE = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
MOST_TOLD = 3


class Unknown(RegardError):
    """A setting of a known architecture that the model here has not; transformers may have it."""


@dataclass(frozen=True)
class Part:
    """A parameter of ours and the tensors it is put together of, one under the other.

    Each of several has so many `rows`; `turned` are those whose columns are our rows.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    turned: bool = False


def config_of(values: Mapping[str, Any]) -> GPTConfig:
    """Of one of `ARCHITECTURES`. Raises Unknown for a setting that the model here has not, RegardError for nonsense."""
    if "quantization_config" in values:
        raise Unknown("quantised weights (quantization_config) are not known here")
    return ARCHITECTURES[values["architectures"][0]](values)


def vocab_size_of(values: Mapping[str, Any]) -> int:
    """How many tokens there are."""
    return _whole(values, "vocab_size")


def load_weights(module: GPT, tensors: Mapping[str, Tensor], *, where: str, dtype: torch.dtype = torch.float32) -> None:
    """Make the tensors of a Hugging Face model the parameters. Raises RegardError where they are not those."""
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith(MADE)}
    prefix = "transformer." if module.config.positions == "learned" else "model."
    if not any(name.startswith(prefix) for name in left):
        # a model saved without its head
        left = {name if name.startswith("lm_head") else prefix + name: tensor for name, tensor in left.items()}
    wrong = []
    for part in parts(module):
        found = [left.pop(name) for name in part.theirs if name in left]
        shape = module.get_parameter(part.ours).shape
        if len(found) < len(part.theirs):
            wrong += [f"lacks {name}" for name in part.theirs if name not in tensors and name not in left]
        elif misfits := list(_misfits(found, part, shape)):
            wrong += misfits
        elif not wrong:
            whole = torch.cat([tensor.T if part.turned else tensor for tensor in found])
            owner, _, name = part.ours.rpartition(".")
            setattr(module.get_submodule(owner), name, nn.Parameter(whole.to(dtype).contiguous(), requires_grad=False))
    head = left.pop("lm_head.weight", None) if module.output is None else None
    wrong += [f"has {name}, which is no part of the model" for name in sorted(left)]
    if wrong:
        more = f" and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        raise RegardError(
            f"{where}: its weights are not those of its config.json: it {', '.join(wrong[:MOST_TOLD])}{more}; fetch "
            "the folder again"
        )
    if head is not None and not torch.equal(head.to(dtype), module.embedding.weight):
        raise RegardError(f"{where}: lm_head.weight is not the embedding, though config.json says that it is")


def _misfits(found: Sequence[Tensor], part: Part, shape: Sequence[int]) -> Iterator[str]:
    """What is wrong with tensors that are to make one of this shape."""
    for name, tensor, rows in zip(part.theirs, found, part.rows or shape[:1], strict=True):
        wanted = [rows, *shape[1:]]
        wanted = wanted[::-1] if part.turned else wanted
        if list(tensor.shape) != wanted:
            yield f"has {name} of shape {list(tensor.shape)}, not {wanted}"
        elif not tensor.is_floating_point():
            yield f"has {name} as {str(tensor.dtype).removeprefix('torch.')}, no floating-point numbers"


def weights(module: GPT) -> dict[str, Tensor]:
    """The parameters by Hugging Face's names. Raises RegardError where they are quantised."""
    named = dict(module.named_parameters())
    tensors: dict[str, Tensor] = {}
    for part in parts(module):
        weight = named.get(f"{part.ours.removesuffix('.bias')}.weight")
        if part.ours not in named and weight is not None:
            # GPT-2 has a bias in every layer: one of zeros adds nothing
            (name,) = part.theirs
            tensors[name] = weight.new_zeros(len(weight), device="cpu")
            continue
        if part.ours not in named:
            raise RegardError("quantised weights cannot be exported; load the model in float32 or bfloat16")
        whole = named[part.ours].detach().cpu()
        pieces = whole.split(list(part.rows) or [len(whole)])
        for name, piece in zip(part.theirs, pieces, strict=True):
            # two names of one memory cannot be written
            tensors[name] = (piece.T if part.turned else piece).clone(memory_format=torch.contiguous_format)
    return tensors


def parts(module: GPT) -> Iterator[Part]:
    """Every parameter of ours with the names of Hugging Face's."""
    return _gpt2_parts(module) if module.config.positions == "learned" else _llama_parts(module)


def _gpt2_parts(module: GPT) -> Iterator[Part]:
    yield Part("embedding.weight", ("transformer.wte.weight",))
    yield Part("positions.weight", ("transformer.wpe.weight",))
    for layer in range(module.config.num_layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for own, other in (("attention_norm", "ln_1"), ("feed_forward_norm", "ln_2")):
            yield Part(f"{ours}.{own}.weight", (f"{theirs}.{other}.weight",))
            yield Part(f"{ours}.{own}.bias", (f"{theirs}.{other}.bias",))
        for own, other in (
            ("attention.in_proj", "attn.c_attn"),
            ("attention.out_proj", "attn.c_proj"),
            ("feed_forward.in_proj", "mlp.c_fc"),
            ("feed_forward.out_proj", "mlp.c_proj"),
        ):
            yield Part(f"{ours}.{own}.weight", (f"{theirs}.{other}.weight",), turned=True)
            yield Part(f"{ours}.{own}.bias", (f"{theirs}.{other}.bias",))
    yield Part("norm.weight", ("transformer.ln_f.weight",))
    yield Part("norm.bias", ("transformer.ln_f.bias",))
    if module.output is not None:
        yield Part("output.weight", ("lm_head.weight",))


def _llama_parts(module: GPT) -> Iterator[Part]:
    config = module.config
    queries, keys = (count * config.size_of_head for count in (config.num_heads, config.key_value_heads))
    wide = config.feed_forward_dim
    yield Part("embedding.weight", ("model.embed_tokens.weight",))
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        yield Part(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",))
        yield Part(f"{ours}.feed_forward_norm.weight", (f"{theirs}.post_attention_layernorm.weight",))
        attention = f"{theirs}.self_attn"
        for own, others, rows in (
            ("attention.in_proj", [f"{attention}.{name}_proj" for name in "qkv"], (queries, keys, keys)),
            ("attention.out_proj", [f"{attention}.o_proj"], ()),
            ("feed_forward.in_proj", [f"{theirs}.mlp.{name}_proj" for name in ("gate", "up")], (wide, wide)),
            ("feed_forward.out_proj", [f"{theirs}.mlp.down_proj"], ()),
        ):
            yield Part(f"{ours}.{own}.weight", tuple(f"{other}.weight" for other in others), rows)
            if module.get_submodule(f"{ours}.{own}").bias is not None:
                yield Part(f"{ours}.{own}.bias", tuple(f"{other}.bias" for other in others), rows)
        if config.query_key_norm:
            yield Part(f"{ours}.attention.query_norm.weight", (f"{attention}.q_norm.weight",))
            yield Part(f"{ours}.attention.key_norm.weight", (f"{attention}.k_norm.weight",))
    yield Part("norm.weight", ("model.norm.weight",))
    if module.output is not None:
        yield Part("output.weight", ("lm_head.weight",))


def _gpt2(values: Mapping[str, Any]) -> GPTConfig:
    _only(values, activation_function=("gelu", "gelu_new", "gelu_pytorch_tanh"), scale_attn_weights=(True,))
    _only(values, scale_attn_by_inverse_layer_idx=(False,), add_cross_attention=(False,))
    dim = _whole(values, "n_embd", 768)
    return GPTConfig(
        model_dim=dim,
        num_heads=_whole(values, "n_head", 12),
        num_layers=_whole(values, "n_layer", 12),
        feed_forward_dim=_whole(values, "n_inner", 4 * dim),
        feed_forward="gelu_exact" if values.get("activation_function") == "gelu" else "gelu",
        norm_epsilon=_number(values, "layer_norm_epsilon", 1e-5),
        tied_embeddings=bool(values.get("tie_word_embeddings", True)),
        max_length=_whole(values, "n_positions", 1024),
    )


def _llama(values: Mapping[str, Any], **own: Any) -> GPTConfig:
    _only(values, hidden_act=("silu",), pretraining_tp=(1,))
    heads = _whole(values, "num_attention_heads", 32)
    settings = {
        "model_dim": _whole(values, "hidden_size", 4096),
        "num_heads": heads,
        "num_key_value_heads": _whole(values, "num_key_value_heads", heads),
        "head_dim": None if values.get("head_dim") is None else _whole(values, "head_dim", 1),
        "num_layers": _whole(values, "num_hidden_layers", 32),
        "feed_forward_dim": _whole(values, "intermediate_size", 11008),
        "positions": "rotary",
        "norm": "rms",
        "norm_epsilon": _number(values, "rms_norm_eps", 1e-6),
        "feed_forward": "swiglu",
        "bias": bool(values.get("attention_bias")),
        "feed_forward_bias": bool(values.get("mlp_bias")),
        "tied_embeddings": bool(values.get("tie_word_embeddings", False)),
        "rotary": _rotary(values),
        "max_length": _length(values, "max_position_embeddings", 2048),
    }
    return GPTConfig(**{**settings, **own})


def _mistral(values: Mapping[str, Any]) -> GPTConfig:
    defaults = {"intermediate_size": 14336, "max_position_embeddings": 131072, "num_key_value_heads": 8}
    values = {**defaults, "sliding_window": 4096, **values}
    window = None if values["sliding_window"] is None else _length(values, "sliding_window")
    return _llama({**values, "attention_bias": False, "mlp_bias": False}, window=window)


def _qwen2(values: Mapping[str, Any]) -> GPTConfig:
    return _llama({**_qwen(values), "attention_bias": False}, query_key_value_bias=True)


def _qwen3(values: Mapping[str, Any]) -> GPTConfig:
    return _llama({"head_dim": 128, **_qwen(values)}, query_key_norm=True)


def _qwen(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if values.get("use_sliding_window"):
        raise Unknown("use_sliding_window, in some of the layers only, is not known here")
    defaults = {"intermediate_size": 22016, "max_position_embeddings": 32768, "num_key_value_heads": 32}
    return {**defaults, **values, "mlp_bias": False}


def _rotary(values: Mapping[str, Any]) -> RotaryConfig:
    # newer files keep all of it together
    given = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise RegardError(f"its rotary settings are {given!r}, which must be a table")
    base = _number(given if "rope_theta" in given else values, "rope_theta", 10_000.0)
    _only(values, partial_rotary_factor=(1.0,))
    _only(given, partial_rotary_factor=(1.0,))
    sort = given.get("rope_type", given.get("type", "default"))
    if sort == "default":
        return RotaryConfig(base=base)
    if sort == "linear":
        return RotaryConfig(base=base, scaling="linear", factor=_number(given, "factor"))
    if sort == "llama3":
        return RotaryConfig(
            base=base,
            scaling="llama3",
            factor=_number(given, "factor"),
            low_frequency_factor=_number(given, "low_freq_factor"),
            high_frequency_factor=_number(given, "high_freq_factor"),
            original_length=_length(given, "original_max_position_embeddings"),
        )
    raise Unknown(f"rotary positions of the sort {sort!r} are not known here")


def _only(values: Mapping[str, Any], **known: tuple[Any, ...]) -> None:
    for name, choices in known.items():
        if values.get(name, choices[0]) not in choices:
            raise Unknown(f"{name} {values[name]!r} is not known here, only {', '.join(map(repr, choices))}")


def _whole(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = default if values.get(name) is None else values[name]
    if type(value) is not int or not 1 <= value < 1 << 24:
        raise RegardError(f"{name} is {value!r}, which must be a whole number of reasonable size")
    return value


def _length(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A number of positions, for which no room is made before they are there."""
    value = default if values.get(name) is None else values[name]
    if type(value) is not int or not 1 <= value < 1 << 63:
        raise RegardError(f"{name} is {value!r}, which must be a whole number of positions")
    return value


def _number(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = default if values.get(name) is None else values[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise RegardError(f"{name} is {value!r}, which must be a number above 0")
    return float(value)


ARCHITECTURES.update(
    {
        "GPT2LMHeadModel": _gpt2,
        "LlamaForCausalLM": _llama,
        "MistralForCausalLM": _mistral,
        "Qwen2ForCausalLM": _qwen2,
        "Qwen3ForCausalLM": _qwen3,
    }
)
