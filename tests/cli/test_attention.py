"""`regard attention`: the walk goes to a terminal or a file, and a text comes from either side."""

import json

import pytest


def test_the_walk_goes_to_stdout_without_colour_where_there_is_no_terminal(cli):
    done = cli("attention")
    assert (done.code, done.err) == (0, "")
    assert "0.9544" in done.out
    assert "\x1b" not in done.out


def test_a_hyphen_reads_standard_input(cli):
    done = cli("attention", "-", given="注意 力".encode())
    assert done.code == 0
    assert done.out == cli("attention", "注意 力").out != cli("attention").out


def test_two_texts_walk_through_cross_attention_wherever_the_option_stands(cli):
    done = cli("attention", "--cross", "我 喜欢 猫", "I like cats")
    assert (done.code, done.err) == (0, "")
    assert "Cross-attention" in done.out
    assert done.out == cli("attention", "我 喜欢 猫", "I like cats", "--cross").out
    assert done.out == cli("attention", "--cross", "-", "I like cats", given="我 喜欢 猫\n".encode()).out
    assert done.out == cli("attention", "--cross", "我 喜欢 猫", "-", given=b"I like cats").out
    assert "voyage" in cli("attention", "--cross").out


def test_json_is_one_document(cli):
    assert json.loads(cli("attention", "--json").out)["tokens"][1] == "journey"
    found = json.loads(cli("attention", "--cross", "--json", "我 喜欢 猫", "I like cats").out)
    assert found["target"]["tokens"] == ["I", "like", "cats"]
    assert len(found["cross"]["weights"][0]) == 4


@pytest.mark.parametrize(
    ("arguments", "given", "code", "message"),
    [
        (["-"], b"\xff", 1, "not UTF-8 at byte 0"),
        (["   "], b"", 1, "the text has no words"),
        (["the", "cat"], b"", 1, "put it in quotes, or add --cross"),
        (["--cross", "the cat"], b"", 1, "--cross takes two texts"),
        (["--cross", "-", "-"], b"", 1, "not both"),
        (["--cross", "a", " "], b"", 1, "the target has no words"),
        (["--colour"], b"", 2, "there is no option --colour"),
    ],
)
def test_what_cannot_be_walked_through_is_told_in_a_line(cli, arguments, given, code, message):
    done = cli("attention", *arguments, given=given)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
