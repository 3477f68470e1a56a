"""A model that is given pictures: what it takes, what its processor makes of them, and its reading."""

import inspect
import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.data.media import OpenedImage, open_image
from regard.data.messages import are_parts, check_messages
from regard.errors import RegardError
from regard.generation.writing import Writing
from regard.language_model.batch import write_batch
from regard.language_model.taken import check_takes
from regard.models.pretrained.needs import quiet, told
from regard.models.pretrained.pictured_texts import Asked, PicturedTexts, pictures_in
from regard.models.pretrained.processors import Prepared, vision_of
from regard.models.pretrained.texts import Encoded, Turn
from regard.reading.areas import Places, Shown, places_of
from regard.reading.labels import Label
from regard.reading.language import followed, read_tokens, settings_of
from regard.reading.media import Picture
from regard.reading.media_asked import AskedMedia
from regard.reading.media_sources import find_media_sources
from regard.reading.options import ReadOptions
from regard.reading.parts import placeholders
from regard.reading.reading import Reading
from regard.reading.watch import watching

if TYPE_CHECKING:
    from regard.language_model import LanguageModel

logger = logging.getLogger("regard")

# what of the inputs is one number a token, and what it is of a token that the model wrote
BY_TOKEN = {"attention_mask": 1, "token_type_ids": 0, "mm_token_type_ids": 0, "image_embeds_position_mask": 0}
# weights of a reading of pictures alone
MOST_BYTES = 1 << 32
# families whose own numbers differ: PaliGemma sees its prompt both ways, and not what it writes
OWN_BY_TOKEN = {"paligemma": {"token_type_ids": 1}}


def has_pictures(model: "LanguageModel", images: Any, messages: Any) -> bool:
    """Whether a model is asked about pictures: given beside a prompt, or as parts of messages.

    Messages in parts are taken as such by a model that sees, whatever these are.
    """
    listed = messages if isinstance(messages, list | tuple) else ()
    contents = [each.get("content") for each in listed if isinstance(each, Mapping)]
    parts: list[Any] = [part for content in contents if are_parts(content) for part in content or ()]
    kinds = {part.get("type") for part in parts if isinstance(part, Mapping)}
    return images is not None or bool(kinds & {"image", "image_url"}) or bool(parts and "images" in model.takes)


@dataclass(frozen=True, eq=False)
class Pictured:
    """A prompt with pictures as a model is given it: `given` is its text, `others` are its positions of no token."""

    pictures: Sequence[OpenedImage]
    given: Encoded
    prepared: Prepared
    places: Places
    others: Mapping[int, Label]

    def inputs(self, tokens: Tensor, module: Any) -> dict[str, Any]:
        """Arguments of a run over the prompt and what was written after it."""
        length = tokens.shape[1]
        by_token = BY_TOKEN | OWN_BY_TOKEN.get(getattr(module.config, "model_type", ""), {})
        found: dict[str, Any] = {"input_ids": tokens}
        for name, value in on_device(self.prepared.inputs, module).items():
            if name in by_token:
                added = value.new_full((1, length - value.shape[1]), by_token[name])
                found[name] = torch.cat([value, added], dim=1)
            elif name == "cross_attention_mask":
                # what is written sees what the last of the prompt saw
                found[name] = torch.cat([value, value[:, -1:].expand(-1, length - value.shape[1], -1, -1)], dim=1)
            elif name != "input_ids":
                found[name] = value
        return found

    def asking(self, model: "LanguageModel", written: list[int]) -> AskedMedia:
        """What is asked when the sources of an answer are sought."""
        ends = model.ends | self.given.ends
        return AskedMedia(
            model.module,
            followed(self.given, written, model.tokenizer, self.others),
            [*self.given.ids, *written],
            len(self.given.ids),
            lambda tokens: self.inputs(tokens, model.module),
            settings_of(self.given, written, ends)["end_tokens"],
            self.places.sequences().get("source"),
        )

    def next_inputs(self, tokens: Tensor, module: Any) -> dict[str, Any]:
        """Arguments of a run over what was written last, with a cache of what came before."""
        found: dict[str, Any] = {"input_ids": tokens}
        if "cross_attention_mask" in self.prepared.inputs:
            last = on_device(self.prepared.inputs, module)["cross_attention_mask"][:, -1:]
            found["cross_attention_mask"] = last.expand(*tokens.shape, -1, -1)
        return found


