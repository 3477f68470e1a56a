"""Conversations as chat templates take them: a list of messages, each with a role and a content."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regard.errors import RegardError

Message = Mapping[str, Any]
EXAMPLE = '{"role": "user", "content": "Hello"}'


def check_messages(messages: Any, where: str = "messages", *, has_parts: bool = False) -> None:
    """Raises RegardError for what is no list of messages with a last one to answer; `where` begins the error.

    A content is a text or, with `has_parts`, a list of parts, such as {"type": "image"}.
    """
    _check_list(messages, where, has_parts=has_parts)
    if messages[-1]["role"] == "assistant":
        raise RegardError(
            f"{where}: message {len(messages)}, the last, is the assistant's own and leaves nothing to answer; "
            "leave it out, or end with a message of the user"
        )


def check_conversation(messages: Any, where: str) -> None:
    """Raises RegardError for what is no list of messages with an answer to learn; `where` begins the error."""
    _check_list(messages, where)
    if not any(message["role"] == "assistant" and has_content(message) for message in messages):
        raise RegardError(f"{where}: no message is the assistant's, so there is no answer to learn; add one")


def has_content(message: Message) -> bool:
    """Whether a message says something; an assistant's that only calls tools may say nothing."""
    return bool((message.get("content") or "").strip())


def strings(value: Any) -> Iterator[str]:
    """All texts in a value as JSON has them, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name)
            yield from strings(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from strings(each)


def are_parts(content: Any) -> bool:
    """Whether a content is a list of texts, pictures and sounds."""
    return isinstance(content, list | tuple)


def _check_list(messages: Any, where: str, *, has_parts: bool = False) -> None:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise RegardError(f"{where}: give a list of messages such as {EXAMPLE}, not {_short(messages)}")
    if not messages:
        raise RegardError(f"{where}: there is no message; give at least one of the user")
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"{where}: message {number}", has_parts=has_parts)


def _check_message(message: Any, where: str, *, has_parts: bool = False) -> None:
    if not isinstance(message, Mapping):
        raise RegardError(f"{where} must be one such as {EXAMPLE}, not {_short(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        wrong = f"has the role {_short(role)}" if "role" in message else "has no role"
        raise RegardError(f"{where} {wrong}; its role is system, user, assistant or tool")
    if content is None and message.get("tool_calls"):
        return
    if "content" not in message:
        raise RegardError(f"{where} ({role}) has no content; give it a text")
    if has_parts and are_parts(content):
        if not content:
            raise RegardError(f"{where} ({role}) is empty; give it a text or a picture, or leave it out")
        return
    if not isinstance(content, str):
        raise RegardError(f"{where} ({role}): its content must be a text, not {_short(content)}")
    if not has_content(message) and not message.get("tool_calls"):
        raise RegardError(f"{where} ({role}) is empty; give it a text, or leave it out")


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:59]}…"
