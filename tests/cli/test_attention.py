import subprocess
import sys

import pytest


def regard(*arguments, given=b""):
    command = [sys.executable, "-c", "from regard.cli import main; main()", "attention", *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=120, check=False)


def test_the_walk_goes_to_stdout_without_colour_where_there_is_no_terminal():
    done = regard()
    assert done.returncode == 0
    assert "0.9544" in done.stdout.decode()
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""


def test_a_hyphen_reads_standard_input():
    assert regard("-", given="注意 力".encode()).stdout == regard("注意 力").stdout


@pytest.mark.parametrize(
    ("arguments", "given", "code", "message"),
    [
        (["-"], b"\xff", 1, "not UTF-8 at byte 0"),
        (["   "], b"", 1, "the text has no words"),
        (["--colour"], b"", 2, "there is no option --colour"),
    ],
)
def test_what_cannot_be_walked_through_is_told_in_a_line(arguments, given, code, message):
    done = regard(*arguments, given=given)
    assert done.returncode == code
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
