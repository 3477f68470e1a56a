"""Forms of a text that look the same have the same tokens, which cover the text as it was typed."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.normal_form import over_marks
from regard.data.tokenizer import TOKENIZERS, Tokenizer

LINES = ["một hải bảy ệ ở", "각 한국어 é ñ", "がぎ パ", "Å ﬁ １"] * 3
TEXTS = st.lists(st.sampled_from([*"mộthảibyệ각한がパÅé ﬁ1\n", "Å", "é", "q̣̇"]), max_size=12).map("".join)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return Tokenizer.train(LINES, kind=request.param, vocab_size=400, form="NFC")


@given(text=TEXTS)
def test_forms_that_look_the_same_have_the_same_tokens_which_cover_each(tokenizer, text):
    expected = tokenizer.encode(unicodedata.normalize("NFC", text))
    for form in ("NFC", "NFD"):
        typed = unicodedata.normalize(form, text)
        assert tokenizer.encode(typed) == expected
        assert tokenizer.normalised(typed) == unicodedata.normalize("NFC", text)
        tokens = tokenizer.tokens(typed)
        covered = {place for token in tokens for place in range(token.start, token.end)}
        # a word tokenizer's words and spaces cover everything, too
        assert covered == {*range(len(typed))}
    assert unicodedata.is_normalized("NFC", tokenizer.decode(expected))


def test_marks_behind_a_token_are_its_own_unless_another_covers_them():
    text = "a\u0301\u0323b\u0301"
    assert over_marks(text, [(0, 1), (3, 4)]) == [(0, 3), (3, 5)]
    assert over_marks(text, [(0, 1), (1, 2), (2, 3), (3, 4)]) == [(0, 1), (1, 2), (2, 3), (3, 5)]
    assert over_marks("ab", [(0, 1), (1, 2), (2, 2)]) == [(0, 1), (1, 2), (2, 2)]
