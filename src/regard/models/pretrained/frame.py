"""A question as plain text with a place for its answer, for language models without a chat template."""

from collections.abc import Sequence

import regex

from regard.data.messages import Message, has_content
from regard.errors import RegardError

BLANK_LINE = regex.compile(r"\n[^\S\n]*\n\s*")
HAN, LETTER = regex.compile(r"\p{Han}"), regex.compile(r"\p{Letter}")
ENGLISH, CHINESE = ("Question: ", "\nAnswer:"), ("问题：", "\n答案：")


def split_question(message: str) -> tuple[str, str]:
    """The page of a user's message, up to its last blank line, and the question after it; joined, they are the message.

    Without a blank line, the whole message is the question.
    """
    lines = list(BLANK_LINE.finditer(message, 0, len(message.rstrip())))
    place = lines[-1].end() if lines else 0
    return message[:place], message[place:]


def frame_question(question: str) -> tuple[str, str]:
    """The text before and after a question; it is Chinese where most letters of the question are Chinese."""
    return CHINESE if 2 * len(HAN.findall(question)) > len(LETTER.findall(question)) else ENGLISH


def frame_answer(answer: str, frame: tuple[str, str]) -> str:
    """An answer as it follows the frame of its question."""
    return answer if frame == CHINESE else f" {answer}"


def frame_messages(messages: Sequence[Message], name: str) -> tuple[list[tuple[str, str]], tuple[str, str]]:
    """A user's message, perhaps after a system message, as a page and a question; also the frame of the question.

    The text comes in parts, each with the role whose words it is; the frame's own words have the role "".
    Raises RegardError for any other conversation with the model `name`.
    """
    *before, asked = messages
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["system", "user"]) or not all(map(has_content, messages)):
        raise RegardError(
            f"{name} has no chat template; give it one message of the user, with at most a system message before it, "
            "or plain text"
        )
    page, question = split_question(asked["content"].strip())
    frame = start, end = frame_question(question)
    parts = [("system", before[0]["content"]), ("", "\n\n")] if before else []
    return [*parts, *([("user", page)] if page else []), ("", start), ("user", question), ("", end)], frame
