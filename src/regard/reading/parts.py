"""What a model, or a model within it, was given: its sequence, where that begins, and which ids were fed in truth."""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.attention.key_values import KeyValues
from regard.generation.steps import CACHES as FOREIGN_CACHES

# `past` is Regard's own
CACHES = (*FOREIGN_CACHES, "past")
PIXELS = ("pixel_values", "pixel_values_videos", "flattened_patches", "image_patches")
SOUND = ("input_features", "input_values")
# settings of multimodal models: the token that holds the place of another sort
PLACEHOLDERS = {
    "image_token_id": "image patch",
    "image_token_index": "image patch",
    "video_token_id": "image patch",
    "audio_token_id": "audio frame",
    "audio_token_index": "audio frame",
}


@dataclass(eq=False)
class Part:
    """What one forward of a model, or of a model within it, was given.

    `slots` are positions with padding, `length` those that it was fed, after `start` in its cache. `mask` is true where
    a slot is a token, by a mask of [batch, slot]; None where it was given none. `known` is true where an id is proved
    to be what was fed: given as such, or by its embedding.
    """

    path: str
    module: Any
    outer: "Part | None"
    batch_size: int | None = None
    start: int = 0
    length: int = 0
    tokens: Int[Tensor, "batch slot"] | None = None
    known: Bool[Tensor, "batch slot"] | None = None
    mask: Bool[Tensor, "batch slot"] | None = None
    cache: Any = None
    modality: str | None = None
    # whether it was fed tokens and nothing that changes what they are or see
    is_plain: bool = False
    pixels: tuple[int, ...] | None = None
    # of an encoder–decoder, what its encoder was given
    source: "Part | None" = None
    # what it returned, by identity, for whoever is given that
    output_id: int | None = None

    @property
    def chain(self) -> Iterator["Part"]:
        """This part and those around it, the innermost first."""
        part: Part | None = self
        while part is not None:
            yield part
            part = part.outer

    @property
    def main(self) -> "Part":
        """The innermost part that was given a sequence, or the innermost."""
        return next((each for each in self.chain if each.modality is not None), self)


def part_of(path: str, module: Any, given: Mapping[str, Any], outer: Part | None, fed: Tensor | None = None) -> Part:
    """What a model is given, by the names of its arguments; `fed` are the ids that `generate` was given, if any."""
    is_pair = "decoder_input_ids" in inspect.signature(module.forward).parameters and (
        given.get("decoder_input_ids") is not None
        or getattr(getattr(module, "config", None), "is_encoder_decoder", False)
    )
    if not is_pair:
        return _folded(_part(path, module, given, outer, fed))
    part = _part(
        path,
        module,
        {
            "input_ids": _decoder_ids(module, given),
            "inputs_embeds": given.get("decoder_inputs_embeds"),
            "attention_mask": given.get("decoder_attention_mask"),
            **{name: given.get(name) for name in CACHES},
        },
        outer,
    )
    part = _folded(part)
    named = ("input_ids", "inputs_embeds", "attention_mask", *PIXELS, *SOUND)
    part.source = _part(path, module, {name: given.get(name) for name in named}, None)
    part.batch_size = part.batch_size or part.source.batch_size
    return part


def _decoder_ids(module: Any, given: Mapping[str, Any]) -> Any:
    ids = given.get("decoder_input_ids")
    labels, shift = given.get("labels"), getattr(module, "prepare_decoder_input_ids_from_labels", None)
    if ids is None and given.get("decoder_inputs_embeds") is None and isinstance(labels, Tensor) and shift is not None:
        return shift(labels=labels)
    return ids


def _part(path: str, module: Any, given: Mapping[str, Any], outer: Part | None, fed: Tensor | None = None) -> Part:
    # Regard's own model calls them tokens
    ids = given.get("input_ids", given.get("tokens"))
    embeds = given.get("inputs_embeds")
    ids, embeds = (each if isinstance(each, Tensor) else None for each in (ids, embeds))
    main = ids if ids is not None else embeds
    cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
    pixels = next((given[name] for name in PIXELS if isinstance(given.get(name), Tensor)), None)
    sound = next((given[name] for name in SOUND if isinstance(given.get(name), Tensor)), None)
    kinds = (("text", main), ("vision", pixels), ("audio", sound))
    # patches of all pictures in one row, whose number the sizes of their grids tell
    size = batch_size_of(given.get("grid_thw")) or batch_size_of(given)
    part = Part(
        path=path,
        module=module,
        outer=outer,
        batch_size=main.shape[0] if main is not None and main.dim() > 1 else size,
        start=length_of(cache, getattr(module, "config", None)),
        length=main.shape[1] if main is not None and main.dim() > 1 else 0,
        tokens=ids.detach().cpu() if ids is not None and ids.dim() == 2 and not ids.is_floating_point() else None,
        mask=_token_mask(given.get("attention_mask")),
        cache=cache,
        modality=next((name for name, tensor in kinds if tensor is not None), None),
        is_plain=_is_plain(given, is_written=fed is not None),
        pixels=None if pixels is None else tuple(pixels.shape),
    )
    if isinstance(cache, KeyValues) and cache.padding is not None:
        slots = torch.arange(part.start + part.length, device=cache.padding.device)
        part.mask = (slots >= cache.padding[:, None]).cpu()
    if part.tokens is not None:
        part.known = _no_placeholder(part.tokens, module)
        # Kosmos-2 is told by a mask where its picture stands
        places = given.get("image_embeds_position_mask")
        if isinstance(places, Tensor) and places.shape == part.tokens.shape:
            part.known &= ~places.bool().cpu()
    elif embeds is not None:
        _prove(part, embeds, fed)
        if part.tokens is None and outer is not None and outer.modality in ("vision", "audio"):
            # what stands for a picture or sound came as embeddings
            part.modality = outer.modality
    return part


