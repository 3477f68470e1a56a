"""A growing file ends with a whole line, whatever it began with."""

import os
import threading

import pytest

from regard.data.growing import check_record, growing_file, recorded
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


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "made" / "out")
    for resume in (False, True):
        with growing_file(tmp_path / "link", resume=resume) as file:
            file.write("eins\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "made" / "out").read_text() == "eins\neins\n"


def test_a_pipe_gets_each_line_as_it_comes(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with growing_file(pipe, resume=False) as file, recorded(pipe, {"work": 1}) as note:
        file.write("eins\nzwei\n")
        note({"lines": 2})
        file.write("drei\n")
    reader.join(timeout=60)
    assert read == ["eins\nzwei\ndrei\n"]
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_pipe_whose_reader_has_left_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with growing_file(tmp_path / "pipe", resume=False) as file:
        os.close(reader)
        with pytest.raises(RegardError, match="pipe: cannot be written: Broken pipe; choose another place"):
            file.write("eins\n")


def test_a_device_that_is_full_is_told(device):
    told = pytest.raises(RegardError, match="full: cannot be written: No space left on device; choose another place")
    with growing_file(device("full"), resume=False) as file, told:
        file.write("eins\n")
    assert file.path.is_char_device()


def test_a_device_or_a_pipe_is_not_gone_on_with(tmp_path, device):
    os.mkfifo(tmp_path / "pipe")
    for path in (device("null"), tmp_path / "pipe"):
        refused = pytest.raises(RegardError, match="keeps no lines to go on behind; leave out --resume")
        with refused, growing_file(path, resume=True):
            pass
        assert check_record(path, {}) is None
