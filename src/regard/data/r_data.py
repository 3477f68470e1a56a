"""Values that R wrote to disk: its serialisation in XDR, and packages' databases of such values.

R internals, section 1.8, "Serialization formats". Only what holds lists, numbers and texts is read; nothing is run.
"""

import struct
import zlib
from typing import Any, final

from regard.errors import RegardError

HEADER = b"X\n"
# kinds of value, in the lowest byte of the word that each begins with; the next bits tell what else follows
SYMBOL, PAIRS, CHARACTERS, LOGICALS, INTEGERS, REALS, STRINGS, LIST = 1, 2, 9, 10, 13, 14, 16, 19
NOTHING, REFERENCE = 254, 255
HAS_ATTRIBUTES, HAS_TAG = 1 << 9, 1 << 10
LATIN_1 = 1 << 14
MOST_DEPTH = 20
LARGEST_VALUE = 1 << 26


def read_value(data: bytes) -> Any:
    """A serialised value: vectors are lists, lists with names dicts, NULL and missing texts None.

    Raises ValueError for what is cut off, and for what holds anything but lists, numbers and texts.
    """
    return _Reader(data).value(0)


def read_database(index: bytes, values: bytes) -> dict[str, Any]:
    """The values of a package's database by name: `index` is its .rdx file, `values` its .rdb file.

    Raises RegardError where they are none.
    """
    try:
        places = read_value(_unpacked(index))["variables"]
        found = {}
        for name, (start, length) in places.items():
            # four bytes tell the size before it was packed
            found[name] = read_value(_unpacked(values[start + 4 : start + length]))
        return found
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, zlib.error) as error:
        raise RegardError(f"not a database of R values that can be read: {error}") from None


def _unpacked(data: bytes) -> bytes:
    # 32 + 15: with the header of zlib or of gzip
    unpacking = zlib.decompressobj(wbits=47)
    unpacked = unpacking.decompress(data, LARGEST_VALUE)
    if not unpacking.eof:
        raise ValueError(f"a value is cut off, or larger than {LARGEST_VALUE} bytes")
    return unpacked


@final
class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._symbols: list[Any] = []
        if self._take(2) != HEADER:
            raise ValueError("it does not begin as R's XDR does")
        version, _, _ = (self._int() for _ in range(3))
        if version == 3:
            # the writer's own encoding
            self._take(self._int())
        elif version != 2:
            raise ValueError(f"it has version {version} of the format, not 2 or 3")

    def value(self, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise ValueError("its lists are nested too deeply")
        flags = self._int()
        kind = flags & 0xFF
        if kind == NOTHING:
            return None
        if kind == REFERENCE:
            return self._symbols[(flags >> 8 or self._int()) - 1]
        if kind == SYMBOL:
            self._symbols.append(self.value(depth + 1))
            return self._symbols[-1]
        if kind == PAIRS:
            return self._pairs(flags, depth)
        if kind == CHARACTERS:
            length = self._int()
            return None if length == -1 else self._take(length).decode("latin-1" if flags & LATIN_1 else "utf-8")
        values = self._vector(kind, depth)
        names = (self.value(depth + 1) or {}).get("names") if flags & HAS_ATTRIBUTES else None
        return values if names is None else dict(zip(names, values, strict=True))

    def _pairs(self, flags: int, depth: int) -> dict[Any, Any]:
        """A linked list of named values."""
        found = {}
        while flags & 0xFF == PAIRS:
            if flags & HAS_ATTRIBUTES:
                self.value(depth + 1)
            name = self.value(depth + 1) if flags & HAS_TAG else len(found)
            found[name] = self.value(depth + 1)
            flags = self._int()
        if flags & 0xFF != NOTHING:
            raise ValueError("a list does not end")
        return found

    def _vector(self, kind: int, depth: int) -> list[Any]:
        if kind not in (LOGICALS, INTEGERS, REALS, STRINGS, LIST):
            raise ValueError(f"it holds a value of kind {kind} at byte {self._at}")
        length = self._int()
        if kind in (STRINGS, LIST):
            # each takes four bytes at least, so that a length too large soon ends
            return [self.value(depth + 1) for _ in range(length)]
        letter = "d" if kind == REALS else "i"
        return list(struct.unpack(f">{length}{letter}", self._take(length * struct.calcsize(f">{letter}"))))

    def _int(self) -> int:
        return int.from_bytes(self._take(4), "big", signed=True)

    def _take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if size < 0 or len(data) < size:
            raise ValueError("it is cut off")
        self._at += size
        return data
