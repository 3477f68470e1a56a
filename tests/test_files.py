"""Files and folders appear whole or not at all, and a disk that takes no more is told in words."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from regard.errors import RegardError
from regard.files import clear_leftovers, is_stream, locked, new_file, new_folder, read_whole, same_file

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


def test_a_process_that_dies_half_way_leaves_the_old_content(new, old):
    script = (
        "import os, sys, pathlib, regard.files as files\n"
        f"with files.{new.__name__}(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'inside.txt' if partial.is_dir() else partial).write_text('half')\n"
        "    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(old)]).returncode == 9
    assert content(old) == "old"


def leave(new_path: Path, *, renames: int) -> None:
    """A process that replaces a folder and is killed after so many of its two renames."""
    script = (
        "import os, sys, pathlib, regard.files as files\n"
        "rename, left = pathlib.Path.rename, [int(sys.argv[2])]\n"
        "def count(*paths):\n"
        "    if not left[0]: os._exit(9)\n"
        "    left[0] -= 1\n"
        "    return rename(*paths)\n"
        "pathlib.Path.rename = count\n"
        "files.shutil.rmtree = lambda *_, **__: os._exit(9)\n"
        "with files.new_folder(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'inside.txt').write_text('new')\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(new_path), str(renames)]).returncode == 9


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_what_a_killed_process_left_of_a_folder_is_cleared_and_the_folder_is_whole(tmp_path, renames):
    path = tmp_path / "thing"
    write_new(new_folder, path, "old")
    (tmp_path / ".thing-mine").mkdir()
    leave(path, renames=renames)
    assert path.exists() == (renames != 1)
    assert len(os.listdir(tmp_path)) == 2 + (renames != 1)
    clear_leftovers(path)
    assert content(path) == ("new" if renames else "old")
    assert sorted(os.listdir(tmp_path)) == [".thing-mine", "thing"]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    path = tmp_path / "thing"
    with new_folder(path) as partial:
        clear_leftovers(path)
        with new_folder(path) as other:
            write(other, "other")
        write(partial, "new")
    assert content(path) == "new"
    assert os.listdir(tmp_path) == ["thing"]


def test_a_lock_is_held_by_one_at_a_time_and_ends_with_its_process(tmp_path):
    (tmp_path / "lock").touch()
    with locked(tmp_path / "lock") as first, locked(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    script = "import os, sys, pathlib, regard.files as f\nwith f.locked(pathlib.Path(sys.argv[1])): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "lock")]).returncode == 9
    with locked(tmp_path / "lock") as again:
        assert again


def test_the_disk_holds_what_was_written_before_it_has_its_name(new, old, monkeypatch):
    events = []

    def note(name, function):
        def call(*arguments):
            kept = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "sync" else str(arguments[0])
            events.append((name, Path(kept).name))
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", note("sync", os.fsync))
    monkeypatch.setattr(os, "replace", note("rename", os.replace))
    monkeypatch.setattr(Path, "rename", note("rename", Path.rename))
    write_new(new, old, "new")
    written = "inside.txt" if old.is_dir() else f".{os.getpid()}-thing.txt"
    moved = "new" if old.is_dir() else written
    assert events[0] == ("sync", written)
    assert events.index(("rename", moved)) < events.index(("sync", old.parent.name))


def test_more_than_may_be_read_is_an_error_even_of_what_has_no_end(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_whole(tmp_path / "file", 5) == b"12345"
    for path in (tmp_path / "file", Path("/dev/zero")):
        with pytest.raises(OSError, match="it has more than 4 bytes"):
            read_whole(path, 4)


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


def test_a_file_that_is_replaced_keeps_its_permissions(new, old):
    old.chmod(0o750)
    write_new(new, old, "new")
    assert (content(old), old.stat().st_mode & 0o777) == ("new", 0o750)


@pytest.mark.parametrize("is_relative", [True, False], ids=["relative", "absolute"])
def test_a_link_stays_a_link_and_its_target_gets_the_content(new, tmp_path, is_relative):
    target = tmp_path / "there" / "thing.txt"
    write_new(new, target, "old")
    # through a link to a link in another folder
    (tmp_path / "here").mkdir()
    first, second = tmp_path / "here" / "first.png", tmp_path / "second"
    first.symlink_to(Path("..") / "second" if is_relative else second)
    second.symlink_to(Path("there") / "thing.txt" if is_relative else target)
    with new(first) as partial:
        # whole or not at all needs the disk of the target; the format is that of the name that was given
        assert partial.stat().st_dev == target.stat().st_dev if partial.exists() else partial.parent == target.parent
        assert new is new_folder or partial.suffix == ".png"
        write(partial, "new")
        assert content(target) == "old"
    assert first.is_symlink()
    assert second.is_symlink()
    assert not target.is_symlink()
    assert content(target) == "new"
    assert os.listdir(target.parent) == [target.name]
    assert os.listdir(first.parent) == [first.name]


def test_a_link_to_what_is_not_there_makes_it_there(new, tmp_path):
    link, target = tmp_path / "link", tmp_path / "made" / "thing"
    link.symlink_to(target)
    write_new(new, link, "new")
    assert link.is_symlink()
    assert content(target) == "new"


def test_links_that_lead_in_a_circle_are_refused_before_anything_is_written(new, tmp_path):
    for name, other in [("one", "two"), ("two", "one")]:
        (tmp_path / name).symlink_to(other)
    with (
        pytest.raises(RegardError, match=r"one: cannot be written: Too many levels of symbolic links"),
        new(tmp_path / "one"),
    ):
        raise AssertionError("begun")
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
    assert (tmp_path / "one").is_symlink()


@pytest.mark.parametrize("by_link", [False, True], ids=["itself", "by a link"])
def test_a_folder_is_not_replaced_by_a_file_nor_a_file_by_a_folder(new, tmp_path, by_link):
    other, message = (new_folder, "Is a directory") if new is new_file else (new_file, "Not a directory")
    write_new(other, tmp_path / "thing", "old")
    if by_link:
        (tmp_path / "link").symlink_to("thing")
    path = tmp_path / ("link" if by_link else "thing")
    with pytest.raises(RegardError, match=message), new(path):
        raise AssertionError("begun")
    assert content(tmp_path / "thing") == "old"
    assert path.is_symlink() == by_link


@pytest.mark.parametrize("by_link", [False, True], ids=["itself", "by a link"])
def test_a_device_is_written_to_in_place(tmp_path, device, by_link):
    path = device("null")
    if by_link:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    before = (path.stat(), path.lstat().st_ino, sorted(os.listdir(tmp_path)))
    assert is_stream(path)
    write_new(new_file, path, "x" * 100_000)
    after = (path.stat(), path.lstat().st_ino, sorted(os.listdir(tmp_path)))
    assert stat.S_ISCHR(after[0].st_mode)
    assert (before[0].st_rdev, before[0].st_mode, *before[1:]) == (after[0].st_rdev, after[0].st_mode, *after[1:])


def test_a_device_that_is_full_is_told_and_stays(tmp_path, device):
    path = device("full")
    before = path.stat()
    with pytest.raises(RegardError, match="full: cannot be written: No space left on device; free some space"):
        write_new(new_file, path, "x")
    after = path.stat()
    assert (before.st_mode, before.st_rdev, before.st_ino) == (after.st_mode, after.st_rdev, after.st_ino)
    assert os.listdir(tmp_path) == ["full"]


def test_a_device_is_not_replaced_by_a_folder(device):
    path = device("null")
    with pytest.raises(RegardError, match="Not a directory"):
        write_new(new_folder, path, "x")
    assert stat.S_ISCHR(path.stat().st_mode)


@pytest.mark.parametrize("error", NOT_OURS, ids=lambda error: type(error).__name__)
def test_a_stream_gets_nothing_of_what_fails_half_way(tmp_path, error):
    os.mkfifo(tmp_path / "pipe")
    # where it were opened now, this would wait for a reader for ever
    with pytest.raises(type(error)):
        write_new(new_file, tmp_path / "pipe", "half", then=error)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_reader_of_a_pipe_gets_the_whole_content(tmp_path):
    pipe, text, read = tmp_path / "pipe", "whole\n" * 100_000, []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_new(new_file, pipe, text)
    reader.join(timeout=60)
    assert read == [text]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_pipe_whose_reader_has_left_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    # more than a pipe holds, so that something is still to be written when its reader leaves
    timer = threading.Timer(0.2, os.close, [reader])
    timer.start()
    with pytest.raises(RegardError, match="pipe: cannot be written: its reader has left"):
        write_new(new_file, tmp_path / "pipe", "x" * 1_000_000)
    timer.join()


SHARED = """
import os, pathlib, sys
from regard.files import new_file
for path, text in zip(sys.argv[1::2], sys.argv[2::2]):
    print("before", flush=True)
    with new_file(pathlib.Path(path)) as partial:
        partial.write_text(text)
    print("after", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no names of open descriptors here")
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_an_open_descriptor_goes_on_where_it_is(tmp_path, mode):
    # links such as /dev/stdout, in a folder in which a fault replaces nothing of the machine's
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    (tmp_path / "link").symlink_to("stdout")
    path = tmp_path / "file"
    path.write_text("old\n")
    command = [sys.executable, "-c", SHARED, str(tmp_path / "stdout"), "1\n", str(tmp_path / "link"), "2\n"]
    with path.open(mode) as file:
        assert subprocess.run(command, stdout=file).returncode == 0
    wanted = "".join(f"before\n{number}\nafter\n" for number in (1, 2))
    assert path.read_text() == ("old\n" if mode == "ab" else "") + wanted
    assert subprocess.run(command, capture_output=True, text=True).stdout == wanted
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "stdout").is_symlink()


def test_a_descriptor_that_is_not_open_is_told(tmp_path):
    for number in (987_654, 10**30):
        with pytest.raises(RegardError, match="cannot be written"):
            write_new(new_file, Path(f"/dev/fd/{number}"), "x")


def test_one_file_is_known_by_any_of_its_names(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).touch()
    (tmp_path / "soft").symlink_to("one")
    (tmp_path / "hard").hardlink_to(tmp_path / "one")
    (tmp_path / "dangling").symlink_to("missing")
    assert all(same_file(tmp_path / "one", tmp_path / name) for name in ("one", "soft", "hard"))
    assert same_file(tmp_path / "dangling", tmp_path / "missing")
    assert not any(same_file(tmp_path / "one", tmp_path / name) for name in ("other", "dangling", "missing"))
