"""The settings of a pretrained translator under `[model]`; what it is else is in the files of its folder."""

from dataclasses import dataclass
from typing import Any, NoReturn

from regard.config import setting
from regard.errors import RegardError
from regard.models.limits import LONGEST


@dataclass(frozen=True)
class PretrainedConfig:
    """An encoder–decoder of transformers, of these languages; by default its dropout is its own."""

    source_language: str | None = setting(None)
    target_language: str | None = setting(None)
    source_prefix: str | None = setting(None)
    dropout: float | None = setting(None, least=0, below=1)
    max_length: int = setting(256, least=2, most=LONGEST)


def no_weights(config: Any, vocab_size: int) -> NoReturn:
    """A pretrained model is made of its folder, not of sizes."""
    raise RegardError("a model of type 'pretrained' begins from one: name its folder as [model] init, or by --init")
