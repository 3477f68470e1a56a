"""Shares of weight against sums done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from regard.errors import RegardError
from regard.reading.reading import Reading
from regard.view.shares import shares


def mean_row(reading, rows=slice(None)):
    """Every head counts alike."""
    heads = np.concatenate([reading.weights("decoder", layer) for layer in reading.layers("decoder")])
    return heads.mean(axis=0)[rows].mean(axis=0)


def test_the_shares_of_prompt_answer_and_first_token_are_the_whole(dogs):
    found, row = shares(dogs), mean_row(dogs)
    assert found.first == pytest.approx(row[0])
    assert found.prompt == pytest.approx(row[1:12].sum())
    assert found.answer == pytest.approx(row[12:].sum())
    assert found.prompt + found.answer + found.first == pytest.approx(1)
    assert found.outside == pytest.approx(0, abs=1e-6)
    assert found.subject == "the whole answer (3 tokens)"


def test_a_part_has_the_weight_of_its_tokens_but_never_the_first(dogs):
    found, row = shares(dogs), mean_row(dogs)
    assert [part.text for part in found.parts] == ["Ann has a dog.", "Bo has a cat.", "Who?"]
    assert [part.share for part in found.parts] == pytest.approx([row[1:5].sum(), row[5:10].sum(), row[10:12].sum()])
    assert found.strongest == [1, 2, 0]
    assert [word.text for word in found.parts[1].words][:2] == ["Bo", "cat."]
    assert found.parts[1].words[1].share == pytest.approx(row[8:10].sum())
    assert "Ann" not in [word.text for word in found.parts[0].words]


def test_the_prompt_is_all_there_piece_by_piece(dogs):
    found = shares(dogs)
    assert "".join(piece.text for piece in found.pieces) == "Ann has a dog. Bo has a cat. Who?"
    assert "".join(piece.text for piece in found.written) == " Bo."
    assert [piece.is_first for piece in found.pieces] == [True] + [False] * 11
    assert sum(piece.share for piece in found.pieces) == pytest.approx(found.prompt)


@pytest.mark.parametrize(
    ("token", "rows", "subject"),
    [
        ("0", [0], "“B”"),
        ("-1", [2], "“.”"),
        ("Bo", [0, 1], "“Bo” (2 tokens)"),
        ("o.", [1, 2], "“o.” (2 tokens)"),
        ('"B"', [0], "“B”"),
    ],
)
def test_a_picked_token_is_shown_alone(dogs, token, rows, subject):
    found = shares(dogs, token=token)
    assert found.subject == subject
    assert found.first == pytest.approx(mean_row(dogs, rows)[0])
    assert found.prompt == pytest.approx(mean_row(dogs, rows)[1:12].sum())


@pytest.mark.parametrize("token", ["dog", "", " ", "Bob", "3", "-4", '"0"', "[", "Ann"])
def test_a_token_that_was_not_written_is_told(dogs, token):
    with pytest.raises(RegardError, match=r"was not written|there is no token"):
        shares(dogs, token=token)


def test_a_layer_and_a_head_are_shown_alone(dogs):
    assert shares(dogs, layer=1, head=1).first == 1
    assert shares(dogs, layer=-1, head=1).prompt == 0
    assert shares(dogs, head=0).first == pytest.approx(0.5)
    assert shares(dogs, layer=1).first == pytest.approx(0.75)
    assert shares(dogs, layer=0).scope == "layer 0, mean of its heads"
    with pytest.raises(RegardError, match="there is no head 2; the model's layers have heads 0 to 1"):
        shares(dogs, head=2)
    with pytest.raises(RegardError, match="there is no decoder layer 2"):
        shares(dogs, layer=2)


def test_a_word_of_the_answer_names_what_it_looked_at_more_than_the_rest(dogs):
    (bo,) = shares(dogs).by_word
    assert bo.text == "Bo."
    table = np.concatenate([dogs.weights("decoder", layer) for layer in (0, 1)]).mean(axis=0)
    assert {word.text: word.share for word in bo.words}["cat."] == pytest.approx(table[:, 8:10].sum(axis=1).mean())


def test_words_that_differ_are_ordered_by_how_far_they_are_above_the_mean(by_hand):
    pieces = ["a", " b", " c", " x", " y", " z"]
    table = np.array([[[0.1, 0.5, 0.4, 0, 0], [0.1, 0.5, 0.3, 0.1, 0], [0, 0.5, 0.5, 0, 0]]])
    found = shares(by_hand(pieces, 3, table)).by_word
    assert [(each.text, each.words[0].text) for each in found] == [("x", "b"), ("y", "b"), ("z", "c")]
    # 0.5 everywhere is nothing of z's own, although it is as much as c
    assert [word.text for word in found[2].words] == ["c", "b"]


def test_han_characters_are_words_and_bytes_of_one_letter_are_one_piece(by_hand):
    pieces = ["甲", "日", "本", "。", "京", "都", "。", "乙", "丙"]
    row = np.array([0.5, 0.05, 0.05, 0.1, 0.2, 0.05, 0.05, 0])
    reading = by_hand(pieces, 7, np.stack([[row, row]]))
    found = shares(reading)
    assert [part.text for part in found.parts] == ["甲日本。", "京都。"]
    assert found.parts[1].words[0].text == "京"
    # the two halves of a letter stand at the same place
    sequence = reading.sequences["text"]
    tokens = list(sequence.tokens)
    tokens[4] = tokens[5] = tokens[4]._replace(end=6, text="京都")
    halves = replace(reading, sequences={"text": replace(sequence, tokens=tokens)})
    pieces = shares(halves).pieces
    assert [(piece.text, piece.tokens) for piece in pieces][4:] == [("京都", 2), ("。", 1)]
    assert pieces[4].share == pytest.approx(0.25)


def test_a_token_that_stands_nowhere_is_shown_by_its_name(by_hand):
    reading = by_hand(["<s>", "a", " b", "c"], 3, np.full((1, 1, 3), 1 / 3))
    sequence = reading.sequences["text"]
    shifted = [token._replace(start=max(0, token.start - 3), end=max(0, token.end - 3)) for token in sequence.tokens]
    shifted[0] = shifted[0]._replace(words=[])
    found = shares(replace(reading, sequences={"text": replace(sequence, text="a bc", tokens=shifted)}))
    assert [piece.text for piece in found.pieces] == ["<s>", "a", " b"]
    assert found.first_token == "<s>"


def test_of_a_text_the_row_is_named_by_what_it_follows(by_hand):
    found = shares(by_hand(["a", " b", " c"], 0, np.full((1, 1, 3), 1 / 3)))
    assert found.subject == "the token after “c”"
    assert not found.has_answer
    assert found.prompt == pytest.approx(2 / 3)
    assert (found.answer, found.by_word) == (0, [])


def test_layers_with_other_numbers_of_heads_count_by_head(by_hand):
    one, three = np.eye(2)[None, :1], np.tile(np.eye(2)[1], (3, 1, 1))
    found = shares(by_hand(["a", "b", "c"], 2, one, three))
    assert found.first == pytest.approx(1 / 4)
    np.testing.assert_array_equal(found.first_by_head, [[1, np.nan, np.nan], [0, 0, 0]])


def test_what_goes_to_a_sink_outside_the_text_is_apart(by_hand):
    found = shares(by_hand(["a", " b", " c"], 2, np.array([[[0.25, 0.25]]])))
    assert found.outside == pytest.approx(0.5)


def test_a_reading_without_attention_says_why(dogs):
    refused = {("decoder", 0): "its weights are no softmax", ("decoder", 1): "its weights are no softmax"}
    nothing = replace(dogs, maps={}, checks={}, refused=refused)
    with pytest.raises(RegardError, match="decoder layer 0 was refused, its weights are no softmax"):
        shares(nothing)
    none_kept = replace(dogs, maps={("decoder", 0): np.zeros((2, 0, 14), np.float32)}, kept={"decoder": []})
    with pytest.raises(RegardError, match="no row was kept whole"):
        shares(none_kept)


def test_a_reading_that_was_kept_is_shown_as_before(dogs, tmp_path):
    dogs.save(tmp_path / "reading.safetensors")
    assert shares(Reading.load(tmp_path / "reading.safetensors")).parts == shares(dogs).parts
