"""Text files that grow by whole lines, so that work that broke off can go on from them."""

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, final

from regard.data.formats import COMPRESSION_SUFFIXES
from regard.errors import RegardError
from regard.files import is_stream, new_file, open_stream

LARGEST_RECORD = 1 << 20

logger = logging.getLogger("regard")


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
            if is_stream(self.path):
                raise RegardError(
                    f"{self.path}: cannot be written: {error.strerror or error}; choose another place"
                ) from None
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

    A stream gets the lines as they come.
    Raises RegardError where it cannot be opened, for a name that promises a compressed file, and to resume a stream.
    """
    if path.suffix in COMPRESSION_SUFFIXES:
        raise RegardError(f"{path}: what is written here is plain text; leave out {path.suffix} and compress it after")
    if resume and is_stream(path):
        raise RegardError(f"{path}: a device or a pipe keeps no lines to go on behind; leave out --resume")
    try:
        Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
        # unbuffered, so that nothing is left to be written at the end
        with open_stream(path) if is_stream(path) else open(path, "ab" if resume else "wb", buffering=0) as raw:
            yield GrowingFile(path, raw, lines=_count_lines(path) if resume else 0)
    except OSError as error:
        raise RegardError(f"{path}: cannot be written: {error.strerror or error}; choose another place") from None


@contextlib.contextmanager
def recorded(path: Path, work: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Keep beside a growing file, until it is done, a record of the `work` that fills it, for `check_record`.

    Gives a function that adds to the record how far the work has come.
    """

    def note(progress: Mapping[str, Any]) -> None:
        with new_file(_record(path)) as partial:
            partial.write_text(json.dumps({**work, **progress}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    if is_stream(path):
        yield lambda progress: None
        return
    note({})
    done = False
    try:
        yield note
        done = True
    finally:
        # where no line was written there is nothing to go on behind
        if done or not path.is_file() or not path.stat().st_size:
            _record(path).unlink(missing_ok=True)


def check_record(path: Path, work: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a file that this `work` began to fill; of one without a record the log tells.

    Raises RegardError, naming what differs, where other work began to fill it.
    """
    record = _record(path)
    if not record.is_file():
        if path.is_file() and path.stat().st_size:
            logger.warning("%s: nothing tells how its lines were made; they are kept as they are", path)
        return None
    try:
        begun = _read(record)
    except (OSError, ValueError, RecursionError) as error:
        raise RegardError(f"{record}: not a record of what made {path} ({error}); delete one of the two") from None
    check_same(path, begun, work)
    return begun


def check_same(path: Path, begun: Mapping[str, Any], work: Mapping[str, Any]) -> None:
    """Raises RegardError, naming what differs, where a path was begun by other work than this."""
    for name, now in work.items():
        if begun.get(name) != now:
            raise RegardError(
                f"{path} was begun with {name} {begun.get(name)!r}, not {now!r}; go on as it was begun, or choose "
                "another place"
            )


def check_no_other_record(path: Path, work: Mapping[str, Any]) -> None:
    """Raises RegardError where the record of a file to be filled would take the place of what is no such record."""
    record = _record(path)
    if not record.exists():
        return
    try:
        is_ours = work.keys() <= _read(record).keys()
    except (OSError, ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        raise RegardError(f"{record} exists already, where it is noted how {path} is made; choose another place")


def _read(record: Path) -> dict[str, Any]:
    if record.stat().st_size > LARGEST_RECORD:
        raise ValueError("it is too long")
    begun = json.loads(record.read_text(encoding="utf-8"))
    if not isinstance(begun, dict):
        raise ValueError("it holds no object")
    return begun


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.resume")


def _count_lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(line.endswith(b"\n") for line in file)
