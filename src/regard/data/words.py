"""What counts as a word: a run between whitespace, or one character where a script writes no spaces between words.

Such scripts are Han and Kana; Thai, Lao, Khmer, Burmese and the Tai scripts, whose lines only a dictionary can break
(class SA of Unicode Standard Annex 14); and Tibetan, which marks syllables alone. A character has its marks with it,
and the consonants stacked below it: where words end takes a dictionary, where characters end does not.
"""

import re
from collections.abc import Iterable

HAN_AND_KANA = (
    "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U000323af"
)
_SOUTH_EAST_ASIAN = (
    # Thai, Lao
    "\u0e01-\u0e30\u0e32\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0ebd-\u0ec6\u0edc-\u0edf"
    # Burmese and its neighbours
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e"
    "\ua9e0-\ua9e4\ua9e6-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a\uaa7e\uaa7f"
    # Khmer
    "\u1780-\u17b3\u17d7\u17dc"
    # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1950-\u19c9\u1a20-\u1a54\u1aa7\uaa80-\uaaaf\uaab1\uaab5\uaab6\uaab9-\uaabd\uaac0\uaac2-\uaadd"
)
_TIBETAN = "\u0f00\u0f40-\u0f6c\u0f88-\u0f8c"
# letters of scripts without spaces between words
UNSPACED = HAN_AND_KANA + _SOUTH_EAST_ASIAN + _TIBETAN
# what belongs to the character before it: vowel signs, tones, accents, joiners, variation selectors, Tibetan's tsheg
_MARKS = (
    "\u0300-\u036f\u200c\u200d\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
    "\u0e31\u0e33-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb3-\u0ebc\u0ec8-\u0ece"
    "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d"
    "\ua9e5\uaa7b-\uaa7d\u17b4-\u17d3\u17dd\u1a55-\u1a7f\uaab0\uaab2-\uaab4\uaab7\uaab8\uaabe\uaabf\uaac1"
    "\u0f0b\u0f0c\u0f18\u0f19\u0f35\u0f37\u0f39\u0f3e\u0f3f\u0f71-\u0f84\u0f86\u0f87\u0f8d-\u0fbc\u0fc6"
)
# signs that put the next consonant below the last one, in Burmese, Khmer and Tai Tham
_STACKERS = "\u1039\u17d2\u1a60"
# one character of such a script with all that belongs to it, as a regular expression for Python and for tokenizers
CHARACTER = rf"[{UNSPACED}](?:[{_MARKS}]|(?<=[{_STACKERS}])[{UNSPACED}])*"
# the space without width stands between words
_SPACE = r"\s\u200b"
_LETTER = re.compile(f"[{UNSPACED}]")
_WORD = re.compile(rf"{CHARACTER}|[^{_SPACE}{UNSPACED}]+")
_SEEN = re.compile(rf"[^{_SPACE}]")


def is_unspaced(char: str) -> bool:
    """Whether the character is a letter of a script that writes no spaces between words."""
    return _LETTER.fullmatch(char) is not None


def split_words(text: str) -> list[str]:
    """The words of a text, in order: what spaces separate, each character of a script without spaces by itself."""
    return _WORD.findall(text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of `split_words(text)` starts and ends, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def count_words(text: str) -> int:
    return len(split_words(text))


def counts_characters(texts: Iterable[str]) -> bool:
    """Whether most letters of these texts are of scripts without spaces, so that length is counted in characters."""
    letters = unspaced = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        unspaced += len(_LETTER.findall(text))
    return 2 * unspaced > letters


def length(text: str, characters: bool) -> int:
    """The length of a text in characters other than spaces, marks counted, or in words."""
    return len(_SEEN.findall(text)) if characters else count_words(text)
