"""A language model that hears beside a text: sounds in their places of a prompt, its answer, and its reading."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.data.sound import Waveform, open_sound
from regard.errors import RegardError
from regard.language_model.taken import check_takes
from regard.models.pretrained.needs import quiet, told
from regard.reading.hearing import as_media, frame_tokens, without_rows
from regard.reading.labels import Label, sequence
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.record import Sequence as Tokens
from regard.reading.sound_frames import FRAME, Frames, frames_of, merged
from regard.reading.watch import watching

if TYPE_CHECKING:
    from regard.language_model import LanguageModel

# one number a token, and what that is of a token that the model wrote
MASK = "attention_mask"


def read_beside_text(
    model: "LanguageModel",
    audio: Sequence[Any],
    texts: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    max_new_tokens: int,
) -> Reading:
    """What a model looked at in a prompt with sounds, and in the sounds, when it answered.

    Raises RegardError for other than a prompt, for a model whose processor is not known, and as `open_sound`.
    """
    check_takes(model, "audio")
    if set(texts) != {"prompt"} or not str(texts["prompt"]).strip():
        raise RegardError(f"{model.name} hears beside a text: give it a prompt with its audio")
    extractor, config = model.listening.extractor, model.module.config
    frames = frames_of(model.module, extractor)
    in_text = None if frames is None else merged(frames, config)
    audio_id = getattr(config, "audio_token_id", getattr(config, "audio_token_index", None))
    if in_text is None or not isinstance(audio_id, int):
        raise RegardError(
            f"{model.name} is a {type(model.module).__name__}, whose sounds cannot be placed in a text yet"
        )
    sounds = [
        open_sound(each, rate=model.listening.rate, most_seconds=model.listening.most_seconds, number=number)
        for number, each in enumerate(audio)
    ]
    inputs = _prepared(model, str(texts["prompt"]), sounds)
    read = ReadOptions.of(options, rows="generated")
    prompt = inputs["input_ids"]
    with quiet(), told(f"{model.name}: transformers cannot generate"), torch.inference_mode():
        found = model.module.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    written = found[0, prompt.shape[1] :].tolist()
    return _read(model, inputs, written, sounds, read, frames=frames, in_text=in_text, audio_id=audio_id)


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
def _read(
    model: "LanguageModel",
    inputs: dict[str, Tensor],
    written: list[int],
    sounds: Sequence[Waveform],
    options: ReadOptions,
    *,
    frames: Frames | None,
    in_text: Frames,
    audio_id: int,
) -> Reading:
    prompt = inputs["input_ids"][0].tolist()
    ids = [*prompt, *written]
    is_usual = options.rows == "generated"
    if is_usual:
        options = replace(options, rows=slice(len(prompt) - 1, len(ids)))
    fed = torch.tensor([ids[:-1] if written else ids], device=model.device)
    given = {**inputs, "input_ids": fed, MASK: torch.ones_like(fed)}
    with watching(model.module, tokenizer=model.tokenizer, name=model.name, **vars(options)) as watch:
        model.module(**given, use_cache=False)
    reading = watch.reading(0)
    sequences = {"text": _text(ids, sounds, in_text, audio_id, model.tokenizer)}
    if "audio" in reading.sequences and len(sounds) == 1:
        sequences["audio"] = frame_tokens(frames, len(reading.sequences["audio"].tokens), sounds[0])
    reading = replace(
        reading,
        sequences={name: sequences.get(name, each) for name, each in reading.sequences.items()},
        settings={
            **reading.settings,
            "prompt_tokens": len(prompt) if written else 0,
            "end_tokens": int(bool(written) and written[-1] in model.ends),
        },
        media=as_media(sounds),
        knockout=None,
    )
    return without_rows(reading, "encoder") if is_usual and "encoder" in reading.kinds else reading


def _text(ids: Sequence[int], sounds: Sequence[Waveform], frames: Frames, audio_id: int, tokenizer: Any) -> Tokens:
    """The text with the frames of each sound, which stand one after another between other tokens."""
    places: dict[int, tuple[int, int]] = {}
    sound, index = -1, 0
    for place, id in enumerate(ids):
        if id != audio_id:
            continue
        is_next = place == 0 or ids[place - 1] != audio_id
        sound, index = (sound + 1, 0) if is_next else (sound, index + 1)
        places[place] = sound, index
    labels = [Label(-1, FRAME, str(places[place][1])) if place in places else Label(id) for place, id in enumerate(ids)]
    found = sequence(labels, tokenizer)
    spans = {place: frames.span(index, number, sounds[number].seconds) for place, (number, index) in places.items()}
    tokens = [token._replace(area=spans.get(place)) for place, token in enumerate(found.tokens)]
    return replace(found, tokens=tokens)
