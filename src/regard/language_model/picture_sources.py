"""Sources of an answer about pictures: which of their regions it rests on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.language_model.seen import answer_of, pictured
from regard.models.pretrained.needs import quiet
from regard.reading.language import followed, settings_of
from regard.reading.media_sources import AskedMedia, MediaSources, find_media_sources
from regard.reading.sources import SourceOptions

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


def picture_sources(
    model: "LanguageModel",
    prompt: str | None,
    images: Any,
    options: Mapping[str, Any],
    *,
    answer: str | None,
    contrast: str | None,
    max_new_tokens: int,
    progress: Callable[[int], None],
    **chats: Any,
) -> MediaSources:
    """`LanguageModel.sources` of a prompt or messages with pictures.

    Raises RegardError for options that are of passages of a text, and as `LanguageModel.sources`.
    """
    chosen = SourceOptions.of_settings(options)
    usual = vars(SourceOptions(confirm=chosen.confirm))
    others = [name for name, value in vars(chosen).items() if value != usual[name]]
    if others or contrast is not None:
        names = [*others, *["contrast"] * (contrast is not None)]
        raise RegardError(f"{' and '.join(names)} go with passages of a text; regions of a picture are sought without")
    if not model.writes:
        raise RegardError(f"{model.name} writes no text; sources need a model that answers")
    if prompt is not None and not prompt.strip():
        raise RegardError("the prompt is empty; ask something about the images")
    asked = pictured(model, prompt, images=images, **chats)
    ids = asked.given.ids
    if answer is None:
        written = answer_of(model, asked, max_new_tokens)
    else:
        written = model._texts().encode_answer(answer)
        model.check_length(len(ids) + len(written))
    ended = settings_of(asked.given, written, model.ends | asked.given.ends)["end_tokens"]
    sought = AskedMedia(
        model.module,
        followed(asked.given, written, model.tokenizer, asked.others),
        [*ids, *written],
        len(ids),
        lambda tokens: asked.inputs(tokens, model.module),
        ended,
    )
    with quiet():
        return find_media_sources(sought, confirm=chosen.confirm, progress=progress)