def on_device(inputs: Mapping[str, Any], module: Any) -> dict[str, Any]:
    """Inputs where the module is, and fractions in its dtype."""
    weight = next(module.parameters())
    moved = {name: each.to(weight.device) for name, each in inputs.items() if isinstance(each, Tensor)}
    return {name: each.to(weight.dtype) if each.is_floating_point() else each for name, each in moved.items()}


def opened(images: Any) -> list[OpenedImage]:
    """Pictures as a user gives them: one or several. Raises RegardError as `open_image`."""
    listed = images if isinstance(images, list | tuple) else [images]
    if not listed:
        raise RegardError("images is empty; give at least one picture, or leave it out")
    return [open_image(image, f"image {number}") for number, image in enumerate(listed, start=1)]


def pictured(
    model: "LanguageModel",
    prompt: str | None,
    *,
    images: Any,
    messages: Any = None,
    documents: Any = None,
    tools: Any = None,
    chat: bool = False,
    asks: bool = True,
) -> Pictured:
    """A prompt or messages with pictures.

    With `chat` the prompt is a message; one that `asks`, and has no place for its pictures, is one where it can be.
    Raises RegardError for a model that takes none, and for what it refuses."""
    check_takes(model, "images")
    if (prompt is None) == (messages is None):
        raise RegardError("give a prompt or messages beside the images" + (", not both" if prompt is not None else ""))
    texts = PicturedTexts(model.processor, model.name)
    if messages is not None:
        check_messages(messages, has_parts=True)
        beside = [] if images is None else list(images) if isinstance(images, list | tuple) else [images]
        found = pictures_in(messages, beside)
        pictures = opened(found) if found else []
        extras = {"documents": documents, "tools": tools}
        asked = texts.chat(messages, **{name: value for name, value in extras.items() if value is not None})
    else:
        assert prompt is not None
        if documents is not None or tools is not None:
            raise RegardError("documents and tools go into a chat template: give messages")
        pictures = opened(images)
        asked = texts.message(prompt, len(pictures)) if chat else texts.prompt(prompt, len(pictures), chats=asks)
    return _encoded(model, texts, asked, pictures)


def _encoded(model: "LanguageModel", texts: PicturedTexts, asked: Asked, pictures: list[OpenedImage]) -> Pictured:
    given, prepared = texts.encode(asked, [picture.image for picture in pictures])
    places = _places(model, pictures, prepared, lambda images: texts.encode(asked, images)[1].inputs)
    sorts = placeholders(model.module)
    # where the text looks across at its pictures, their place in it is a token
    sorts = {} if places.source else sorts
    held = [position for position, id in enumerate(given.ids) if sorts.get(id) == "image patch"]
    known = places.text if len(places.text) == len(held) else []
    labels = known or [Label(-1, "image patch", str(index)) for index in range(len(held))]
    others = dict(zip(held, labels, strict=True))
    return Pictured(pictures, _named(given, others), prepared, places, others)


def _places(model: "LanguageModel", pictures: list[OpenedImage], prepared: Prepared, prepare: Any) -> Places:
    """What each key stands for, where the processor's own ways can be followed."""
    if not pictures:
        return Places([], [])
    sizes = [(picture.width, picture.height) for picture in pictures]
    tiles = model.processor.tiles(sizes, prepare)
    return places_of(Shown(model.module, prepared.inputs, tiles, len(pictures)))