def _folded(part: Part) -> Part:
    """MusicGen's decoder is fed a row of ids of every codebook for one sequence: no position has a token of its own."""
    config: Any = getattr(part.module, "config", None)
    if part.tokens is not None and str(getattr(config, "model_type", None)).startswith("musicgen"):
        codebooks = getattr(config.get_text_config(decoder=True), "num_codebooks", 1)
        part.batch_size, part.tokens, part.known = len(part.tokens) // codebooks, None, None
    return part


def _is_plain(given: Mapping[str, Any], *, is_written: bool) -> bool:
    """Whether the tensors among the arguments are ids and their mask, and what `generate` makes of these."""
    made = {"input_ids", "tokens", "attention_mask", *({"position_ids"} if is_written else ())}
    mask = given.get("attention_mask")
    if mask is not None and not is_written and not (isinstance(mask, Tensor) and mask.dim() == 2):
        return False
    return all(name in made for name, value in given.items() if isinstance(value, Tensor))


def _no_placeholder(tokens: Tensor, module: Any) -> Tensor:
    known = torch.ones_like(tokens, dtype=torch.bool)
    for id in placeholders(module):
        known &= tokens != id
    return known


def placeholders(module: Any) -> dict[int, str]:
    """The ids that hold the place of something else, and of which sort that is."""
    config = getattr(module, "config", None)
    found = {getattr(config, name, None): sort for name, sort in PLACEHOLDERS.items()}
    return {id: sort for id, sort in found.items() if isinstance(id, int)}


def _prove(part: Part, embeds: Tensor, fed: Tensor | None) -> None:
    """Find the ids of these embeddings among what was given around them, and prove them by their embeddings."""
    for module, tokens in ((part.module, fed), *((outer.module, outer.tokens) for outer in part.chain)):
        if tokens is None or len(embeds) % len(tokens) or tokens.shape[1] > embeds.shape[1]:
            continue
        # beams and samples of one prompt follow each other
        tokens = tokens.repeat_interleave(len(embeds) // len(tokens), dim=0)
        table: Any = getattr(module, "get_input_embeddings", lambda: None)()
        if not isinstance(getattr(table, "weight", None), Tensor):
            return
        # a prompt that was learned stands before the text
        before = embeds.shape[1] - tokens.shape[1]
        ids = tokens.to(embeds.device).clamp(0, len(table.weight) - 1)
        same = (type(table).forward(table, ids).to(embeds.dtype) == embeds[:, before:]).all(-1).cpu()
        same &= (tokens >= 0) & (tokens < len(table.weight))
        if not same.any():
            return
        part.tokens = torch.cat([tokens.new_full((len(tokens), before), -1), tokens], dim=1)
        part.known = torch.cat([same.new_zeros(len(same), before), same], dim=1)
        return


def _token_mask(mask: Any) -> Tensor | None:
    """True where a slot holds a token; None where nothing says so."""
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    return mask.detach().bool().cpu()


def length_of(cache: Any, config: Any) -> int:
    """How many slots of the model's own sequence a cache holds; a layer without attention counts none."""
    if isinstance(cache, KeyValues):
        return cache.length
    cache = getattr(cache, "self_attention_cache", cache)
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    # the keys of a picture are no part of the text
    others = set(getattr(config, "cross_attention_layers", None) or ())
    layers = [layer for index, layer in enumerate(getattr(cache, "layers", None) or [cache]) if index not in others]
    return max((int(each.get_seq_length()) for each in layers if hasattr(each, "get_seq_length")), default=0)


def batch_size_of(value: Any) -> int | None:
    """How many sequences there are in the first tensor found among a model's inputs."""
    if isinstance(value, Tensor):
        return value.shape[0] if value.dim() else None
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((size for size in map(batch_size_of, value) if size is not None), None)
    return None


def pictures_of(parts: Iterable[Part]) -> int:
    """How many pictures or tiles models were given; windows within a picture are more, in an order of their own."""
    shapes = [part.pixels for part in parts if part.pixels is not None]
    return max((math.prod(shape[:-3]) for shape in shapes if len(shape) > 3), default=0)
