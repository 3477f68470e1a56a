"""Sources of an answer about pictures or sounds: which regions and spans of them it rests on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.language_model.heard import MAX_NEW_TOKENS, asked_transcript, check_hears, heard, sounds_of, transcript_of
from regard.language_model.heard_text import answer_beside_text, heard_prompt
from regard.language_model.seen import answer_of, pictured
from regard.models.pretrained.listening import hears
from regard.reading.media_asked import AskedMedia
from regard.reading.media_sources import MediaSources, find_media_sources
from regard.reading.sources import SourceOptions

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


def media_sources(
    model: "LanguageModel",
    prompt: str | None,
    options: Mapping[str, Any],
    *,
    images: Any,
    audio: Any,
    chats: Mapping[str, Any],
    voices: Mapping[str, Any],
    answer: str | None,
    contrast: str | None,
    max_new_tokens: int | None,
    progress: Callable[[int], None],
) -> MediaSources:
    """`LanguageModel.sources` of pictures or sounds; `chats` are its arguments of a chat, `voices` those of a sound.

    Raises RegardError for options that are of passages of a text, and as `LanguageModel.sources`.
    """
    if contrast is not None:
        raise RegardError("parts of a picture or sound are sought without contrast; leave that out")
    chosen = SourceOptions.of_settings(options)
    if not model.writes and not hears(model.module):
        raise RegardError(f"{model.name} writes no text; sources need a model that answers")
    if audio is None and not hears(model.module):
        _refuse(voices, "goes with audio")
        asked = _about_pictures(model, prompt, images, chats, answer, max_new_tokens)
    elif images is not None:
        raise RegardError("give images or audio, not both")
    else:
        others = {name: value for name, value in chats.items() if name != "chat"}
        _refuse(others, "goes without audio")
        if hears(model.module):
            asked = _transcript(model, prompt, audio, voices, answer, max_new_tokens)
        else:
            _refuse(voices, f"is of speech models; {model.name} is told in its prompt what to do")
            asked = _about_sounds(model, prompt, audio, answer, max_new_tokens)
    return find_media_sources(asked, chosen, progress=progress)


def _refuse(given: Mapping[str, Any], why: str) -> None:
    if wrong := [name for name, value in given.items() if value is not None]:
        raise RegardError(f"{wrong[0]} {why}; leave it out")


def _most(max_new_tokens: int | None) -> int:
    return MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens


def _about_pictures(
    model: "LanguageModel",
    prompt: str | None,
    images: Any,
    chats: Mapping[str, Any],
    answer: str | None,
    max_new_tokens: int | None,
) -> AskedMedia:
    if prompt is not None and not prompt.strip():
        raise RegardError("the prompt is empty; ask something about the images")
    asked = pictured(model, prompt, images=images, **chats)
    if answer is None:
        return asked.asking(model, answer_of(model, asked, _most(max_new_tokens)))
    written = model._texts().encode_answer(answer)
    model.check_length(len(asked.given.ids) + len(written))
    return asked.asking(model, written)


def _about_sounds(
    model: "LanguageModel", prompt: str | None, audio: Any, answer: str | None, max_new_tokens: int | None
) -> AskedMedia:
    asked = heard_prompt(model, sounds_of(audio), {} if prompt is None else {"prompt": prompt})
    if answer is None:
        return asked.asking(model, answer_beside_text(model, asked, _most(max_new_tokens)))
    return asked.asking(model, model._texts().encode_answer(answer))


def _transcript(
    model: "LanguageModel",
    prompt: str | None,
    audio: Any,
    voices: Mapping[str, Any],
    answer: str | None,
    max_new_tokens: int | None,
) -> AskedMedia:
    listening = check_hears(model)
    if prompt is not None or audio is None:
        raise RegardError(f"{model.name} hears: give it audio (--audio FILE){', not a prompt' if prompt else ''}")
    sound = heard(listening, audio)
    most = max_new_tokens if answer is None else 1
    written, features = transcript_of(model, sound, **voices, max_new_tokens=most)
    tokens = written.tokens
    if answer is not None:
        # a transcript may begin with the space that most of its words do
        lead = " " * model.decode(tokens[:1]).startswith(" ")
        tokens = model._texts().encode_answer(lead + answer.strip())
    return asked_transcript(model, sound, features, written.prefix, tokens)
