"""The lines of a job, as they come: where the input pauses, what came so far is not kept waiting."""

import contextlib
import io
import itertools
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, final

from regard.data.lines import read_lines
from regard.data.packing import COMPRESSIONS, display_name
from regard.errors import RegardError

# lines worked on together: enough to find many of like length
CHUNK = 1024
# seconds without a further line that are a pause: what a program writes in one go comes within them
PAUSE = 0.02
READ = 1 << 16


class Line(NamedTuple):
    """A line of the input, its place from 0, and what its translation is to begin with."""

    place: int
    text: str
    prefix: str = ""


@final
class PausingStream(io.BufferedIOBase):
    """The bytes of a pipe or a terminal, which knows whether the next line is there or has to be waited for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._has_begun = self._has_ended = False
        # a line may be at hand in what was unpacked
        self._is_compressed = False

    def readable(self) -> bool:
        return True

    def peek(self, size: int = 0) -> bytes:
        if not self._buffer:
            self._fill()
        return bytes(self._buffer[: max(size, 1)])

    def read(self, size: int | None = -1) -> bytes:
        wanted = sys.maxsize if size is None or size < 0 else size
        while len(self._buffer) < wanted and not self._has_ended:
            self._fill()
        return self._take(wanted)

    def readline(self, size: int | None = -1) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        most = sys.maxsize if size is None or size < 0 else size
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0 and len(self._buffer) < most and not self._has_ended:
            searched = len(self._buffer)
            self._fill()
        return self._take(min(most, end + 1 if end >= 0 else len(self._buffer)))

    def pauses(self) -> bool:
        """Whether no further line is at hand, nor the end."""
        while b"\n" not in self._buffer and not self._has_ended and not self._is_compressed:
            if not select.select([self._descriptor], [], [], PAUSE)[0]:
                return True
            self._fill()
        return False

    def _fill(self) -> None:
        read = os.read(self._descriptor, READ)
        if not self._has_begun:
            self._has_begun, self._is_compressed = True, read.startswith(tuple(COMPRESSIONS))
        self._buffer += read
        self._has_ended = not read

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


@contextlib.contextmanager
def pausing_stream(file: str) -> Iterator[PausingStream | None]:
    """The stream of standard input (`-`) or of a pipe's path; None of what never pauses: a file, or text in memory.

    Raises RegardError where a pipe cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        descriptor = None
        with contextlib.suppress(io.UnsupportedOperation):
            if file == "-" and not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
                descriptor = sys.stdin.fileno()
        if file != "-" and is_pipe(file):
            try:
                descriptor = stack.enter_context(open(file, "rb", buffering=0)).fileno()
            except OSError as error:
                raise RegardError(f"{file}: cannot be read: {error.strerror or error}") from None
        yield None if descriptor is None else PausingStream(descriptor)


def is_pipe(file: str) -> bool:
    """Whether it is the path of a pipe."""
    try:
        return stat.S_ISFIFO(os.stat(file).st_mode)
    except (OSError, ValueError):
        return False


def inputs(
    file: str, prefix: str = "", prefixes: Path | None = None, *, stream: PausingStream | None = None
) -> Iterator[Line]:
    """The lines of a text, with one prefix for all or a file of them. Raises RegardError as `read_lines` does."""
    texts = read_lines(file, stream=stream)
    if prefixes is None:
        yield from (Line(index, text, prefix) for index, text in enumerate(texts))
        return
    for index, (text, begin) in enumerate(itertools.zip_longest(texts, read_lines(prefixes))):
        if text is None or begin is None:
            shorter, longer = (display_name(file), prefixes) if text is None else (prefixes, display_name(file))
            raise RegardError(f"{shorter} has {index} lines, {longer} more; each line needs its own prefix, if empty")
        yield Line(index, text, begin)


def chunks(
    lines: Iterable[Line], size: int | None = None, pauses: Callable[[], bool] = lambda: False
) -> Iterator[list[Line]]:
    """At most `size` lines at a time, by default CHUNK, fewer where the input `pauses`.

    Where reading fails, what was read before comes, and then the error.
    """
    chunk: list[Line] = []
    try:
        for line in lines:
            chunk.append(line)
            if len(chunk) >= (size or CHUNK) or pauses():
                yield chunk
                chunk = []
    except RegardError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
