"""A pretrained encoder–decoder as a translator: its module, its tokenizer, and how many tokens it takes."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from regard.models.pretrained.folder import CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG, read_json
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
    tokenizer.backend.save_pretrained(folder)
    module.model.generation_config.save_pretrained(folder)
    note_languages(tokenizer, folder)


def note_languages(tokenizer: PretrainedTokenizer, folder: Path) -> None:
    """Put the languages, and what stands before a text, into the settings of a folder that has the tokenizer."""
    names = ("src_lang", "tgt_lang", "target_lang")
    told = {name: getattr(tokenizer.backend, name, None) for name in names} | {"source_prefix": tokenizer.prefix}
    _change(folder / TOKENIZER_CONFIG, {name: value for name, value in told.items() if value})
    start, *forced = tokenizer.frames.target.before
    begins = {"decoder_start_token_id": start} | ({"forced_bos_token_id": forced[-1]} if forced else {})
    source = folder / GENERATION_CONFIG
    _change(source if source.is_file() else folder / CONFIG, begins)


def _change(path: Path, values: dict[str, Any]) -> None:
    settings = read_json(path) if path.is_file() else {}
    path.write_text(json.dumps(settings | values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tensors_of(module: PretrainedTranslator) -> dict[str, Tensor]:
    """The weights by Hugging Face's names, each that several parts share once."""
    tied, ignored = module.model.all_tied_weights_keys, module.model._keys_to_ignore_on_save or ()
    state = module.model.state_dict()
    return {name: tensor.cpu() for name, tensor in state.items() if name not in tied and name not in ignored}


def with_frozen_buffers(module: PretrainedTranslator) -> PretrainedTranslator:
    """The same with what its folder has beside parameters as parameters that are not trained: all are kept alike."""
    saved = module.model.state_dict().keys() - dict(module.model.named_parameters(remove_duplicate=False)).keys()
    for name in saved:
        owner, _, own = name.rpartition(".")
        part = module.model.get_submodule(owner)
        buffer = part._buffers.pop(own)
        part.register_parameter(own, nn.Parameter(buffer, requires_grad=False))
    return module
