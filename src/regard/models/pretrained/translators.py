"""A pretrained encoder–decoder as a translator: its module, its tokenizer, and how many tokens it takes."""

import copy
import logging
from pathlib import Path
from typing import Any, NamedTuple

from regard.models.pretrained.languages import frames_of
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer, pair_tokenizer
from regard.models.pretrained.seq2seq import PretrainedTranslator

# of a model that has no limit of its own, more than any text that it was trained on
LONGEST = 1 << 14

logger = logging.getLogger("regard")


class Languages(NamedTuple):
    """What a translator of several languages or tasks is told: the tags that its tokenizer has, or a task in words."""

    source_language: str | None = None
    target_language: str | None = None
    source_prefix: str | None = None


class Pretrained(NamedTuple):
    """`longest_source` is the longest that its tokenizer takes, where that is less than `max_length`."""

    module: PretrainedTranslator
    tokenizer: PretrainedTokenizer
    max_length: int
    longest_source: int | None


def translates(module: Any, backend: Any) -> bool:
    """Whether a module of transformers writes one text from another, and has a tokenizer for both."""
    return (
        backend is not None
        and bool(getattr(module.config, "is_encoder_decoder", False))
        and bool(module.can_generate())
        and module.main_input_name == "input_ids"
    )


def as_translator(module: Any, backend: Any, *, name: str, languages: Languages) -> Pretrained:
    """Raises RegardError for languages that its tokenizer does not have, and where it must be told one."""
    config = module.config
    frames, typed = frames_of(backend, module, name=name, **languages._asdict())
    size = module.get_input_embeddings().weight.shape[0]
    target_size = module.get_output_embeddings().weight.shape[0]
    tokenizer = pair_tokenizer(backend, name=name, sizes=(size, target_size), frames=frames, typed=typed)
    length = getattr(config, "max_position_embeddings", None)
    max_length = length if isinstance(length, int) else LONGEST
    taken = backend.model_max_length
    return Pretrained(
        PretrainedTranslator(module, given=frames.target.before[:-1]),
        tokenizer,
        max_length,
        taken if taken < max_length else None,
    )


def save_tokenizer(module: PretrainedTranslator, tokenizer: PretrainedTokenizer, folder: Path) -> None:
    """The tokenizer as transformers has it, with its languages, and what generation begins from, into a folder."""
    backend = copy.copy(tokenizer.backend)
    # what was set after its making is not saved of itself
    languages = {name: getattr(backend, name, None) for name in ("src_lang", "tgt_lang")}
    backend.init_kwargs = backend.init_kwargs | {name: value for name, value in languages.items() if value is not None}
    backend.save_pretrained(folder)
    settings = copy.deepcopy(module.model.generation_config)
    start, *forced = tokenizer.frames.target.before
    settings.decoder_start_token_id = start
    if forced:
        settings.forced_bos_token_id = forced[-1]
    settings.save_pretrained(folder)
