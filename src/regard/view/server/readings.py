"""The readings that the page has open, in memory, and readings as files."""

import secrets
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from regard.errors import RegardError
from regard.reading.reading import Reading
from regard.view.folds import shown_text
from regard.view.server.limits import Limits

TITLE_LENGTH = 120


@final
@dataclass(eq=False)
class Open:
    """A reading by its id; `model` is the one that can be asked about it again, if it is at hand, `entry` its number in
    the history, if it is there."""

    id: str
    reading: Reading
    title: str
    model: str | None
    entry: int | None = None

    @property
    def size(self) -> int:
        """Bytes of all its tables, pictures and sounds."""
        tables = sum(table.nbytes for _, table in self.reading.tensors())
        return tables + sum(len(medium.data) for medium in self.reading.media)


@final
class OpenReadings:
    """The newest readings, as many as `limits` leave room for."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Open] = OrderedDict()

    def add(self, reading: Reading, *, title: str, model: str | None = None) -> Open:
        """Keep a reading. Raises RegardError if it is too large."""
        added = Open(secrets.token_hex(8), reading, title, model)
        if added.size > self._limits.reading:
            raise RegardError(
                f"the reading holds {added.size >> 20:,} MiB, more than the {self._limits.reading >> 20:,} MiB that "
                "this page shows"
            )
        with self._lock:
            self._open[added.id] = added
            while sum(each.size for each in self._open.values()) > self._limits.readings:
                self._open.popitem(last=False)
        return added

    def get(self, id: Any) -> Open:
        """Raises KeyError for one that is not there, or no longer."""
        with self._lock:
            found = self._open[id]
            self._open.move_to_end(id)
            return found


def title(reading: Reading) -> str:
    """How its text begins, in one line: the prompt, of a chat its last message, of a translation the source."""
    sequences = reading.sequences
    sequence = sequences.get("source") or next(iter(sequences.values()))
    start, end = 0, len(sequence.text)
    for turn in reading.settings.get("turns", [])[-1:]:
        start, end = turn["start"], turn["end"]
    return one_line(shown_text(sequence, start, end))


def one_line(text: str) -> str:
    """How a text begins, in one short line."""
    return " ".join(text[: 4 * TITLE_LENGTH].split())[:TITLE_LENGTH]


def to_bytes(reading: Reading, suffix: str) -> bytes:
    """The file that `Reading.save` writes with this suffix. Raises RegardError."""
    with tempfile.TemporaryDirectory(prefix="regard-") as folder:
        path = Path(folder) / f"reading{suffix}"
        reading.save(path)
        return path.read_bytes()


def from_bytes(data: bytes) -> Reading:
    """The reading of a safetensors file. Raises RegardError."""
    with tempfile.TemporaryDirectory(prefix="regard-") as folder:
        path = Path(folder) / "reading.safetensors"
        path.write_bytes(data)
        return Reading.load(path)