def _named(given: Encoded, others: Mapping[int, Label]) -> Encoded:
    """The text with names in place of what holds no token, as readings have it."""
    text, position = "", 0
    offsets: list[tuple[int, int]] = []
    # where the old text goes on behind each name, and the new one
    old, now = [0], [0]
    for index, (start, end) in enumerate(given.offsets):
        if index not in others:
            offsets.append((start, end))
            continue
        text += given.text[position:start]
        text += " " * bool(text and not text[-1].isspace())
        name = others[index].name
        offsets.append((len(text), len(text) + len(name)))
        text, position = text + name, end
        is_last = index + 1 not in others
        text += " " * (is_last and not given.text[end : end + 1].isspace())
        old.append(end)
        now.append(len(text))
    text += given.text[position:]

    def new(place: int) -> int:
        index = bisect_right(old, place) - 1
        return now[index] + place - old[index]

    offsets = [
        pair if index in others else (new(pair[0]), new(pair[1]) if pair[1] > pair[0] else new(pair[0]))
        for index, pair in enumerate(offsets)
    ]
    turns = tuple(Turn(turn.role, new(turn.start), new(turn.end)) for turn in given.turns)
    return replace(given, text=text, offsets=offsets, turns=turns)


def answer_of(model: "LanguageModel", asked: Pictured, max_new_tokens: int) -> list[int]:
    """The tokens that a model writes after a prompt with pictures, always the most likely one."""
    model.check_length(len(asked.given.ids), max_new_tokens)
    tokens = torch.tensor([asked.given.ids], device=model.device)
    beside = {name: each for name, each in asked.inputs(tokens, model.module).items() if name != "input_ids"}
    return model.adapter.generate(tokens, max_new_tokens, model.ends | asked.given.ends, **beside)


def read_answer(
    model: "LanguageModel",
    asked: Pictured,
    written: list[int],
    options: ReadOptions,
    *,
    is_likeliest: bool = False,
) -> Reading:
    """What a model looked at in pictures and their text, and what it wrote after them."""
    count = max(1, len(written))
    settings = model.adapter.settings()
    if "logits_to_keep" in settings:
        settings["logits_to_keep"] = count
    logits: list[Tensor] = []
    hook = model.module.register_forward_hook(lambda _, given, output: logits.append(output.logits[0, -count:].float()))
    with hook, quiet(), told(f"{model.name}: transformers cannot run it on these pictures"):
        reading = read_tokens(
            model.module,
            model.tokenizer,
            asked.given,
            written,
            options,
            ends=model.ends | asked.given.ends,
            inputs=lambda tokens: asked.inputs(tokens, model.module) | settings,
            name=model.name,
            others=asked.others,
            known=asked.places.sequences(),
        )
    if is_likeliest and written:
        _check_same(model, logits[0], written)
    if written:
        seek = lambda options, **how: find_media_sources(asked.asking(model, written), options, **how)  # noqa: E731
        reading = replace(reading, seek=seek)
    return _shown(reading, asked.pictures)


def _check_same(model: "LanguageModel", logits: Tensor, written: list[int]) -> None:
    """Log a warning where the run that is read would have written something else than `generate` did."""
    if getattr(model.module.generation_config, "bad_words_ids", None):
        return
    chosen = logits.gather(1, torch.tensor(written, device=logits.device)[:, None])[:, 0]
    missed = (logits.amax(1) - chosen) / logits.std(1)
    # rounding differs between a step on a cache and a run over all of it
    is_fine = torch.finfo(next(model.module.parameters()).dtype).eps < 1e-4
    far = (missed > (0.05 if is_fine else 0.5)).nonzero()
    if len(far):
        logger.warning(
            "%s: token %d of its answer is not the one that the run that is read would write: this family may see its "
            "pictures otherwise in generate, so that its rows are not those of the answer",
            model.name,
            int(far[0]) + 1,
        )


def read_images(model: "LanguageModel", images: Any, options: ReadOptions) -> Reading:
    """What a vision model looked at in pictures alone."""
    check_takes(model, "images")
    pictures = opened(images)
    prepared = model.processor.prepare(None, [picture.image for picture in pictures])
    module = vision_of(model.module)
    prepare = lambda images: model.processor.prepare(None, images).inputs  # noqa: E731
    places = _places(model, pictures, prepared, prepare)
    _check_memory(model, module, len(places.vision), options)
    names = _arguments(module)
    inputs = {name: each for name, each in on_device(prepared.inputs, model.module).items() if name in names}
    with quiet(), told(f"{model.name}: transformers cannot run it on these pictures"):
        with torch.inference_mode(), watching(module, name=model.name, **vars(options)) as watch:
            watch.is_one = True
            watch.wanted = replace(watch.wanted, known=places.sequences())
            module(**inputs)
        reading = watch.reading(0)
    return _shown(reading, pictures)


