"""Tables of words are sums and means of what tokens gave, for every kind and every script."""

import itertools

import numpy as np
import pytest

from regard.data.words import word_spans
from regard.errors import RegardError
from regard.reading.labels import placed
from regard.reading.reading import Reading
from regard.reading.record import Sequence, Token


def sequence(pieces):
    """Tokens that stand one after another; words are those of the text."""
    text = "".join(pieces)
    spans = [*itertools.pairwise(itertools.accumulate(map(len, pieces), initial=0))]
    return placed(text, list(range(len(pieces))), list(pieces), spans, word_spans(text))


def decoder(pieces, rows, *tables):
    maps = {("decoder", layer): np.asarray(table, np.float32) for layer, table in enumerate(tables)}
    return Reading(
        model="made",
        sequences={"text": sequence(pieces)},
        maps=maps,
        checks={},
        sides={"decoder": ("text", "text")},
        kept={"decoder": rows},
    )


PIECES = ["A", " light", "house", " br", "oke", " ."]
# of rows 1 to 4, which wrote "house", " br", "oke" and " ."; the last token was not fed
ROWS = [[0.5, 0.5, 0, 0, 0], [0.2, 0.3, 0.5, 0, 0], [0.1, 0.2, 0.3, 0.4, 0], [0.1, 0.1, 0.2, 0.2, 0.4]]


def test_a_written_words_row_is_the_mean_of_the_rows_that_wrote_it():
    found = decoder(PIECES, [1, 2, 3, 4], [ROWS]).words()
    # the row that wrote " light" was not kept, so that "lighthouse" would be its second half alone
    assert found.rows == ["broke", "."]
    assert found.keys == ["A", "lighthouse", "broke"]
    np.testing.assert_allclose(found.weights, [[0.15, 0.65, 0.2], [0.1, 0.3, 0.6]], atol=1e-7)


def test_the_word_of_the_first_token_was_written_by_no_row():
    rows = [[1, 0, 0, 0, 0], *ROWS]
    found = decoder(PIECES, [0, 1, 2, 3, 4], [rows]).words("decoder", 0, 0)
    assert found.rows == ["lighthouse", "broke", "."]
    np.testing.assert_allclose(found.weights[0], [0.75, 0.25, 0], atol=1e-7)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-6)


def test_all_layers_and_heads_count_alike_and_one_may_be_chosen():
    eye = np.zeros((4, 5))
    eye[:, 0] = 1
    reading = decoder(PIECES, [1, 2, 3, 4], [ROWS], [eye, eye, ROWS])
    np.testing.assert_allclose(reading.words().weights[1], [0.55, 0.15, 0.3], atol=1e-7)
    np.testing.assert_allclose(reading.words(layer=1).weights[1], [0.7, 0.1, 0.2], atol=1e-7)
    np.testing.assert_allclose(reading.words(layer=-1, head=2).weights[1], [0.1, 0.3, 0.6], atol=1e-7)
    for head, message in (
        (3, "no head 3; decoder layer 1 has heads 0 to 2"),
        (0.0, "no head 0.0"),
        (True, "no head True"),
    ):
        with pytest.raises(RegardError, match=message):
            reading.words(layer=1, head=head)
    with pytest.raises(RegardError, match="every layer has a head 0; name the layer too"):
        reading.words(head=0)
    with pytest.raises(RegardError, match=r"the kind of attention is a word: write words\('decoder', 3\), not 0"):
        reading.words(0, 1)


def test_words_of_an_encoder_are_those_that_look():
    source = sequence(["un", "do", " this"])
    table = np.array([[0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]], np.float32)
    reading = Reading(
        "made", {"source": source}, {("encoder", 0): table[None]}, {}, sides={"encoder": ("source", "source")}
    )
    found = reading.words()
    assert found.rows == found.keys == ["undo", "this"]
    np.testing.assert_allclose(found.weights, [[0.575, 0.425], [0.4, 0.6]], atol=1e-7)


def test_chinese_tokens_of_several_words_give_each_a_part():
    # as the words of a text without spaces are its characters, a token may hold several
    reading = decoder(["北京", "很", "大", "。"], [0, 1, 2], [[[1, 0, 0], [0.5, 0.5, 0], [0.4, 0.4, 0.2]]])
    found = reading.words()
    assert found.rows == ["很", "大", "。"]
    assert found.keys == ["北", "京", "很", "大"]
    np.testing.assert_allclose(found.weights, [[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0.2, 0.2, 0.4, 0.2]], atol=1e-7)


def test_a_translations_words_are_the_rows_of_its_alignment_where_all_rows_were_kept(read):
    reading = read()
    if "cross" not in reading.kinds:
        pytest.skip("it has no attention between its texts")
    found, alignment = reading.words("cross", -1), reading.alignment()
    assert found.rows == reading.sequences["target"].words
    assert found.keys == reading.sequences["source"].words
    np.testing.assert_allclose(found.weights, alignment, atol=1e-7)


def test_what_is_no_token_counts_as_a_word():
    image = [Token(-1, f"image patch (0, {place})", 0, 0, [], "image patch") for place in range(2)]
    word = [Token(5, "a", 0, 1, [0]), Token(6, "b", 1, 2, [0])]
    table = np.array([[[0.1, 0.2, 0.7, 0], [0.3, 0.3, 0.2, 0.2]]], np.float32)
    reading = Reading(
        model="made",
        sequences={"text": Sequence("ab", [*image, *word], ["ab"])},
        maps={("encoder", 0): table},
        checks={},
        sides={"encoder": ("text", "text")},
        kept={"encoder": [0, 3]},
    )
    found = reading.words()
    assert found.rows == ["image patch (0, 0)"]
    assert found.keys == ["image patch (0, 0)", "image patch (0, 1)", "ab"]
    np.testing.assert_allclose(found.weights, [[0.1, 0.2, 0.7]], atol=1e-7)
