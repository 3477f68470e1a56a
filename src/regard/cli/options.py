"""What several verbs take: a text or file where `-` is standard input."""

import sys
from typing import Annotated

from cyclopts import Parameter

from regard.errors import RegardError


def _not_an_option(_: object, text: str | None) -> None:
    # `-` has to be let through, and with it comes every misspelled option
    if text and text != "-" and text.startswith("-") and len(text.split()) == 1:
        raise ValueError(f"there is no option {text}; a text that starts with a hyphen can come from standard input")


HyphenOrText = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_not_an_option)]


def text_or_standard_input(text: str) -> str:
    """The text, or all of standard input where it is `-`. Raises RegardError if that is not UTF-8."""
    if text != "-":
        return text
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RegardError(f"standard input: not UTF-8 at byte {error.start}; give the text as UTF-8") from None
