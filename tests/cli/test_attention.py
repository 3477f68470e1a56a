"""`regard attention`: the walk goes to a terminal or a file, and a text comes from either side."""

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


@pytest.mark.parametrize(
    ("arguments", "given", "code", "message"),
    [
        (["-"], b"\xff", 1, "not UTF-8 at byte 0"),
        (["   "], b"", 1, "the text has no words"),
        (["--colour"], b"", 2, "there is no option --colour"),
    ],
)
def test_what_cannot_be_walked_through_is_told_in_a_line(cli, arguments, given, code, message):
    done = cli("attention", *arguments, given=given)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
