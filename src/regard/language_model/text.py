"""A language model that is given text alone: what it writes after prompts, and its reading."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError
from regard.generation.writing import Writing
from regard.language_model.batch import write_all, write_batch
from regard.language_model.taken import check_takes
from regard.models.pretrained.listening import hears
from regard.models.pretrained.processors import text_of
from regard.models.pretrained.texts import Encoded
from regard.reading.language import read_tokens
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


def generate_text(
    model: "LanguageModel",
    prompts: str | Sequence[str] | None,
    writing: Writing,
    chats: dict[str, Any],
    *,
    n: int,
    stream: Callable[[str], None] | None,
    going_on: Callable[[], bool],
    read: bool,
    batch_size: int,
    first: int,
) -> Any:
    """`LanguageModel.generate` of prompts, or of messages."""
    for name, value in (("n", n), ("batch_size", batch_size)):
        if type(value) is not int or value < 1:
            raise RegardError(f"{name} must be a whole number, at least 1, not {value!r}")
    if not model.writes:
        told = "transcribe writes what it hears" if hears(model.module) else "name a decoder-only model"
        raise RegardError(f"{model.name} goes on with no text; {told}")
    is_single = prompts is None or isinstance(prompts, str)
    several: list[Any] = [prompts] if is_single else list(prompts or ())
    if (stream is not None or read) and len(several) * n != 1:
        raise RegardError("only a single text can be streamed or read: one prompt, and n = 1")
    texts = model._texts()
    given = [texts.given(prompt, **chats) for prompt in several]
    if not chats["chat"] and chats["messages"] is None:
        texts.warn_of_special("\n".join(several))
    texts.log_frames(given)
    ids, ends = [each.ids for each in given], model.ends.union(*(each.ends for each in given))
    # all of them are framed, or none
    one_line = any(each.frame for each in given)
    how: dict[str, Any] = {"ends": ends, "one_line": one_line, "stream": stream, "going_on": going_on, "read": read}
    how |= {"first": first}
    found = write_all(model, ids, writing, batch_size=batch_size, samples=n, **how)
    if n > 1:
        groups = [found[start : start + n] for start in range(0, len(found), n)]
        return groups[0] if is_single else groups
    return found[0] if is_single else found


def read_text(
    model: "LanguageModel",
    given_texts: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    chat: bool,
    max_new_tokens: int,
    **extras: Any,
) -> Reading:
    """`LanguageModel.read` of one of a prompt, messages and a text."""
    check_takes(model, "text")
    if len(given_texts) != 1:
        raise RegardError(f"give one of prompt, messages and text, not {' and '.join(given_texts) or 'none'}")
    ((name, value),) = given_texts.items()
    if isinstance(value, str) and not value.strip():
        raise RegardError(f"the {name} is empty; there is nothing to read")
    asks = name in ("prompt", "messages")
    if chat and not asks:
        raise RegardError("chat goes with a prompt")
    if asks and not model.writes:
        raise RegardError(f"{model.name} writes nothing; give it a text")
    texts = model._texts()
    how: dict[str, Any] = {"messages": value} if name == "messages" else {"prompt": value}
    given = texts.given(**how, chat=chat, **extras)
    if name == "prompt" and not chat:
        texts.warn_of_special(value)
    model.check_length(len(given.ids))
    usual = "generated" if asks else "last" if model.writes else "all"
    read = ReadOptions.of(options, rows=usual)
    texts.log_frames([given])
    written = answered(model, given, max_new_tokens) if asks else []
    return read_encoded(model, given, written, read)


def read_encoded(model: "LanguageModel", given: Encoded, written: list[int], read: ReadOptions) -> Reading:
    """The reading of tokens that are given and those that were written after them."""
    return read_tokens(
        text_of(model.module),
        model.tokenizer,
        given,
        written,
        read,
        ends=model.ends | model._texts().ends(given, written),
        inputs=model.adapter.inputs,
        name=model.name,
    )


def answered(model: "LanguageModel", given: Encoded, max_new_tokens: int) -> list[int]:
    """What the model writes after tokens that it is given, always its most likely token."""
    if given.frame is None:
        return model.generate_ids(given.ids, max_new_tokens, ends=given.ends)
    model.check_length(len(given.ids), max_new_tokens)
    writing = Writing.of({"max_new_tokens": max_new_tokens})
    return write_batch(model, [given.ids], writing, ends=model.ends, one_line=True)[0].tokens
