"""What an architecture of the zoo is: a tiny model, its inputs, and the layers that can be read exactly."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

VOCABULARY = 101
PAD, BEGIN, END = 0, 1, 2
IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention")
Layers = tuple[int, ...]
Inputs = dict[str, Tensor]
MEDIUM_IDS = ("image_token_index", "image_token_id", "audio_token_index", "audio_token_id")
# in place of a setting that the family refuses
UNKNOWN = object()

FLOAT32 = (torch.float32,)
DTYPES = (torch.float32, torch.bfloat16)


def older_than(version: str) -> bool:
    """Whether the installed version of transformers is older."""
    return Version(transformers.__version__) < Version(version)


# every family takes the names that it knows from here
SETTINGS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "hidden_dropout": 0.0,
    "pad_token_id": PAD,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "tie_word_embeddings": False,
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A tiny model of one architecture, with random weights.

    `layers` maps each kind of attention (decoder, encoder, cross, vision) to the numbers of the layers that attend by
    softmax over all visible keys; `unread` those that do something else (linear attention, a state space, a recurrence,
    a sparse or hashed approximation, several streams of queries, a pooling head), which a reading may refuse.
    `refuses` names implementations that fail on these inputs though transformers offers them, `eager_parts` settings
    of parts that know only one, `dtypes` those in which transformers can run the model on CPU. Where `steps_agree` is
    false, transformers computes something else step by step, with a cache, than in one forward over the sequence.
    `before_text` counts the positions that the model itself puts before its text.
    """

    model: str
    make_inputs: Callable[[], Inputs]
    layers: dict[str, Layers]
    unread: dict[str, Layers] = dataclasses.field(default_factory=dict)
    generates: bool = False
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    gain: float = 1.5
    refuses: tuple[str, ...] = ()
    eager_parts: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = DTYPES
    steps_agree: bool = True
    before_text: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.layers, *self.unread)))

    @property
    def is_pair(self) -> bool:
        """Whether a decoder looks at an encoder's text or sound; one that looks at a picture has its own prompt."""
        return "cross" in self.kinds and "vision" not in self.kinds

    @property
    def medium_id(self) -> int | None:
        """The id whose positions hold patches of a picture or frames of a sound; cross-attention leaves it a token."""
        if "image_embeds_position_mask" in self.make_inputs():
            return BEGIN
        settings = {} if "cross" in self.kinds else self.settings
        return next((settings[name] for name in MEDIUM_IDS if name in settings), None)

    @property
    def implementations(self) -> tuple[str, ...]:
        """The implementations of attention that run on CPU; FlexAttention may need `torch.compiler.set_stance`."""
        model = getattr(transformers, self.model)
        offered = {"eager": True, "sdpa": model._supports_sdpa, "flex_attention": model._supports_flex_attn}
        return tuple(name for name in IMPLEMENTATIONS if offered[name] and name not in self.refuses)

    def build(self, implementation: str = "eager", *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
        """The model; its weights are the same for every implementation and, up to rounding, for every dtype."""
        model_class = getattr(transformers, self.model)
        settings = {name: value for name, value in (SETTINGS | self.settings).items() if value is not UNKNOWN}
        config = model_class.config_class(**settings)
        parts = {"": implementation} | dict.fromkeys(self.eager_parts, "eager") if self.eager_parts else implementation
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            # FlexAttention on a CPU refuses tensors that require a gradient
            model = (
                model_class._from_config(config, attn_implementation=parts, dtype=dtype).eval().requires_grad_(False)
            )
            scatter(model, self.gain)
        return model

    def inputs(self, dtype: torch.dtype = torch.float32) -> Inputs:
        """Two sequences of unequal length, the second one padded where the architecture allows it."""
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in self.make_inputs().items()}

    def prompt(self, dtype: torch.dtype = torch.float32) -> Inputs:
        """What `generate` starts from."""
        return {name: x for name, x in self.inputs(dtype).items() if not name.startswith("decoder_")}


def beside_text(model: str, inputs: Callable[[], Inputs], tower: str, **settings: Any) -> Architecture:
    """A decoder in whose text the patches or frames of a tower, `vision` or `encoder`, stand as tokens."""
    layers = {"decoder": (0, 1), tower: (0, 1)}
    return Architecture(model=model, make_inputs=inputs, layers=layers, generates=True, settings=settings)


@torch.no_grad()
def scatter(model: nn.Module, gain: float) -> None:
    """Draw weights so large that attention is far from uniform: an error in a nearly uniform softmax does not show."""
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D | nn.Conv1d | nn.Conv2d):
            fan_in = len(module.weight) if isinstance(module, Conv1D) else module.weight[0].numel()
            _fill(module.weight, gain / math.sqrt(fan_in))
        elif isinstance(module, nn.MultiheadAttention):
            _fill(module.in_proj_weight, gain / math.sqrt(module.embed_dim))
        elif isinstance(module, nn.Embedding):
            _fill(module.weight, 1.0)
        else:
            # learned queries, which are small or alike when untrained
            for name in ("query_tokens", "probe"):
                if isinstance(getattr(module, name, None), nn.Parameter):
                    _fill(getattr(module, name), 1.0)


def _fill(weight: Tensor, std: float) -> None:
    weight.copy_(torch.randn(weight.shape, dtype=torch.float32) * std)
