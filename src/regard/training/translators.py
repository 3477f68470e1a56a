"""A pretrained encoder–decoder as training has it: made of the files of its folder, for the languages of a recipe."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.models.pretrained.config import PretrainedConfig
from regard.models.pretrained.folder import fresh, load_folder, load_tokenizer
from regard.models.pretrained.lora import Adapter
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer
from regard.models.pretrained.seq2seq import PretrainedTranslator
from regard.models.pretrained.text_tokenizer import TextTokenizer
from regard.models.pretrained.translators import (
    LONGEST,
    Languages,
    Pretrained,
    as_translator,
    translates,
    with_frozen_buffers,
)

AnyTokenizer = Tokenizer | TextTokenizer | PretrainedTokenizer


def described(folder: Path, config: PretrainedConfig) -> Pretrained:
    """The translator in a folder without its weights. Raises RegardError for what is none, and for its languages."""
    with torch.device("meta"):
        module = fresh(folder)
    backend = load_tokenizer(folder, fast=False)
    if not translates(module, backend):
        raise RegardError(f"{folder}: it translates no text, or has no tokenizer; name a translator with its tokenizer")
    languages = Languages(config.source_language, config.target_language, config.source_prefix)
    return as_translator(module, backend, name=folder.name, languages=languages)


def longest(folder: Path) -> int:
    """How many tokens it takes at most."""
    with torch.device("meta"):
        length = getattr(fresh(folder).config, "max_position_embeddings", None)
    return length if isinstance(length, int) else LONGEST


def fresh_translator(folder: Path, config: PretrainedConfig) -> PretrainedTranslator:
    """Random weights; those of the sizes that the folder describes."""
    frames = described(folder, config).tokenizer.frames
    return _wrapped(fresh(folder, dropout=config.dropout), frames.target.before[:-1])


def loaded_translator(
    folder: Path, config: PretrainedConfig, tokenizer: AnyTokenizer, adapters: Sequence[Adapter]
) -> PretrainedTranslator:
    """The weights of the folder, with adapters merged into them."""
    assert isinstance(tokenizer, PretrainedTokenizer)
    module, _ = load_folder(folder, dtype=torch.float32, adapters=adapters, dropout=config.dropout)
    with torch.device("meta"):
        made = fresh(folder)
    # sinusoids of positions, which loading forgets to be fixed
    for name, parameter in made.named_parameters():
        module.get_parameter(name).requires_grad_(parameter.requires_grad)
    return _wrapped(module, tokenizer.frames.target.before[:-1])


def model_of(module: nn.Module) -> nn.Module:
    """The module whose layers are adapted: that of transformers within a translator."""
    return module.model if isinstance(module, PretrainedTranslator) else module


def _wrapped(module: nn.Module, given: Sequence[int]) -> PretrainedTranslator:
    return with_frozen_buffers(PretrainedTranslator(module, given=given))
