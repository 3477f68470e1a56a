"""What is asked of a language model when the sources of its answer are sought."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.language_model.text import answered
from regard.reading.asked import Asked, passages_in
from regard.reading.language import followed, settings_of

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


def asking(
    model: "LanguageModel",
    chat_inputs: Mapping[str, Any],
    *,
    chat: bool,
    contrast: str | None,
    max_new_tokens: int,
) -> tuple[Asked, list[int] | None]:
    """The answer whose sources are sought, written by the model where none is given, and the tokens of a contrast.

    Raises RegardError for inputs that the model does not take.
    """
    if not model.writes:
        raise RegardError(f"{model.name} writes no text; sources need a model that answers or translates")
    texts = model._texts()
    answer, chat_inputs = chat_inputs["answer"], {name: chat_inputs[name] for name in chat_inputs if name != "answer"}
    given = texts.given(**chat_inputs, chat=chat)
    if answer is None:
        model.check_length(len(given.ids))
    written = answered(model, given, max_new_tokens) if answer is None else texts.encode_answer(answer)
    other = None if contrast is None else texts.encode_answer(contrast)
    model.check_length(len(given.ids) + max(len(written), len(other or ())))
    ended = settings_of(given, written, model.ends | given.ends)["end_tokens"]
    tokens = followed(given, written, model.tokenizer)
    return Asked(model.module, tokens, len(given.ids), passages_in(given.turns), ended), other
