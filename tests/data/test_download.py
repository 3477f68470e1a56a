"""Fetching packages: what can go wrong is told, with the way round it."""

import hashlib
import io
import random
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from regard.data.download import Package, download, download_members, extract, read_deb
from regard.errors import RegardError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))


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
    return Package("thing==1", size=len(data), sha256=hashlib.sha256(data).hexdigest())


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
    other = Package("thing==1", size=wheel.size, sha256="0" * 64)
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
    with pytest.raises(RegardError, match="thing==1 was not fetched"):
        download_members(wheel, {"data/a.txt": 3}, folder)


def test_the_very_file_in_the_users_downloads_is_taken_without_pip(wheel, folder, tmp_path, monkeypatch):
    given = download(wheel, folder)
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "another").write_bytes(b"x" * wheel.size)
    (downloads / "folder").mkdir()
    given.rename(downloads / "any name")
    monkeypatch.setattr(subprocess, "run", None)
    path = download(wheel, folder)
    assert path.parent == folder
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256


def test_a_file_in_the_users_downloads_that_is_cut_off_is_told_and_not_used(wheel, folder, tmp_path, caplog):
    given = download(wheel, folder)
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / given.name).write_bytes(given.read_bytes()[:-1])
    given.unlink()
    assert download(wheel, folder).stat().st_size == wheel.size
    assert f"{downloads / given.name} is not used: it has {wheel.size - 1} bytes; the file of thing==1" in caplog.text


def deb(files: dict[str, bytes], *, before: bytes = b"2.0\n") -> bytes:
    """A Debian package: an ar archive with a data.tar.xz."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/link.html")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    members = {"debian-binary": before, "control.tar.xz": b"odd", "data.tar.xz": archive.getvalue()}
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        for name, content in members.items()
    )


@pytest.fixture
def apt(monkeypatch):
    """An "apt-get" whose mirror has `thing` in these versions."""
    offered: dict[str, bytes] = {}

    def run(command, *, cwd, **options):
        assert command[0] == "apt-get"
        name, _, version = command[-1].partition("=")
        if version and version not in offered:
            return subprocess.CompletedProcess(command, 100, "", f"E: Version '{version}' for '{name}' was not found\n")
        if not offered:
            return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package thing\nE: none at all\n")
        version, data = (version, offered[version]) if version else next(iter(offered.items()))
        (cwd / f"{name}_{version}_all.deb").write_bytes(data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return offered


def package(data: bytes) -> Package:
    return Package("thing=1", size=len(data), sha256=hashlib.sha256(data).hexdigest())


def test_the_texts_of_a_debian_package_are_read_and_links_are_not_followed(apt, folder):
    apt["1"] = deb({"./usr/a.html": "é".encode(), "./usr/b.txt": b"b", "../evil.html": b"e"})
    path = download(package(apt["1"]), folder)
    assert list(read_deb(path, ".html")) == [("./usr/a.html", "é"), ("../evil.html", "e")]
    assert list(folder.iterdir()) == [path]


def test_a_version_that_vanished_is_told_with_both_checksums(apt, folder):
    apt["2"] = b"newer"
    wanted = package(b"older")
    with pytest.raises(
        RegardError, match=rf"thing_2_all.deb is not .*thing=1.*{package(b'newer').sha256}.*{wanted.sha256}"
    ):
        download(wanted, folder)


def test_a_version_whose_file_changed_is_told_with_both_checksums(apt, folder):
    apt["1"] = b"newer"
    wanted = package(b"older")
    with pytest.raises(RegardError, match=rf"{package(b'newer').sha256}.*{wanted.sha256}.*bring your own text"):
        download(wanted, folder)


def test_what_apt_says_is_told_with_the_way_round(apt, folder):
    with pytest.raises(RegardError, match=r"none at all.*apt-get update.*downloads.*bring your own text"):
        download(package(b"x"), folder)


def test_a_system_without_apt_is_told_the_way_round(monkeypatch, folder, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        RegardError, match=f"no apt-get here.*{tmp_path / 'cache' / 'downloads'}, or bring your own text"
    ):
        download(package(b"x"), folder)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no ar archive"),
        (b"<html>", "no ar archive"),
        (deb({})[:60], "no data.tar"),
        (b"!<arch>\n" + b"x" * 48 + b"-60       `\n" + b"x" * 60, "without a size"),
        (deb({"a.html": b"a" * 1000})[:-40], "cut off"),
        (deb({"a.html": b"\xff"}), "utf-8"),
        (deb({"a.html": b"a" * (1 << 24) + b"a"}), "16777217 bytes, too many"),
    ],
)
def test_what_is_no_good_debian_package_is_refused(folder, data, says):
    path = folder / "a.deb"
    path.write_bytes(data)
    with pytest.raises(RegardError, match=says):
        list(read_deb(path, ".html"))


def test_a_damaged_debian_package_never_fails_otherwise(folder):
    whole = deb({f"{n}.html": random.Random(n).randbytes(200).hex().encode() for n in range(4)})
    path = folder / "a.deb"
    generator = random.Random(5)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data[: generator.choice([len(data), generator.randrange(len(data))])])
        try:
            list(read_deb(path, ".html"))
        except RegardError:
            refused += 1
    assert refused > 150
