"""What is asked of a language model when the sources of its answer, or of its translation, are sought."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.reading.asked import Asked, followed_by, passages_in
from regard.reading.language import as_written, encode_target, followed, pair_log_probabilities, settings_of

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


def asking(
    model: "LanguageModel",
    chat_inputs: Mapping[str, Any],
    pair: Mapping[str, str | None],
    *,
    chat: bool,
    contrast: str | None,
    max_new_tokens: int,
) -> tuple[Asked, list[int] | None]:
    """The answer whose sources are sought, written by the model where none is given, and the tokens of a contrast.

    Either the inputs of a prompt or chat, with its answer, or the pair of an encoder–decoder: a source with its target.
    Raises RegardError for inputs that the model does not take.
    """
    if not model.writes:
        raise RegardError(f"{model.name} writes no text; sources need a model that answers or translates")
    is_pair = pair["source"] is not None
    if model.is_translator != is_pair:
        wanted = "a source, and perhaps a target" if model.is_translator else "a prompt or messages"
        raise RegardError(f"{model.name} takes {wanted}; give that alone")
    if not is_pair and pair["target"] is not None:
        raise RegardError("a target goes with a source; give an answer")
    if is_pair and (chat or any(value is not None for value in chat_inputs.values())):
        raise RegardError("a source goes with a target alone, not with a prompt, an answer or a chat")
    if is_pair:
        other = None if contrast is None else encode_target(model.tokenizer, contrast)
        return _of_source(model, pair["source"] or "", pair["target"], max_new_tokens), other
    texts = model._texts()
    answer, chat_inputs = chat_inputs["answer"], {name: chat_inputs[name] for name in chat_inputs if name != "answer"}
    given = texts.given(**chat_inputs, chat=chat)
    if answer is None:
        model.check_length(len(given.ids))
    written = model._answer(given, max_new_tokens) if answer is None else texts.encode_answer(answer)
    other = None if contrast is None else texts.encode_answer(contrast)
    model.check_length(len(given.ids) + max(len(written), len(other or ())))
    ended = settings_of(given, written, model.ends | given.ends)["end_tokens"]
    tokens = followed(given, written, model.tokenizer)
    return Asked(model.module, tokens, len(given.ids), passages_in(given.turns), ended), other


def _of_source(model: "LanguageModel", source: str, target: str | None, max_new_tokens: int) -> Asked:
    if not source.strip():
        raise RegardError("the source is empty; there is no passage in it")
    given = model._texts().encode(source)
    model.check_length(len(given.ids))
    is_own = target is None
    written = model.generate_ids(given.ids, max_new_tokens) if is_own else encode_target(model.tokenizer, target)
    return Asked(
        model.module,
        followed_by(followed(given, [], model.tokenizer), as_written(written, model.tokenizer)),
        len(given.ids),
        ends=settings_of(given, written, model.ends)["end_tokens"],
        translate=lambda source, target: pair_log_probabilities(model.module, source, target),
    )