def _check_memory(model: "LanguageModel", module: Any, count: int, options: ReadOptions) -> None:
    """Raises RegardError where all rows of a vision model are too many to be kept."""
    config = getattr(module.config, "vision_config", module.config)
    layers, heads = (getattr(config, name, 0) for name in ("num_hidden_layers", "num_attention_heads"))
    if options.rows == "all" and options.layers is None and isinstance(layers, int) and isinstance(heads, int):
        size = 4 * count**2 * layers * heads
        if size > MOST_BYTES:
            raise RegardError(
                f"all {count:,} rows of the {layers} layers of {model.name} are {size / 1e9:.1f} GB of weights; choose "
                "rows (--rows 0) or layers (--layers -1)"
            )


def _arguments(module: Any) -> Any:
    return inspect.signature(module.forward).parameters


def _shown(reading: Reading, pictures: Sequence[OpenedImage]) -> Reading:
    """The reading with its pictures."""
    media = []
    for picture in pictures:
        media_type, data = picture.encoded()
        media.append(Picture(picture.name, media_type, data, picture.width, picture.height))
    return replace(reading, media=media)


def read_with(
    model: "LanguageModel",
    texts: Mapping[str, Any],
    images: Any,
    options: Mapping[str, Any],
    *,
    max_new_tokens: int,
    chat: bool = False,
    documents: Any = None,
    tools: Any = None,
) -> Reading:
    """`LanguageModel.read` of pictures, with one of prompt, messages and text or alone."""
    check_takes(model, "images")
    if len(texts) > 1:
        raise RegardError(f"give one of prompt, messages and text beside the images, not {' and '.join(texts)}")
    if not texts:
        if model.writes:
            raise RegardError(
                f"{model.name} writes about pictures; give it a prompt (--prompt) or messages beside them"
            )
        return read_images(model, images, ReadOptions.of(options, rows="all"))
    check_takes(model, "text")
    ((name, value),) = texts.items()
    if isinstance(value, str) and not value.strip():
        raise RegardError(f"the {name} is empty; give it a text, or images alone")
    asks = name != "text"
    if asks and not model.writes:
        raise RegardError(f"{model.name} writes nothing; give it images alone, or with a text")
    read = ReadOptions.of(options, rows="generated" if asks else "last" if model.writes else "all")
    messages = value if name == "messages" else None
    prompt = None if name == "messages" else value
    how = {"messages": messages, "documents": documents, "tools": tools, "chat": chat, "asks": asks}
    asked = pictured(model, prompt, images=images, **how)
    written = answer_of(model, asked, max_new_tokens) if asks else []
    return read_answer(model, asked, written, read, is_likeliest=asks)


def generate_pictured(
    model: "LanguageModel",
    prompt: Any,
    images: Any,
    writing: Writing,
    chats: Mapping[str, Any],
    *,
    n: int,
    stream: Callable[[str], None] | None,
    going_on: Callable[[], bool],
) -> Any:
    """`LanguageModel.generate` of one prompt with pictures."""
    if prompt is not None and not isinstance(prompt, str):
        raise RegardError("images go with a single prompt; call generate for each")
    check_takes(model, "images")
    if not model.writes:
        raise RegardError(f"{model.name} writes nothing; read shows what it looks at in images")
    if _arguments(model.module)["pixel_values"].default is inspect.Parameter.empty:
        # it would be given the picture again with each token
        raise RegardError(f"{model.name} is not run token by token here; read writes about images, and shows them")
    asked = pictured(model, prompt, images=images, **chats)
    how: dict[str, Any] = {"stream": stream, "going_on": going_on}
    found = write_batch(
        model,
        [asked.given.ids],
        writing,
        ends=model.ends | asked.given.ends,
        samples=n,
        beside=lambda tokens, is_first: (asked.inputs if is_first else asked.next_inputs)(tokens, model.module),
        **how,
    )
    return found if n > 1 else found[0]
