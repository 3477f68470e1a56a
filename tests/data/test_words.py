"""Words and lengths."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from regard.data.words import count_words, counts_characters, is_cjk, length, split_words, word_spans

TEXTS = st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t中文ひらカター々a\x1c\u2028")))


@given(TEXTS.filter(lambda text: not any(map(is_cjk, text))))
def test_without_han_or_kana_words_are_what_whitespace_separates(text):
    assert split_words(text) == text.split()


@given(TEXTS)
def test_words_lose_only_whitespace_and_spans_point_at_them(text):
    words = split_words(text)
    assert "".join(words) == "".join(text.split())
    assert [text[start:end] for start, end in word_spans(text)] == words
    assert all(len(word) == 1 for word in words if any(map(is_cjk, word)))


def test_each_han_or_kana_character_is_a_word_beside_latin_ones():
    assert split_words("我爱 Python语言。 カタカナー") == ["我", "爱", "Python", "语", "言", "。", *"カタカナー"]
    assert count_words("one  two\tthree") == 3


def test_han_and_kana_are_those_of_the_unicode_names():
    named = ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA LETTER", "KATAKANA LETTER", "HALFWIDTH KATAKANA LETTER")
    for char in "中㐀𠀀豈ひんカヴｶé한aЖא。ー、":
        assert is_cjk(char) == (unicodedata.name(char).startswith(named) or char == "ー"), char


def test_length_is_counted_in_characters_only_where_most_letters_are_han_or_kana():
    assert counts_characters(["今天天气很好。", "OK"])
    assert not counts_characters(["The character 中 means middle", "안녕하세요"])
    assert not counts_characters([])
    assert length("今天 天气。", characters=True) == 5
    assert length("one two", characters=False) == 2
