"""Where sentences begin, by hand, in texts that are hard to split."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.reading.segments import sentences

# a bar stands before each sentence but the first
ENGLISH = [
    "Mrs. Hale met Dr. Vane and Prof. Lo on Main St. Only. |They spoke.",
    "Take a fruit, e.g. Apples, i.e. Malus. |Or not.",
    "See No. 5 (b. 1950) and Fig. 3, pp. 5 to 7. |Did he? |No. |He did not.",
    "J. Smith and J. R. R. Tolkien wrote to the U.S. Senate. |So did I. |Mr. I. Newton took x. |He came.",
    "It costs 3.5 or .5 or 1.234,50. |Then less.",
    "Well... maybe so… or not. |He paused... |Then he left.",
    '"Stop!" he said. |"Why? |Is it Mr. Smith?" |(He was.) |Nobody knew.',
    "We met at 5 p.m. |It was late. |Vaswani et al. (2017) say so.",
    "I am 5. |My sister is 12. |She left on Jan. 5.",
    "1. Read Mr. Hale.\n|2. Write.\n|and run",
    "it ended. and so on etc. and on.",
]
GERMAN = [
    "Er kam am 5. Mai, z. B. Dienstag, u. a. Hr. Maier. |Dann ging er.",
    "Am 3. Okt. 2020 war Prof. Dr. h. c. Müller da. |Im 19. Jahrhundert nicht.",
    "Das ist, d. h. Es war, bzw. Dr. No. |Nr. 7 lebt im 2. Stock vom 3. Haus.",
    "„Ja.“ |Er ging. |»Nein!« sagte sie. |»Doch.« |Sie blieb 1990. |Danach nicht.",
]
FRENCH = [
    "M. Dupont et Mme. Curie vivent ici, c.-à-d. Paris, p. ex. Montmartre. |Et alors ?",
    "« Oui. » |Il partit. |« Non\u202f!\u202f» dit-elle. |« Vrai ? » |Mgr. Hugo, né en 50 av. J.-C. ou après, rit.",
]
CHINESE = [
    "他说：“你好。|我走了。”|然后他走了。",
    "“你好！”他说。|“再见。”|“好。”",
    "「走吧？」她问。|他……走了。|3.14 是 π。",
    '"好。"他说。|"我来了。"\n|完',
    '他走了。|"好。"',
    "“你好，”他说，“我走了。”|然后他走了。",
    "他来了！！！|（真的。）|你呢？\n|好",
]
OTHERS = [
    "من أين أنت؟ |أنا من مصر. |حقا؟",
    "यह घर है। |वह बड़ा है। |क्यों?",
    "នេះជាផ្ទះ។ |វាធំ។|ហេតុអ្វី? |ចប់៕",
    "ဒါကအိမ်ပါ။ |ကြီးတယ်။|ဘာလဲ။",
]


@pytest.mark.parametrize("marked", [*ENGLISH, *GERMAN, *FRENCH, *CHINESE, *OTHERS])
def test_a_text_is_split_where_its_sentences_end(marked):
    parts = marked.split("|")
    text = "".join(parts)
    starts = [0, *sentences(text)[1:], len(text)]
    found = [text[start:end].rstrip() for start, end in pairwise(starts)]
    assert found == [part.rstrip() for part in parts]


PIECES = [
    " ",
    "\n",
    ".",
    "...",
    "!",
    "。",
    "？",
    "”",
    "“",
    '"',
    "」",
    "「",
    "»",
    "«",
    ")",
    "Mr",
    "I",
    "A",
    "am",
    "5",
    "z",
    "他",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_what_is_written_later_moves_no_sentence(text):
    starts = sentences(text)
    for length in range(len(text) + 1):
        assert set(sentences(text[:length])) <= {*starts}
