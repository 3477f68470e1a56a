"""The file in which CTranslate2 keeps a model's weights: a plain list of named tensors, read here within limits.

The layout is that of CTranslate2's `ModelSpec._serialize` (ctranslate2/specs/model_spec.py), binary version 6: version,
name and revision of the specification, then each tensor with its name, shape, type and bytes, then names of tensors
that share another's bytes. Numbers are little-endian; a string has its length with the zero that ends it before it.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from regard.errors import RegardError

VERSION = 6
MOST_TENSORS, MOST_AXES = 1 << 14, 8
# by the number of a type in the file
TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}


class CTranslate2File(NamedTuple):
    """The name of the specification, such as WhisperSpec, and tensors by name, which are views of the file."""

    name: str
    revision: int
    tensors: dict[str, np.ndarray]


def read_ctranslate2(path: Path) -> CTranslate2File:
    """Raises RegardError for a file that is cut, of another version, or whose sizes contradict each other."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise RegardError(f"{path}: cannot be read ({error}); fetch it again") from None
    try:
        return _read(_Cursor(data))
    except ValueError as error:
        raise RegardError(f"{path}: not a model of CTranslate2 that can be read: {error}; fetch it again") from None


def _read(cursor: "_Cursor") -> CTranslate2File:
    version = cursor.number("I")
    if version != VERSION:
        raise ValueError(f"its version is {version}, not {VERSION}")
    name, revision = cursor.string(), cursor.number("I")
    tensors: dict[str, np.ndarray] = {}
    for _ in range(_at_most(cursor.number("I"), MOST_TENSORS, "tensors")):
        own = cursor.string()
        if own in tensors:
            raise ValueError(f"it has two tensors {own!r}")
        shape = [cursor.number("I") for _ in range(_at_most(cursor.number("B"), MOST_AXES, f"axes of {own!r}"))]
        kind, size = cursor.number("B"), cursor.number("I")
        if kind not in TYPES:
            raise ValueError(f"{own!r} is of an unknown type, number {kind}")
        if size != math.prod(shape) * np.dtype(TYPES[kind]).itemsize:
            raise ValueError(f"{own!r} is {shape} numbers of type {TYPES[kind]}, and has {size} bytes")
        tensors[own] = np.frombuffer(cursor.take(size), dtype=TYPES[kind]).reshape(shape)
    for _ in range(_at_most(cursor.number("I"), MOST_TENSORS, "other names")):
        own, other = cursor.string(), cursor.string()
        if own in tensors or other not in tensors:
            raise ValueError(f"{own!r} cannot be another name of {other!r}")
        tensors[own] = tensors[other]
    cursor.check_end()
    return CTranslate2File(name, revision, tensors)


def _at_most(count: int, most: int, what: str) -> int:
    if count > most:
        raise ValueError(f"it has {count} {what}, more than {most}")
    return count


@final
class _Cursor:
    """A place in the file. What would go past its end raises ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._view, self._place = data, memoryview(data), 0

    def take(self, size: int) -> memoryview:
        end = self._place + size
        if end > len(self._data):
            raise ValueError(f"it ends after {len(self._data):,} bytes, before what it should hold")
        part, self._place = self._view[self._place : end], end
        return part

    def number(self, kind: str) -> int:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0]

    def string(self) -> str:
        data = bytes(self.take(self.number("H")))
        if not data.endswith(b"\0"):
            raise ValueError("a name does not end where it should")
        return data[:-1].decode("utf-8")

    def check_end(self) -> None:
        if left := len(self._data) - self._place:
            raise ValueError(f"{left:,} bytes stand after its end")
