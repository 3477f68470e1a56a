"""A question as plain text with a place for its answer, for language models without a chat template."""

import regex

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
