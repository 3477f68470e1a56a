"""Words and lengths."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.words import count_words, counts_characters, is_unspaced, length, split_words, word_spans

MIXED = st.sampled_from(" \t中文ひらカター々a\x1c\u2028\u200b้ำกๆခ္မြនខ្មែरिé")
TEXTS = st.text(alphabet=st.one_of(st.characters(codec="utf-8"), MIXED))
# sentences of scripts without spaces; how many characters a reader counts in each, by Unicode's grapheme clusters, of
# Burmese and Khmer with the consonants stacked below and signs behind
SENTENCES = {
    "Thai": ("น้ำกินที่นี่", 5),
    "Lao": ("ສະບາຍດີ", 6),
    "Khmer": ("ខ្ញុំស្រលាញ់", 4),
    "Burmese": ("မြန်မာစာ", 4),
    "Tibetan": ("བོད་སྐད་", 4),
    "Tai Tham": ("ᨾᩮᩬᩥᨦ", 2),
    "Chinese": ("今天好", 3),
    "Japanese, decomposed": (unicodedata.normalize("NFD", "がぎ"), 2),
}


@given(TEXTS.filter(lambda text: not any(map(is_unspaced, text))))
def test_where_a_script_writes_spaces_words_are_what_they_separate(text):
    # the space without width is none to Python
    assert split_words(text) == text.replace("\u200b", " ").split()


@given(TEXTS)
def test_words_lose_only_whitespace_and_spans_point_at_them(text):
    words = split_words(text)
    assert "".join(words) == "".join(text.replace("\u200b", " ").split())
    assert [text[start:end] for start, end in word_spans(text)] == words
    # of a character with its marks, only stacked consonants are letters too
    for word in words:
        letters = [place for place, letter in enumerate(word) if is_unspaced(letter)]
        assert letters[:1] in ([], [0])
        assert all(word[place - 1] in "\u1039\u17d2\u1a60" for place in letters[1:])


@pytest.mark.parametrize("script", SENTENCES)
def test_words_of_a_script_without_spaces_are_the_characters_that_a_reader_counts(script):
    text, count = SENTENCES[script]
    assert len(split_words(text)) == count
    assert counts_characters([text])
    # no mark stands by itself
    assert not any(unicodedata.category(word[0]).startswith("M") for word in split_words(text))
    assert split_words(f"{text}\u200b{text} 123x") == [*split_words(text) * 2, "123x"]


def test_each_han_or_kana_character_is_a_word_beside_latin_ones():
    assert split_words("我爱 Python语言。 カタカナー") == ["我", "爱", "Python", "语", "言", "。", *"カタカナー"]
    assert count_words("one  two\tthree") == 3


def test_scripts_without_spaces_are_those_of_the_unicode_names():
    named = ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA LETTER", "KATAKANA LETTER", "HALFWIDTH KATAKANA LETTER")
    for char in "中㐀𠀀豈ひんカヴｶé한aЖא。ー、":
        assert is_unspaced(char) == (unicodedata.name(char).startswith(named) or char == "ー"), char
    # letters of the scripts of class SA (Unicode Standard Annex 14), and of Tibetan
    named = ("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TAI LE ", "NEW TAI LUE ", "TAI THAM ", "TAI VIET ", "TIBETAN ")
    for place in range(0x0900, 0x3000):
        char = chr(place)
        is_letter = unicodedata.category(char).startswith("L") and place not in (0x0E33, 0x0EB3)
        if unicodedata.category(char) != "Cn" and not char >= "\u2e80":
            assert is_unspaced(char) == (is_letter and unicodedata.name(char, "").startswith(named)), hex(place)


def test_length_is_counted_in_characters_only_where_most_letters_are_han_or_kana():
    assert counts_characters(["今天天气很好。", "OK"])
    assert not counts_characters(["The character 中 means middle", "안녕하세요"])
    assert not counts_characters([])
    assert length("今天 天气。", characters=True) == 5
    assert length("one two", characters=False) == 2
    # marks are characters too, as they are to BLEU's
    assert length("ที่ นี่\u200bก", characters=True) == 7
