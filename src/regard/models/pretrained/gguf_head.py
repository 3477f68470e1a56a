"""The head of a GGUF file: its metadata and where each tensor lies, with every size checked before it is believed.

GGUF specification, github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3. Files come from strangers: no count,
length or offset in them may cost more time or memory than the file is worth.
"""

import math
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from regard.errors import RegardError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# the kinds of numbers by their code, as struct spells them; besides them there are strings and arrays
NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
STRING, ARRAY = 8, 9
# of all arrays together, and of one string: the largest vocabularies hold 1.3 million tokens, merges, scores and kinds
MOST_ITEMS = 1 << 22
MOST_BYTES = 1 << 20
MOST_METADATA = 1 << 12
MOST_TENSORS = 1 << 16
MOST_DIMENSIONS = 4
LARGEST_ALIGNMENT = 1 << 16
MOST_PARTS = 1000
# as llama-gguf-split names them
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class GGUFTensor:
    """Where a tensor lies: its file, its shape (the axis that moves fastest last), ggml's code of how it is kept."""

    path: Path
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class GGUFHead:
    """What a GGUF file says of itself; of a file in parts the first one has the metadata, `paths` are all of them."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    paths: tuple[Path, ...]


def read_head(path: Path) -> GGUFHead:
    """The head of a file, or of the first of several parts, with the tensors of all.

    Raises RegardError for a file that is no GGUF, is cut, or claims what cannot be, and for a part that is missing.
    """
    head = _read(path)
    count = head.metadata.get("split.count", 0)
    if count in (0, 1):
        return head
    named = PART.fullmatch(path.name)
    if type(count) is not int or not 1 < count <= MOST_PARTS or named is None or int(named["count"]) != count:
        raise RegardError(f"{path}: one part of {count!r}; parts are named …-00001-of-0000N.gguf, as they were made")
    names = [f"{named['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    if path.name != names[0]:
        raise RegardError(f"{path}: one part of {count}; name the first, {names[0]}")
    paths = tuple(path.with_name(name) for name in names)
    tensors = dict(head.tensors)
    for number, other in enumerate(paths[1:], 1):
        if not other.is_file():
            raise RegardError(f"{other}: this part of {path.name} is missing; put it beside the first")
        part = _read(other)
        if (part.metadata.get("split.count"), part.metadata.get("split.no")) != (count, number):
            raise RegardError(f"{other}: it does not say that it is part {number + 1} of {count}; fetch it again")
        if twice := sorted(tensors.keys() & part.tensors.keys()):
            raise RegardError(f"{other}: another part has {twice[0]!r} too; fetch both again")
        tensors |= part.tensors
    return GGUFHead(path, head.metadata, tensors, paths)


def _read(path: Path) -> GGUFHead:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path).head()
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None
    # an empty file cannot be mapped
    except ValueError as error:
        raise RegardError(f"{path}: not a GGUF file that can be read: {error}; fetch it again") from None


class _Reader:
    """Reads from the front to the back. Raises ValueError."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.position = 0
        self.items = 0

    def head(self) -> GGUFHead:
        if self.data[:4] != MAGIC:
            raise ValueError("it does not begin with GGUF")
        self.position = 4
        version = self.number("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, and only 2 and 3, little-endian, are known")
        num_tensors, num_metadata = self.number("Q"), self.number("Q")
        if num_tensors > MOST_TENSORS or num_metadata > MOST_METADATA:
            raise ValueError(f"it claims {num_tensors} tensors and {num_metadata} metadata, which is absurd")
        metadata: dict[str, Any] = {}
        for _ in range(num_metadata):
            key = self.string()
            if key in metadata:
                raise ValueError(f"its metadata name {key!r} twice")
            metadata[key] = self.value()
        tensors = self.tensors(num_tensors, alignment=metadata.get("general.alignment", 32))
        return GGUFHead(self.path, metadata, tensors, (self.path,))

    def tensors(self, count: int, *, alignment: object) -> dict[str, GGUFTensor]:
        if type(alignment) is not int or alignment.bit_count() != 1 or alignment > LARGEST_ALIGNMENT:
            raise ValueError(f"its alignment is {alignment}, which must be a power of two")
        table = list(self.table(count))
        start = math.ceil(self.position / alignment) * alignment
        tensors = {}
        for name, shape, kind, offset in table:
            if name in tensors:
                raise ValueError(f"it has two tensors {name!r}")
            if offset % alignment:
                raise ValueError(f"tensor {name!r} begins at {offset}, no multiple of {alignment}")
            size = _size(name, shape, kind)
            if start + offset + size > len(self.data):
                raise ValueError(f"tensor {name!r} ends at byte {start + offset + size} of {len(self.data)}; it is cut")
            tensors[name] = GGUFTensor(self.path, shape, kind, start + offset, size)
        for (first, one), (second, other) in pairwise(sorted(tensors.items(), key=lambda item: item[1].start)):
            if one.start + one.size > other.start:
                raise ValueError(f"tensors {first!r} and {second!r} overlap")
        return tensors

    def table(self, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Name, shape, kind and offset of each tensor."""
        for _ in range(count):
            name = self.string()
            if not 1 <= (dimensions := self.number("I")) <= MOST_DIMENSIONS:
                raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
            # ggml writes the axis that moves fastest first
            shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
            yield name, shape, self.number("I"), self.number("Q")

    def value(self) -> Any:
        kind = self.number("I")
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ValueError(f"a value before byte {self.position} is of the unknown kind {kind}")
        kind, length = self.number("I"), self.number("Q")
        self.items += length
        if self.items > MOST_ITEMS:
            raise ValueError(f"an array before byte {self.position} claims {length} items, which is absurd")
        if kind == STRING:
            return [self.string() for _ in range(length)]
        if kind not in NUMBERS:
            raise ValueError(f"an array before byte {self.position} holds items of the unknown kind {kind}")
        return list(self.unpack(f"<{length}{NUMBERS[kind]}"))

    def string(self) -> str:
        length = self.number("Q")
        if length > MOST_BYTES:
            raise ValueError(f"a string before byte {self.position} claims {length} bytes, which is absurd")
        (text,) = self.unpack(f"<{length}s")
        return text.decode("utf-8")

    def number(self, code: str) -> Any:
        return self.unpack(f"<{code}")[0]

    def unpack(self, format: str) -> tuple[Any, ...]:
        end = self.position + struct.calcsize(format)
        if end > len(self.data):
            raise ValueError(f"it is cut: {end} bytes are needed and there are {len(self.data)}")
        values = struct.unpack_from(format, self.data, self.position)
        self.position = end
        return values


def _size(name: str, shape: tuple[int, ...], kind: int) -> int:
    from gguf import GGML_QUANT_SIZES

    # ggml's enumeration of kinds is one of integers, so that a code finds its kind
    known = {int(each): sizes for each, sizes in GGML_QUANT_SIZES.items()}
    if kind not in known:
        raise ValueError(f"tensor {name!r} is of the unknown kind {kind}")
    block, size = known[kind]
    if 0 in shape or shape[-1] % block:
        raise ValueError(f"tensor {name!r} has shape {list(shape)}, whose rows are not whole blocks of {block}")
    return math.prod(shape) // block * size
