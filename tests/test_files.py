"""Files and folders appear whole or not at all, and a disk that takes no more is told in words."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regard.errors import RegardError
from regard.files import new_file, new_folder

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
NOT_OURS = [ValueError("no number"), KeyboardInterrupt(), RegardError("line 3 is empty")]


def write(path: Path, text: str):
    """A file, or a folder with one file in it: what the two writers have in common."""
    if path.is_dir():
        path = path / "inside.txt"
    path.write_text(text)


def content(path: Path):
    return (path / "inside.txt" if path.is_dir() else path).read_text()


def write_new(new, path: Path, text: str, *, then=None):
    """Write the text with `new`, and, before it is done, fail with `then`."""
    with new(path) as partial:
        write(partial, text)
        if then is not None:
            raise then


@pytest.fixture(params=[new_file, new_folder], ids=["file", "folder"])
def new(request):
    return request.param


@pytest.fixture
def old(new, tmp_path):
    path = tmp_path / "thing.txt"
    write_new(new, path, "old")
    return path


def assert_untouched(old):
    assert content(old) == "old"
    assert os.listdir(old.parent) == [old.name]


def test_what_was_written_appears_under_its_name(old):
    assert_untouched(old)


def test_folders_on_the_way_are_made(new, tmp_path):
    path = tmp_path / "a" / "b" / "thing"
    write_new(new, path, "new")
    assert content(path) == "new"


def test_until_the_end_the_old_content_stays(new, old):
    with new(old) as partial:
        write(partial, "new")
        assert content(old) == "old"
    assert content(old) == "new"
    assert os.listdir(old.parent) == [old.name]


def test_the_partial_has_the_suffix_of_what_it_will_be(tmp_path):
    # writers that choose a format by suffix must choose the same
    with new_file(tmp_path / "picture.png") as partial:
        assert partial.suffix == ".png"
        assert partial.parent == tmp_path
        partial.touch()


def test_a_new_folder_takes_nothing_over_from_the_old(tmp_path):
    for name in ("one", "two"):
        with new_folder(tmp_path / "run") as partial:
            (partial / name).touch()
    assert os.listdir(tmp_path / "run") == ["two"]


@pytest.mark.parametrize("error", NOT_OURS, ids=lambda error: type(error).__name__)
def test_a_failure_half_way_leaves_the_old_content_and_nothing_else(new, old, error):
    with pytest.raises(type(error)) as raised:
        write_new(new, old, "half", then=error)
    assert raised.value is error
    assert_untouched(old)


@pytest.mark.parametrize("error", NOT_OURS, ids=lambda error: type(error).__name__)
def test_a_failure_half_way_leaves_nothing_where_nothing_was(new, tmp_path, error):
    with pytest.raises(type(error)):
        write_new(new, tmp_path / "thing", "half", then=error)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_the_old_content(new, old):
    with pytest.raises(RegardError, match=r"thing\.txt: cannot be written: No space left.*free some space"):
        write_new(new, old, "half", then=FULL)
    assert_untouched(old)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_device_that_is_really_full_is_told(tmp_path):
    def write_to_full_device():
        with new_file(tmp_path / "thing") as partial:
            partial.symlink_to("/dev/full")
            partial.write_text("x")

    with pytest.raises(RegardError, match="No space left"):
        write_to_full_device()
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_at_the_last_step_leaves_the_old_content(new, old, monkeypatch):
    def full(*_):
        raise FULL

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(RegardError, match="free some space"):
        write_new(new, old, "new")
    assert_untouched(old)


def test_another_failure_of_the_disk_is_told_without_talk_of_space(new, old):
    with pytest.raises(RegardError) as told:
        write_new(new, old, "half", then=PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert str(told.value) == f"{old}: cannot be written: Permission denied; choose another place"
    assert_untouched(old)


def test_a_place_below_a_file_is_told(new, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RegardError, match="choose another place"):
        write_new(new, tmp_path / "file" / "thing", "new")
    assert content(tmp_path / "file") == "old"


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "inside.txt").write_text("old")
    with pytest.raises(RegardError, match="choose another place"):
        write_new(new_file, tmp_path / "run", "new")
    assert_untouched(tmp_path / "run")


def test_a_process_that_dies_half_way_leaves_the_old_content(new, old):
    script = (
        "import os, sys, pathlib, regard.files as files\n"
        f"with files.{new.__name__}(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'inside.txt' if partial.is_dir() else partial).write_text('half')\n"
        "    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(old)]).returncode == 9
    assert content(old) == "old"


def test_a_file_is_as_open_to_others_as_the_user_lets_new_files_be(tmp_path):
    def secretive(path):
        path.write_text("")
        path.chmod(0o600)

    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "file") as partial:
            secretive(partial)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
