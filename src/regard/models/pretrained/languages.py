"""What stands around the texts of a pretrained translator: language tags, the start and the end of a sentence.

It is read off the model's own tokenizer, which puts it there, and off the model's configuration.
"""

import re
from typing import Any

from regard.config import suggest
from regard.data.batch import Frame, Frames
from regard.data.lines import tell_once
from regard.errors import RegardError
from regard.models.pretrained.needs import quiet, told

# how families spell a tag: fra_Latn, fr_XX
TAG = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
# tags that an error lists
FEW = 5


def tags_of(backend: Any) -> dict[str, int]:
    """The languages that a tokenizer has tags for, as its users name them, and the ids of the tags."""
    codes = getattr(backend, "lang_code_to_id", None)
    if codes:
        return {code: id for code, id in codes.items() if id != backend.unk_token_id}
    if codes := getattr(backend, "supported_language_codes", None):
        return {code.removeprefix(">>").removesuffix("<<"): backend.encoder[code] for code in codes}
    if not hasattr(backend, "src_lang"):
        return {}
    special = {token.content: id for id, token in backend.added_tokens_decoder.items() if token.special}
    return {content: id for content, id in special.items() if TAG.fullmatch(content)}


def frames_of(
    backend: Any,
    module: Any,
    *,
    name: str,
    source_language: str | None = None,
    target_language: str | None = None,
    source_prefix: str | None = None,
) -> tuple[Frames, str]:
    """The special tokens around the texts of a translator of transformers, of these languages.

    With them what a user of transformers types before each source, which stands there as tokens.

    Raises RegardError for a language that the tokenizer has no tag for, and where it has some and none is given.
    """
    tags, config = tags_of(backend), module.config
    # Marian's tags stand before a source, and say the target's language
    names_source = hasattr(backend, "src_lang")
    settings = module.generation_config
    if not names_source and source_language is not None:
        raise RegardError(f"{name}: its tokenizer has no tags for source languages; leave out source_language")
    source, target = (None if each is None else each.strip("_<>") for each in (source_language, target_language))
    for side, language in (("source", source), ("target", target)):
        if language is not None and language not in tags:
            raise RegardError(f"{name}: {_unknown(side, language, tags, config)}")
    if names_source and source is not None:
        backend.src_lang = source
    elif names_source and target is not None:
        # a folder may name what its maker began with; who names one side alone may have forgotten the other
        tell_once("%s takes texts to be in %s; give source_language for another", name, backend.src_lang)
    if target is None and tags:
        own = getattr(backend, "tgt_lang" if names_source else "target_lang", None)
        begins = [getattr(settings, f"{which}_token_id", None) for which in ("forced_bos", "decoder_start")]
        target = own if own in tags else next((code for code, id in tags.items() if id in begins), None)
        if target is None:
            raise RegardError(
                f"{name} writes {len(tags)} languages; give target_language, such as {', '.join(sorted(tags)[:FEW])} "
                "(--target-language; in a recipe model.target_language)"
            )
    if names_source:
        backend.tgt_lang = target
    elif target is not None:
        backend.target_lang = target
    with told(f"{name}: its tokenizer cannot be used"), quiet():
        before, after = _around(backend, "text")
        written = _around(backend, "text_target")
    prefixes = (source_prefix, backend.init_kwargs.get("source_prefix"), getattr(config, "prefix", None))
    typed = next((prefix for prefix in prefixes if isinstance(prefix, str)), "")
    if typed:
        before = (*before, *backend(typed, add_special_tokens=False).input_ids)
    if target is not None and not names_source:
        before, typed = (tags[target], *before), f">>{target}<< {typed}"
    ends = _target_frame(module, name, written, tags.get(target or ""))
    return Frames(Frame(before, after), ends, _never(settings, config)), typed


def _around(backend: Any, side: str) -> Frame:
    """What the tokenizer puts before and after a text."""
    (plain,) = backend(**{side: ["a"]}, add_special_tokens=False).input_ids
    (ids,) = backend(**{side: ["a"]}).input_ids
    start = next(place for place in range(len(ids) + 1) if ids[place : place + len(plain)] == plain)
    return Frame(tuple(ids[:start]), tuple(ids[start + len(plain) :]))


def _target_frame(module: Any, name: str, written: Frame, tag: int | None) -> Frame:
    """What a decoder is given before a target, and what ends one, from what the tokenizer puts around it."""
    settings = module.generation_config
    before, after = written
    if not after:
        ends = settings.eos_token_id
        if not (ends := [ends] if isinstance(ends, int) else ends):
            raise RegardError(f"{name} does not say which token ends a text (eos_token_id)")
        after = (ends[0],)
    if module.config.model_type == "mbart":
        # its decoder starts from the last label
        return Frame((after[-1], *before), after)
    if tag is not None and tag not in before and tag in after:
        # as NLLB's tokenizer once had it; the model is given the tag before the text all the same
        before, after = (tag,), tuple(id for id in after if id != tag)
    forced = getattr(settings, "forced_bos_token_id", None)
    if not before and forced is not None:
        before = (forced,)
    return Frame((decoder_start(module), *before), after)


def _never(*configs: Any) -> tuple[int, ...]:
    """The single tokens that a model is set never to write."""
    words = next((each for config in configs if (each := getattr(config, "bad_words_ids", None))), [])
    return tuple(word[0] for word in words if len(word) == 1)


def decoder_start(module: Any) -> int:
    """The token that an encoder–decoder's target begins from."""
    for config in (module.generation_config, module.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if isinstance(start := getattr(config, name, None), int):
                return start
    raise RegardError("the model does not say which token its decoder starts from (decoder_start_token_id)")


def _unknown(side: str, language: str, tags: dict[str, int], config: Any) -> str:
    if tags:
        near = suggest(language, tags)
        # all of them are too many for a line
        return f"its tokenizer has no tag for {side}_language {language!r}" + (
            near if near.startswith("; did") or len(tags) <= FEW else f"; such are {', '.join(sorted(tags)[:FEW])}"
        )
    tasks = getattr(config, "task_specific_params", None) or {}
    prefixes = [repr(each["prefix"]) for each in tasks.values() if isinstance(each, dict) and "prefix" in each]
    remedy = f"; give source_prefix, such as {', '.join(prefixes[:FEW])}" if prefixes else "; leave it out"
    return f"its tokenizer has no language tags, so it takes no {side}_language{remedy}"
