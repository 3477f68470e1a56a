"""Files and folders appear whole or not at all; a link is followed, and a device or a pipe is written to in place."""

import contextlib
import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from regard.errors import RegardError

# Linux follows no more links than this
MOST_LINKS = 40


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file of the same suffix to write, whose content becomes that of `path` if all is well.

    A regular file is replaced by a sibling and keeps its permissions; a link stays a link, and its target is replaced;
    a stream gets the content in place.
    Raises RegardError where the disk is full or cannot be written; nothing half-written is left.
    """
    with _told(path):
        if is_stream(path):
            # a stream takes no seeks, which some formats need, and must not get half of a file
            with tempfile.TemporaryDirectory(prefix="regard-") as folder:
                partial = Path(folder) / path.name
                yield partial
                _copy(partial, path)
            return
        target, mode = _end_of_links(path, is_right=stat.S_ISREG, otherwise=errno.EISDIR)
        partial = target.with_name(f".{os.getpid()}-{path.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            # some libraries write for their user's eyes alone; a new file is as open as any that its user makes
            partial.chmod(0o666 & ~_umask() if mode is None else mode)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to write into, which becomes `path`, in place of any older folder, if all is well.

    A link stays a link, and the folder that it leads to is replaced.
    Raises RegardError where the disk is full or cannot be written; nothing half-written is left.
    """
    with _told(path):
        target, mode = _end_of_links(path, is_right=stat.S_ISDIR, otherwise=errno.ENOTDIR)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
            made = Path(temporary) / "new"
            made.mkdir()
            yield made
            if mode is not None:
                made.chmod(mode)
            # another process may have made the same folder meanwhile: the last one stays
            with contextlib.suppress(FileNotFoundError):
                target.rename(Path(temporary) / "old")
            made.rename(target)


def is_stream(path: Path) -> bool:
    """Whether it is a device, a pipe or an open descriptor such as /dev/stdout: written to in place, never replaced."""
    is_other = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    return is_other or _descriptor(path) is not None


def open_stream(path: Path) -> io.FileIO:
    """Open a stream for writing; an open descriptor goes on where it is, even if it leads to a file."""
    descriptor = _descriptor(path)
    return io.FileIO(path if descriptor is None else os.dup(descriptor), "wb")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, by links of either sort, even if it is not there yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def check_new_folder(path: Path) -> None:
    """Raises RegardError where `new_folder` would take the place of anything but an empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise RegardError(f"{path} exists already; choose another folder, or delete it")


def _descriptor(path: Path) -> int | None:
    """The open descriptor that a path names: /dev/stdout is a link to /dev/fd/1, which leads to what has no name."""
    for _ in range(MOST_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) == os.path.realpath("/dev/fd"):
            return int(path.name) if os.path.exists(path) else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _copy(content: Path, path: Path) -> None:
    try:
        with content.open("rb") as source, io.BufferedWriter(open_stream(path)) as stream:
            shutil.copyfileobj(source, stream)
    except BrokenPipeError:
        raise RegardError(f"{path}: cannot be written: its reader has left; keep that open, or name a file") from None


def _end_of_links(path: Path, *, is_right: Callable[[int], bool], otherwise: int) -> tuple[Path, int | None]:
    """Where a path leads, and the permissions of what is there. Raises OSError for what must not be replaced."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target, None
    if not is_right(mode):
        raise OSError(otherwise, os.strerror(otherwise))
    return target, mode & 0o777


def _umask() -> int:
    # it can be read only by setting it
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # not of this file: whoever reads our output has left
        raise
    except (OSError, SafetensorError) as error:
        # safetensors reports a full disk in words alone
        is_full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error)
        why = getattr(error, "strerror", None) or error
        remedy = "free some space or choose another place" if is_full else "choose another place"
        raise RegardError(f"{path}: cannot be written: {why}; {remedy}") from None
