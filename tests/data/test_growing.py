"""A growing file ends with a whole line, whatever it began with."""

import pytest

from regard.data.growing import growing_file
from regard.errors import RegardError


def test_lines_are_added_behind_those_that_are_kept(tmp_path):
    path = tmp_path / "made" / "out"
    with growing_file(path, resume=False) as file:
        file.write("é\n\nzwei\u2028\n")
        file.write("")
        assert (file.lines, path.read_text()) == (3, "é\n\nzwei\u2028\n")
    path.write_bytes(path.read_bytes() + b"hal")
    with growing_file(path, resume=True) as file:
        assert (file.lines, [file.line(index) for index in range(3)]) == (3, ["é", "", "zwei\u2028"])
        # nothing is dropped before that is asked for
        assert path.read_text().endswith("\nhal")
        file.keep(2)
        file.write("drei\n")
        assert (file.lines, path.read_text()) == (3, "é\n\ndrei\n")
    with growing_file(path, resume=False) as file:
        assert (file.lines, path.read_text()) == (0, "")


def test_a_file_that_is_not_there_yet_is_begun(tmp_path):
    with growing_file(tmp_path / "out", resume=True) as file:
        file.keep(0)
        file.write("eins\n")
    assert (tmp_path / "out").read_text() == "eins\n"


def test_a_place_where_nothing_can_be_written_is_told(tmp_path):
    told = pytest.raises(RegardError, match="cannot be written: Is a directory; choose another place")
    with told, growing_file(tmp_path, resume=False):
        pass
