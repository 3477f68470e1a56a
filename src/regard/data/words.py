"""What counts as a word: a run between whitespace, or one Han or Kana character where a script writes no spaces."""

import re
from collections.abc import Iterable

# Han (with extensions and compatibility forms), the iteration mark, Hiragana and Katakana (also half-width)
CJK = (
    "\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U000323af"
)
_IS_CJK = re.compile(f"[{CJK}]")
_WORD = re.compile(rf"[{CJK}]|[^\s{CJK}]+")


def is_cjk(char: str) -> bool:
    """Whether the character is Han, Hiragana or Katakana."""
    return _IS_CJK.fullmatch(char) is not None


def split_words(text: str) -> list[str]:
    """The words of a text, in order: what whitespace separates, each Han or Kana character by itself."""
    return [text[start:end] for start, end in word_spans(text)]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of `split_words(text)` starts and ends, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def count_words(text: str) -> int:
    return len(split_words(text))


def counts_characters(texts: Iterable[str]) -> bool:
    """Whether most letters of these texts are Han or Kana, so that length is counted in characters."""
    letters = cjk = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        cjk += len(_IS_CJK.findall(text))
    return 2 * cjk > letters


def length(text: str, characters: bool) -> int:
    """The length of a text in characters other than whitespace, or in words."""
    return sum(map(len, text.split())) if characters else count_words(text)
