"""The models by name: those of rungs 1 to 3 translate one sequence into another, that of rung 5 writes on."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from regard.attention.output import ModelOutput
from regard.config import from_dict, suggest
from regard.data.batch import Batch
from regard.errors import RegardError
from regard.kernels.memory import memory_of_machine
from regard.models.gpt import GPT, GPTConfig
from regard.models.pretrained.config import PretrainedConfig, no_weights
from regard.models.recurrent import RNNTranslator
from regard.models.rnn import RNNConfig
from regard.models.transformer import Transformer, TransformerConfig

ModelConfig = RNNConfig | TransformerConfig | GPTConfig | PretrainedConfig


@runtime_checkable
class TranslatorModule(Protocol):
    """What decoding asks of a model; its cache can `select` sentences and beams, as `Cache` does."""

    def __call__(self, batch: Batch, read: bool = False) -> ModelOutput: ...
    def encode(self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Any: ...
    def decode_step(self, tokens: Int[Tensor, "batch beam"], cache: Any, read: bool = False) -> ModelOutput: ...


class Family(NamedTuple):
    """A kind of model: its settings, how it is made of (config, vocab_size), and whether it translates or writes on."""

    config: type[Any]
    build: Callable[[Any, int], nn.Module]
    translates: bool = True


MODELS = {
    "rnn": Family(RNNConfig, RNNTranslator),
    "transformer": Family(TransformerConfig, Transformer),
    "gpt": Family(GPTConfig, GPT, translates=False),
    "pretrained": Family(PretrainedConfig, no_weights),
}


def read_config(values: dict[str, Any], *, where: str) -> ModelConfig:
    """The settings under `[model]`, whose `type` says which model. Raises RegardError."""
    name = values.get("type")
    if name not in MODELS:
        raise RegardError(f"{where} type is {name!r}{suggest(str(name), MODELS)}")
    return from_dict(MODELS[name].config, {key: value for key, value in values.items() if key != "type"}, where=where)


def build(config: ModelConfig, vocab_size: int) -> nn.Module:
    """A fresh model of these sizes."""
    return _family(config)[1].build(config, vocab_size)


def check_memory(make: Callable[[], nn.Module]) -> None:
    """Raises RegardError for a model that this machine, by a CPU, has no memory to train; `make` makes it."""
    # all weights, and for each that is trained its gradient and two moments
    with torch.device("meta"):
        module = make()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    buffers = sum(buffer.numel() for buffer in module.buffers())
    needed, there_is = 4 * (parameters + 3 * trained + buffers), memory_of_machine()
    if needed > there_is:
        raise RegardError(
            f"a model of {parameters:,} parameters takes {needed / 1e9:,.1f} GB to train, and this machine has "
            f"{there_is / 1e9:,.1f} GB; lower the sizes in [model]"
        )


def type_name(config: ModelConfig) -> str:
    """The `type` under which this model stands in a recipe."""
    return _family(config)[0]


def translates(config: ModelConfig) -> bool:
    """Whether the model translates; else it writes on from a text."""
    return _family(config)[1].translates


def _family(config: ModelConfig) -> tuple[str, Family]:
    return next(entry for entry in MODELS.items() if entry[1].config is type(config))
