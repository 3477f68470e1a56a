"""Gold links between words, from links between tokens."""

import json

import pytest

from regard.data.greek import align_verses, place_tokens, read_records
from regard.data.words import split_words
from regard.errors import RegardError


def test_tokens_lie_in_the_words_between_spaces():
    tokens = {
        "1": "“",
        "2": "Peace",
        "3": ", ",
        "4": "he ",
        "5": "said",
        "6": "—",
        "7": "and ",
        "8": "... ",
        "9": "left",
    }
    text, words = place_tokens(tokens)
    assert text == "“Peace, he said—and ... left"
    assert words == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 2, "6": 2, "7": 2, "8": 3, "9": 4}
    assert all(tokens[token].strip() in split_words(text)[word] for token, word in words.items())


SOURCE = {
    (40, 1, 1): {"n1": "Βίβλος ", "n2": "γενέσεως "},
    (40, 1, 2): {"n3": "υἱοῦ "},
    (40, 1, 3): {"n4": "Δαυὶδ "},
    (40, 1, 4): {"n5": "τὸν ", "n6": "Ἰσαάκ "},
    (40, 1, 5): {"n7": "καὶ "},
}
TARGET = {
    (40, 1, 1): {"1": "The ", "2": "book ", "3": "of ", "4": "generations", "5": "."},
    (40, 1, 2): {"6": "son"},
    (40, 1, 3): {"7": "David"},
    (40, 1, 4): {"8": "“", "9": "Isaac", "10": "’s"},
}


def test_links_join_the_words_that_their_tokens_lie_in():
    links = {("n1", "1"), ("n1", "2"), ("n2", "4"), ("n2", "5"), ("n6", "9"), ("n5", "9"), ("n6", "10")}
    pairs, found = align_verses(SOURCE, TARGET, links)
    assert pairs == [("Βίβλος γενέσεως", "The book of generations."), ("τὸν Ἰσαάκ", "“Isaac’s")]
    assert [each.sure for each in found] == [{(0, 0), (0, 1), (1, 3)}, {(0, 0), (1, 0)}]
    assert all(each.possible == each.sure for each in found)


def test_verses_without_links_or_with_links_to_another_are_left_out():
    links = {("n1", "1"), ("n3", "6"), ("n3", "7"), ("n4", "7")}
    pairs, _ = align_verses(SOURCE, TARGET, links)
    assert [pair.source for pair in pairs] == ["Βίβλος γενέσεως"]


def test_a_record_links_each_of_its_source_tokens_with_each_of_its_target_tokens(tmp_path):
    path = tmp_path / "manual.json"
    records = [{"source": ["n1", "n2"], "target": ["1", "2"]}, {"source": ["n3"], "target": []}]
    path.write_text(json.dumps({"records": records}))
    assert read_records(path) == {("n1", "1"), ("n1", "2"), ("n2", "1"), ("n2", "2")}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"records": 1}', '{"records": [{"source": ["n1"]}]}', '{"records": [1]}']
)
def test_what_is_no_file_of_records_is_refused(tmp_path, text):
    path = tmp_path / "manual.json"
    path.write_text(text)
    with pytest.raises(RegardError, match=r"manual\.json: not a file of alignment records.*bring your own text"):
        read_records(path)
