"""Unicode normal forms: texts that look the same are the same, however their letters and accents were typed.

Unicode Standard Annex 15, "Unicode normalization forms".
"""

import unicodedata
from collections.abc import Iterable

# composed characters; NFKC also makes one of what differs in width, circles or ligatures
FORMS = ("NFC", "NFKC")


def in_form(text: str, form: str | None) -> str:
    """The text in one of FORMS, or as it is."""
    return text if form is None else unicodedata.normalize(form, text)  # pyright: ignore[reportArgumentType]


def over_marks(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where tokens stand in a text, each with the marks behind it that none covers: they were composed into it."""
    found = list(spans)
    for index, (start, end) in enumerate(found):
        after = found[index + 1][0] if index + 1 < len(found) else len(text)
        while start < end < after and _joins(text[end]):
            end += 1
        found[index] = start, end
    return found


def _joins(char: str) -> bool:
    # vowels and final consonants of Hangul compose with the consonant before them
    return unicodedata.category(char).startswith("M") or "\u1160" <= char <= "\u11ff"


def is_in_form(text: str, form: str) -> bool:
    return unicodedata.is_normalized(form, text)  # pyright: ignore[reportArgumentType]
