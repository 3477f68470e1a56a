"""Near-duplicates are found exactly: held against the definition, pair by pair."""

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from regard.data.formats import Pair
from regard.data.near_duplicates import letters, near_duplicates, similar_sets

WORDS = st.sets(st.sampled_from("abcdefghijkl"), max_size=12)


def groups(pairs):
    """Sets of indices."""
    found = {}
    for index, group in enumerate(near_duplicates(pairs)):
        found.setdefault(group, set()).add(index)
    return sorted(found.values(), key=min)


def similarity(one, other):
    return Fraction(len(one & other), len(one | other)) if one | other else Fraction(0)


def test_only_letters_count():
    assert letters("Ｎo. 12: «L'Été», ﬁn") == letters("NO (3) l e\u0301te\u0301 fin") == "nolétéfin"
    assert letters("第 5 章") == "第章"
    assert letters("3.14 – ½ _") == ""


@given(st.lists(WORDS, max_size=30))
def test_similar_sets_are_those_of_the_definition(sets):
    found = {frozenset(each) for each in similar_sets(sets)}
    expected = {
        frozenset(pair)
        for pair in itertools.combinations(range(len(sets)), 2)
        if similarity(sets[pair[0]], sets[pair[1]]) >= Fraction(4, 5)
    }
    assert found == expected


def test_a_similarity_of_just_four_fifths_counts():
    def texts(shared, more, other):
        return [
            set(range(shared)) | {f"a{n}" for n in range(more)},
            set(range(shared)) | {f"b{n}" for n in range(other)},
        ]

    as_words = [[set(map(str, words)) for words in texts(*counts)] for counts in [(4, 1, 0), (8, 1, 1), (12, 2, 1)]]
    assert all(len(list(similar_sets(sets))) == 1 for sets in as_words)
    assert not list(similar_sets([set(map(str, words)) for words in texts(7, 1, 1)]))


def test_the_same_letters_on_either_side_make_near_duplicates_and_these_chain():
    pairs = [
        Pair("Page 1", "Seite 1"),
        Pair("completely other", "nothing alike"),
        Pair("page 22.", "Blatt"),
        Pair("leaf", "blatt!"),
        Pair("page-turner", "Schmöker"),
    ]
    assert groups(pairs) == [{0, 2, 3}, {1}, {4}]


def test_one_changed_word_in_a_long_sentence_makes_a_near_duplicate():
    sentence = "the quick brown fox jumps over a lazy dog near my old stone bridge at night"
    pairs = [
        Pair(sentence, "a"),
        Pair(sentence.replace("quick", "slow"), "b"),
        Pair(sentence.replace("quick", "slow").replace("brown", "red").replace("fox", "cat"), "c"),
    ]
    assert groups(pairs) == [{0, 1}, {2}]


def test_chinese_is_compared_by_characters():
    pairs = [Pair("a", "选择要导入的文本文件名称"), Pair("b", "选择要导出的文本文件名称"), Pair("c", "打开表格")]
    assert groups(pairs) == [{0, 1}, {2}]


def test_sides_are_not_mixed():
    assert groups([Pair("one", "two"), Pair("two", "one")]) == [{0}, {1}]
    assert groups([]) == []


def test_sentences_that_differ_in_one_word_only_are_near_duplicates_though_they_have_few_words():
    # seven words, six of them shared, but eleven pairs of words in a row, ten of them shared
    assert groups(
        [Pair("the a the b the c the d the e the f", "x"), Pair("the a the b the c the d the e the g", "y")]
    ) == [{0, 1}]
    assert groups([Pair("the a the b the c", "x"), Pair("the a the b the d", "y")]) == [{0}, {1}]
