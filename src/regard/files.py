"""Files and folders appear whole or not at all; a link is followed, and a device or a pipe is written to in place."""

import contextlib
import errno
import io
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from regard.errors import RegardError

try:
    import fcntl
except ImportError:
    fcntl = None

IS_WINDOWS = sys.platform == "win32"
LOCK, NEW, OLD = "lock", "new", "old"
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
            _sync(partial)
            # some libraries write for their user's eyes alone; a new file is as open as any that its user makes
            partial.chmod(0o666 & ~_umask() if mode is None else mode)
            os.replace(partial, target)
            _sync_folder(target.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to write into, which becomes `path`, in place of any older folder, if all is well.

    A link stays a link, and the folder that it leads to is replaced. What killed processes left beside it is cleared.
    Raises RegardError where the disk is full or cannot be written; nothing half-written is left.
    """
    with _told(path):
        target, mode = _end_of_links(path, is_right=stat.S_ISDIR, otherwise=errno.ENOTDIR)
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target)
        with _temporary_sibling(target) as temporary:
            made = temporary / NEW
            made.mkdir()
            yield made
            for inside in made.rglob("*"):
                (_sync_folder if inside.is_dir() else _sync)(inside)
            _sync_folder(made)
            if mode is not None:
                made.chmod(mode)
            # another process may have made the same folder meanwhile: the last one stays
            with contextlib.suppress(FileNotFoundError):
                target.rename(temporary / OLD)
            made.rename(target)
            _sync_folder(target.parent)


def clear_leftovers(target: Path) -> None:
    """Remove what killed processes left of a folder to be; one that was to take the place of another still does."""
    for temporary in target.parent.glob(".*"):
        if not re.fullmatch(rf"\.{re.escape(target.name)}-\w{{8}}", temporary.name) or temporary.is_symlink():
            continue
        # empty where a process was killed before it had made the lock
        with contextlib.suppress(OSError):
            temporary.rmdir()
        try:
            with locked(temporary / LOCK) as is_ours:
                if is_ours:
                    _settle(temporary, target)
        except FileNotFoundError:
            # its process was killed while it removed it
            _settle(temporary, target)
        except OSError:
            pass


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool | None]:
    """Hold the lock on a file that is there: it ends with this process, however that ends.

    Gives False where another process holds it, and None where the file system has no locks. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:
        pass
    return None


@contextlib.contextmanager
def _temporary_sibling(target: Path) -> Iterator[Path]:
    """A hidden folder that `clear_leftovers` of another process leaves alone while this one lives."""
    with contextlib.ExitStack() as stack:
        while True:
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
            stack.callback(_settle, temporary, target)
            with contextlib.suppress(FileNotFoundError):
                (temporary / LOCK).touch()
                is_ours = stack.enter_context(locked(temporary / LOCK))
                # another process may have cleared it before it was locked
                if is_ours is not False and (temporary / LOCK).exists():
                    break
        yield temporary


def _settle(temporary: Path, target: Path) -> None:
    """Remove a temporary folder; where the second of two renames is still to come, it comes now."""
    if (temporary / OLD).is_dir() and (temporary / NEW).is_dir() and not target.exists():
        (temporary / NEW).rename(target)
    shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the disk hold what was written, so that a loss of power leaves the old content or the new."""
    # Windows flushes only what is open for writing
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    # Windows and some file systems have no such thing, and then need none
    with contextlib.suppress(OSError):
        _sync(path)


def is_stream(path: Path) -> bool:
    """Whether it is a device, a pipe or an open descriptor such as /dev/stdout: written to in place, never replaced."""
    is_other = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    return is_other or _descriptor(path) is not None


def open_stream(path: Path) -> io.FileIO:
    """Open a stream for writing; an open descriptor goes on where it is, even if it leads to a file."""
    descriptor = _descriptor(path)
    return io.FileIO(path if descriptor is None else os.dup(descriptor), "wb")


def read_whole(path: Path, most: int) -> bytes:
    """All of a file, device or pipe. Raises OSError for more than `most` bytes: some devices have no end."""
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return data


def real_path(path: Path | str) -> Path:
    """The path without links; of links that lead in a circle, which opening tells, the path itself."""
    return Path(os.path.realpath(path))


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
