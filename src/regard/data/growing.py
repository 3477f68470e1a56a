"""Text files that grow by whole lines, so that work that broke off can go on from them."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, final

from regard.errors import RegardError


@final
class GrowingFile:
    """A text file to which whole lines are added. `lines` is how many it has; `growing_file` opens it."""

    def __init__(self, path: Path, raw: IO[bytes], *, lines: int) -> None:
        self.path = path
        self.lines = lines
        self._raw = raw

    def line(self, index: int) -> str:
        """One of its lines."""
        with open(self.path, "rb") as file:
            return next(itertools.islice(file, index, None)).decode("utf-8", "replace").removesuffix("\n")

    def keep(self, lines: int) -> None:
        """Drop all but the first so many lines, and what was being written when the work broke off."""
        with open(self.path, "rb") as file:
            self._raw.truncate(sum(map(len, itertools.islice(file, lines))))
        self.lines = lines

    def write(self, text: str) -> None:
        """Add whole lines, or as many of them as there is room for. Raises RegardError where that is not all."""
        data = text.encode()
        assert not data or data.endswith(b"\n")
        written = 0
        try:
            while written < len(data):
                written += self._raw.write(data[written:])
        except OSError as error:
            whole = data[:written].rfind(b"\n") + 1
            self.lines += data[:whole].count(b"\n")
            if written > whole:
                self._raw.truncate(self.path.stat().st_size - (written - whole))
            raise RegardError(
                f"{self.path}: cannot be written: {error.strerror or error}; its first {self.lines:,} lines are whole, "
                "--resume goes on behind them once there is room"
            ) from None
        self.lines += data.count(b"\n")


@contextlib.contextmanager
def growing_file(path: Path, *, resume: bool) -> Iterator[GrowingFile]:
    """A new file, in place of any older one, or, where `resume`, the one that is there, of which to `keep` some lines.

    Raises RegardError where it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # unbuffered, so that nothing is left to be written at the end
        with open(path, "ab" if resume else "wb", buffering=0) as raw:
            yield GrowingFile(path, raw, lines=_count_lines(path) if resume else 0)
    except OSError as error:
        raise RegardError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from None


def _count_lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(line.endswith(b"\n") for line in file)
