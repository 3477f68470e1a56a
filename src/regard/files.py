"""Files and folders appear whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from regard.errors import RegardError


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary sibling of the same suffix to write, which becomes `path`, in place of any older one, if all is well.

    Raises RegardError where the disk is full or cannot be written; nothing half-written is left.
    """
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    with _told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            # some libraries write for their user's eyes alone; a run is as open as any file that its user makes
            partial.chmod(0o666 & ~_umask())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to write into, which becomes `path`, in place of any older one, if all is well.

    Raises RegardError where the disk is full or cannot be written; nothing half-written is left.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
            made = Path(temporary) / "new"
            made.mkdir()
            yield made
            # another process may have made the same folder meanwhile: the last one stays
            with contextlib.suppress(FileNotFoundError):
                path.rename(Path(temporary) / "old")
            made.rename(path)


def check_new_folder(path: Path) -> None:
    """Raises RegardError where `new_folder` would take the place of anything but an empty folder."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise RegardError(f"{path} exists already; choose another folder, or delete it")


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
