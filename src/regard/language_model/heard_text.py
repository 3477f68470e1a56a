"""A language model that hears beside a text: sounds in their places of a prompt, its answer, and its reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.data.sound import Waveform, open_sound
from regard.errors import RegardError
from regard.language_model.taken import check_takes
from regard.models.pretrained.needs import quiet, told
from regard.reading.hearing import as_media, frame_tokens, without_rows
from regard.reading.labels import Label, sequence
from regard.reading.media_asked import AskedMedia
from regard.reading.media_sources import find_media_sources
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.record import Sequence as Tokens
from regard.reading.sound_frames import FRAME, Frames, frames_of, merged
from regard.reading.watch import watching

if TYPE_CHECKING:
    from regard.language_model import LanguageModel

# one number a token, and what that is of a token that the model wrote
MASK = "attention_mask"


@dataclass(frozen=True, eq=False)
class HeardPrompt:
    """A prompt with sounds as a model is given it: `prepared` are its arguments.

    `frames` are its encoder's, `in_text` those that stand in the text, each as the token `audio_id`.
    """

    prepared: Mapping[str, Tensor]
    sounds: Sequence[Waveform]
    frames: Frames
    in_text: Frames
    audio_id: int

    @property
    def ids(self) -> list[int]:
        return self.prepared["input_ids"][0].tolist()

    def inputs(self, tokens: Tensor) -> dict[str, Tensor]:
        """Arguments of a run over the prompt and what was written after it."""
        return {**self.prepared, "input_ids": tokens, MASK: torch.ones_like(tokens)}

    def tokens(self, written: Sequence[int], tokenizer: Any) -> Tokens:
        """The text, in which the frames of each sound stand one after another between other tokens."""
        ids = [*self.ids, *written]
        places: dict[int, tuple[int, int]] = {}
        sound, index = -1, 0
        for place, id in enumerate(ids):
            if id != self.audio_id:
                continue
            is_next = place == 0 or ids[place - 1] != self.audio_id
            sound, index = (sound + 1, 0) if is_next else (sound, index + 1)
            places[place] = sound, index
        labels = [
            Label(-1, FRAME, str(places[place][1])) if place in places else Label(id) for place, id in enumerate(ids)
        ]
        found = sequence(labels, tokenizer)
        spans = {
            place: self.in_text.span(index, number, self.sounds[number].seconds)
            for place, (number, index) in places.items()
        }
        tokens = [token._replace(area=spans.get(place)) for place, token in enumerate(found.tokens)]
        return replace(found, tokens=tokens)

    def asking(self, model: "LanguageModel", written: list[int]) -> AskedMedia:
        """What is asked when the sources of an answer are sought."""
        tokens = self.tokens(written, model.tokenizer)
        ended = _ended(model, written)
        return AskedMedia(model.module, tokens, [*self.ids, *written], len(self.ids), self.inputs, ended)


def _ended(model: "LanguageModel", written: Sequence[int]) -> int:
    return int(bool(written) and written[-1] in model.ends)


def heard_prompt(model: "LanguageModel", audio: Sequence[Any], texts: Mapping[str, Any]) -> HeardPrompt:
    """A prompt with sounds.

    Raises RegardError for other than a prompt, for a model whose processor is not known, and as `open_sound`.
    """
    check_takes(model, "audio")
    if set(texts) != {"prompt"} or not str(texts["prompt"]).strip():
        raise RegardError(f"{model.name} hears beside a text: give it a prompt with its audio")
    extractor, config = model.listening.extractor, model.module.config
    frames = frames_of(model.module, extractor)
    in_text = None if frames is None else merged(frames, config)
    audio_id = getattr(config, "audio_token_id", getattr(config, "audio_token_index", None))
    if frames is None or in_text is None or not isinstance(audio_id, int):
        raise RegardError(
            f"{model.name} is a {type(model.module).__name__}, whose sounds cannot be placed in a text yet"
        )
    sounds = [
        open_sound(each, rate=model.listening.rate, most_seconds=model.listening.most_seconds, number=number)
        for number, each in enumerate(audio)
    ]
    return HeardPrompt(_prepared(model, str(texts["prompt"]), sounds), sounds, frames, in_text, audio_id)


def answer_beside_text(model: "LanguageModel", asked: HeardPrompt, max_new_tokens: int) -> list[int]:
    """The tokens that a model writes after a prompt with sounds, always the most likely one."""
    with quiet(), told(f"{model.name}: transformers cannot generate"), torch.inference_mode():
        found = model.module.generate(**asked.prepared, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    return found[0, len(asked.ids) :].tolist()


def read_beside_text(
    model: "LanguageModel",
    audio: Sequence[Any],
    texts: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    max_new_tokens: int,
) -> Reading:
    """What a model looked at in a prompt with sounds, and in the sounds, when it answered.

    Raises RegardError as `heard_prompt`.
    """
    asked = heard_prompt(model, audio, texts)
    read = ReadOptions.of(options, rows="generated")
    return _read(model, asked, answer_beside_text(model, asked, max_new_tokens), read)


def _prepared(model: "LanguageModel", prompt: str, sounds: Sequence[Waveform]) -> dict[str, Tensor]:
    processor = model.processor.backend
    tokenizer = model._tokenizer()
    for spelt in tokenizer.get_added_vocab():
        if spelt in prompt:
            raise RegardError(
                f"the prompt spells {spelt!r}, a special token, which {model.name} cannot be given as text"
            )
    content = [*({"type": "audio", "audio_url": sound.name} for sound in sounds), {"type": "text", "text": prompt}]
    with quiet(), told(f"{model.name}: its processor fails"):
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        given = {"audio": [sound.samples for sound in sounds], "sampling_rate": model.listening.rate}
        found = processor(text=[text], **given, return_tensors="pt")
    weight = next(model.module.parameters())
    moved = {name: each.to(weight.device) for name, each in found.items() if isinstance(each, Tensor)}
    return {name: each.to(weight.dtype) if each.is_floating_point() else each for name, each in moved.items()}


@torch.inference_mode()
def _read(model: "LanguageModel", asked: HeardPrompt, written: list[int], options: ReadOptions) -> Reading:
    ids, count = [*asked.ids, *written], len(asked.ids)
    is_usual = options.rows == "generated"
    if is_usual:
        options = replace(options, rows=slice(count - 1, len(ids)))
    fed = torch.tensor([ids[:-1] if written else ids], device=model.device)
    with watching(model.module, tokenizer=model.tokenizer, name=model.name, **vars(options)) as watch:
        model.module(**asked.inputs(fed), use_cache=False)
    reading = watch.reading(0)
    sequences = {"text": asked.tokens(written, model.tokenizer)}
    if "audio" in reading.sequences and len(asked.sounds) == 1:
        sequences["audio"] = frame_tokens(asked.frames, len(reading.sequences["audio"].tokens), asked.sounds[0])
    seek = lambda options, **how: find_media_sources(asked.asking(model, written), options, **how)  # noqa: E731
    reading = replace(
        reading,
        sequences={name: sequences.get(name, each) for name, each in reading.sequences.items()},
        settings={
            **reading.settings,
            "prompt_tokens": count if written else 0,
            "end_tokens": _ended(model, written),
        },
        media=as_media(asked.sounds),
        knockout=None,
        seek=seek if written else None,
    )
    return without_rows(reading, "encoder") if is_usual and "encoder" in reading.kinds else reading
