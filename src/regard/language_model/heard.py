"""A model that hears: what it writes of a sound, and its reading."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from regard.data.sound import Waveform, open_sound
from regard.errors import RegardError
from regard.generation.result import Generation
from regard.generation.transcribing import Transcript, transcribe
from regard.language_model.heard_text import read_beside_text
from regard.language_model.taken import check_takes
from regard.models.pretrained.listening import Listening, hears, transcribes
from regard.models.pretrained.needs import quiet, told
from regard.reading.hearing import frame_tokens, read_encoder, read_transcript, transcript_tokens
from regard.reading.media_asked import AskedMedia
from regard.reading.media_sources import find_media_sources
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.sound_frames import frames_of

if TYPE_CHECKING:
    from regard.language_model import LanguageModel

# of an answer to a prompt with sounds
MAX_NEW_TOKENS = 64


def sounds_of(audio: Any) -> list[Any]:
    """One sound or several, each as `open_sound` takes it. Raises RegardError where there is none."""
    is_one = isinstance(audio, str | tuple | Mapping | Waveform | np.ndarray) or hasattr(audio, "__fspath__")
    found = [audio] if is_one or not isinstance(audio, list) else list(audio)
    if not found:
        raise RegardError("audio is empty: give a sound, or leave it out")
    return found


def check_hears(model: "LanguageModel") -> Listening:
    """How the model hears. Raises RegardError for one that takes no sound."""
    check_takes(model, "audio")
    if not hears(model.module):
        raise RegardError(f"{model.name} hears beside a text: give it a prompt too")
    return model.listening


def heard(listening: Listening, audio: Any) -> Waveform:
    """The one sound that a model is given, as it hears it."""
    sounds = sounds_of(audio)
    if len(sounds) > 1:
        raise RegardError(f"{listening.name} hears one sound at a time, not {len(sounds)}; give it one")
    return open_sound(sounds[0], rate=listening.rate, most_seconds=listening.most_seconds)


def transcript_of(
    model: "LanguageModel", sound: Waveform, *, language: str | None, task: str | None, max_new_tokens: int | None
) -> tuple[Transcript, dict[str, Any]]:
    """What a speech model writes of a sound, and the arguments that it was given.

    Raises RegardError for a language or task that it does not know, and for more tokens than it takes.
    """
    listening = check_hears(model)
    if not transcribes(model.module):
        raise RegardError(
            f"{model.name} is a {type(model.module).__name__}, which writes nothing; `read` reads how its frames "
            "look at each other"
        )
    prefix, chooses = listening.prefix(language, task)
    room = listening.max_length - len(prefix) - chooses
    if max_new_tokens is not None and not 1 <= max_new_tokens <= room:
        raise RegardError(f"max_new_tokens is {max_new_tokens}; {model.name} writes 1 to {room} of a sound")
    features = listening.features([sound])
    with quiet(), told(f"{model.name}: transformers cannot transcribe"):
        written = transcribe(
            model.module,
            features,
            prefix,
            languages=listening.languages if chooses else (),
            ends=listening.ends,
            suppressed=listening.facts.get("suppress_tokens", ()),
            suppressed_first=listening.facts.get("begin_suppress_tokens", ()),
            max_new_tokens=room if max_new_tokens is None else max_new_tokens,
        )
    return written, features


def generate_heard(
    model: "LanguageModel",
    audio: Any,
    *,
    language: str | None = None,
    task: str | None = None,
    max_new_tokens: int | None = None,
) -> Generation:
    """What `LanguageModel.transcribe` gives."""
    sound = heard(check_hears(model), audio)
    written, _ = transcript_of(model, sound, language=language, task=task, max_new_tokens=max_new_tokens)
    tokenizer = model._tokenizer()
    return Generation(
        text=tokenizer.decode(written.tokens, skip_special_tokens=True).strip(),
        tokens=written.tokens,
        score=written.log_probability / max(1, len(written.tokens)),
        finished=written.finished,
        log_probability=written.log_probability,
    )


def read_heard(
    model: "LanguageModel",
    audio: Any,
    texts: Mapping[str, Any],
    options: dict[str, Any],
    *,
    language: str | None = None,
    task: str | None = None,
    max_new_tokens: int | None = None,
) -> Reading:
    """The reading of what a model heard: of a transcript that it writes first, or of an encoder's frames."""
    if audio is not None and not hears(model.module) and model.writes:
        if language is not None or task is not None:
            raise RegardError(f"{model.name} is told in its prompt what to do; leave out language and task")
        most = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        return read_beside_text(model, sounds_of(audio), texts, options, max_new_tokens=most)
    listening = check_hears(model)
    if audio is None or texts:
        instead = f", not a {next(iter(texts))}" if texts else ""
        raise RegardError(f"{model.name} hears: give it audio (--audio FILE){instead}")
    sound = heard(listening, audio)
    module, config = model.module, model.module.config
    frames = frames_of(module, listening.extractor)
    if not transcribes(module):
        if language is not None or task is not None:
            raise RegardError(f"{model.name} writes nothing; leave out language and task")
        read = ReadOptions.of(options, rows="all")
        with told(f"{model.name}: transformers cannot run it on {sound.name}"):
            return read_encoder(module, listening.features([sound]), sound, frames, read, facts={}, name=model.name)
    read = ReadOptions.of(options, rows="generated")
    written, features = transcript_of(model, sound, language=language, task=task, max_new_tokens=max_new_tokens)
    settings = {
        "alignment_heads": listening.facts.get("alignment_heads"),
        "median_filter_width": getattr(config, "median_filter_width", None),
        "decoder_layers": getattr(config, "decoder_layers", None) or getattr(config, "decoder_num_hidden_layers", None),
    }
    reading = read_transcript(
        module,
        model._tokenizer(),
        features,
        sound,
        frames,
        written.prefix,
        written.tokens,
        read,
        ends=listening.ends,
        facts={name: value for name, value in settings.items() if value is not None},
        name=model.name,
    )
    if not written.tokens:
        return reading
    asked = partial(asked_transcript, model, sound, features, written.prefix, written.tokens)
    return replace(reading, seek=lambda options, **how: find_media_sources(asked(), options, **how))


def asked_transcript(
    model: "LanguageModel",
    sound: Waveform,
    features: dict[str, Any],
    prefix: list[int],
    written: list[int],
) -> AskedMedia:
    """What is asked when the sources of a transcript are sought: its text looks across at the frames of the sound."""
    module, listening = model.module, model.listening
    with torch.inference_mode(False), torch.no_grad(), quiet():
        encoded = module.get_encoder()(**features)
    frames = frame_tokens(frames_of(module, listening.extractor), encoded.last_hidden_state.shape[1], sound)
    return AskedMedia(
        module,
        transcript_tokens(prefix, written, model._tokenizer()),
        [*prefix, *written],
        len(prefix),
        lambda tokens: {"encoder_outputs": encoded, "decoder_input_ids": tokens},
        int(bool(written) and written[-1] in listening.ends),
        frames,
    )
