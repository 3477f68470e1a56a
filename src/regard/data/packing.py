"""Files as bytes: gzip, xz, bz2, zstd and zip are unpacked as they are read, within limits and without a copy."""

import bz2
import gzip
import io
import lzma
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from regard.data.kinds import HEAD, Task, is_text, kind_of_bytes, kind_of_zip, refused
from regard.errors import RegardError

# how the file that keeps standard input is called
SPOOLED = "standard-input-"
# what unpacks to more than this many bytes and more than this many times its size is no text but a decompression bomb
BOMB_SIZE = 1 << 27
BOMB_RATIO = 200
# bytes after which one is looked for: its lines would take minutes, its bytes are counted in a second
SUSPICIOUS = 1 << 20
MOST_MEMBERS = 100_000
# a compressed file within a zip archive; nobody packs text more often
MOST_LAYERS = 2
# as much as zstd itself allows by default
LARGEST_WINDOW = 1 << 27
# bytes of zstd that are unpacked at a time: of the worst they make 32 MiB
ZSTD_BYTES = 1 << 10
ZIP = b"PK\x03\x04"
EMPTY_ZIP = b"PK\x05\x06"
# members that accompany a corpus
ASIDE = ("readme", "license", "licence", "copying", "changelog", "info")


def _zstd(stream: BinaryIO) -> io.RawIOBase:
    try:
        import zstandard
    except ImportError:
        raise RegardError(
            "zstd files need the package zstandard: pip install 'regard[data]', or decompress it (zstd -d)"
        ) from None
    return _Zstd(stream, zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW), zstandard.ZstdError)


COMPRESSIONS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
    b"\x28\xb5\x2f\xfd": _zstd,
}
Look = Callable[[], None] | None
COMPRESSION_SUFFIXES = (".gz", ".xz", ".bz2", ".zst")


def display_name(path: Path | str) -> str:
    """How errors name a path."""
    return "standard input" if str(path) == "-" or Path(path).name.startswith(SPOOLED) else str(path)


@contextmanager
def open_bytes(
    path: Path | str, task: Task = "lines", *, looks: bool = True, stream: io.BufferedIOBase | None = None
) -> Iterator[io.BufferedReader]:
    """The bytes of a file, of standard input ("-"), or of a `stream` of which the path is but the name, unpacked.

    A zip archive of one file gives that file, and `archive.zip/member` one of several.
    Raises RegardError for what is no file or no text, by its name and with what to do for this `task`; for a broken
    archive and for one that unpacks to more than text ever would, for which it `looks` ahead.
    """
    name = display_name(path)
    look = (lambda: _look_ahead(path, task)) if looks and stream is None and str(path) != "-" else None
    try:
        with ExitStack() as stack:
            file: Any = stream or _opened(path, stack)
            for _ in range(MOST_LAYERS + 1):
                head = _head(file)
                unpack = _unpacker(head)
                if unpack is not None:
                    counted = _Counted(file)
                    file = _buffered(_Bounded(unpack(counted), counted.size, name, look))
                elif head.startswith((ZIP, EMPTY_ZIP)):
                    file = _only_member(path, file, name, task, stack)
                else:
                    break
            else:
                raise RegardError(f"{name}: packed more than {MOST_LAYERS} times over; unpack it")
            kind = kind_of_bytes(_head(file))
            if kind is not None:
                raise refused(name, kind, task)
            yield file
    except FileNotFoundError:
        raise RegardError(f"{name}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise RegardError(f"{name}: this is a folder; name a file in it") from None
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise _damaged(name, error) from None
    except (OSError, NotImplementedError) as error:
        # gzip and bz2 raise an OSError of no number where their data are invalid
        if not isinstance(error, OSError) or error.errno is None:
            raise _damaged(name, error) from None
        raise RegardError(f"{name}: cannot be read: {error.strerror or error}") from None


def members(path: Path | str) -> list[str]:
    """The names of the files in a zip archive, but for what accompanies a corpus.

    Raises RegardError for a broken archive and for names that lead out of it.
    """
    name = display_name(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return [info.filename for info in _infos(archive, name)]
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(name, error) from None


def is_zip(path: Path | str) -> bool:
    """Whether there is a file that begins as a zip archive does."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in (ZIP, EMPTY_ZIP)
    except (OSError, ValueError):
        return False


def on_disk(path: Path | str) -> Path | str:
    """The file itself: of `archive.zip/member` the archive."""
    if str(path) == "-" or os.path.lexists(path):
        return path
    return next((parent for parent in Path(path).parents if parent.is_file() and is_zip(parent)), path)


def file_suffix(path: Path | str) -> str:
    """The ending of a file's name that tells its format, in lower case and without that of a compression."""
    name = Path(path).name.lower()
    if name.endswith(".zip") and is_zip(path):
        inside = members(path)
        name = Path(inside[0]).name.lower() if len(inside) == 1 else name
    for suffix in COMPRESSION_SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def _opened(path: Path | str, stack: ExitStack) -> io.BufferedReader:
    if str(path) == "-":
        buffer: Any = sys.stdin.buffer
        return buffer if isinstance(buffer, io.BufferedReader) else _buffered(buffer)
    archive = on_disk(path)
    if archive != path:
        opened = stack.enter_context(zipfile.ZipFile(archive))
        return _member(opened, Path(path).relative_to(archive).as_posix(), display_name(archive), stack)
    return stack.enter_context(open(path, "rb"))


def _only_member(
    path: Path | str, file: io.BufferedReader, name: str, task: Task, stack: ExitStack
) -> io.BufferedReader:
    if not file.seekable():
        raise RegardError(f"{name}: this is a zip archive, which cannot be read as it comes; save it as a file")
    archive = stack.enter_context(zipfile.ZipFile(file))
    kind = kind_of_zip(archive.namelist())
    if kind is not None:
        raise refused(name, kind, task)
    found = [info.filename for info in _infos(archive, name)]
    if len(found) != 1:
        shown = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise RegardError(
            f"{name}: a zip archive of {len(found)} files ({shown or 'none'}); name one of them, "
            f"as in {path}/{found[0] if found else 'FILE'}"
        )
    return _member(archive, found[0], name, stack)


def _member(archive: zipfile.ZipFile, member: str, name: str, stack: ExitStack) -> io.BufferedReader:
    found = {info.filename: info for info in _infos(archive, name, aside=True)}
    if member not in found:
        raise RegardError(f"{name}: there is no {member!r} in it, but {', '.join(list(found)[:5]) or 'nothing'}")
    info = found[member]
    if info.flag_bits & 1:
        raise RegardError(f"{name}: {member} is encrypted; unpack it with its password and name the file")
    # the library reads no more of a file than the archive says it has
    if info.file_size > max(BOMB_SIZE, BOMB_RATIO * info.compress_size):
        raise _bomb(f"{name}/{member}")
    return _buffered(stack.enter_context(archive.open(info)))


def _infos(archive: zipfile.ZipFile, name: str, *, aside: bool = False) -> list[zipfile.ZipInfo]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_MEMBERS:
        raise RegardError(f"{name}: a zip archive of {len(infos):,} files; unpack it and name its folder")
    for info in infos:
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise RegardError(f"{name}: the archive names {info.filename!r}, a file outside of it; do not trust it")
    return [info for info in infos if aside or not _is_aside(info.filename)]


def _is_aside(member: str) -> bool:
    parts = member.split("/")
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return hidden or parts[-1].lower().split(".")[0] in ASIDE


def _look_ahead(path: Path | str, task: Task) -> None:
    """Unpack a file to as many bytes as a bomb has, so that one is refused before any line of it is read."""
    size = 0
    with open_bytes(path, task, looks=False) as file:
        while size <= BOMB_SIZE and (data := file.read(1 << 20)):
            size += len(data)


def _unpacker(head: bytes) -> Callable[[Any], Any] | None:
    for magic, unpack in COMPRESSIONS.items():
        if head.startswith(magic) and not (magic.isalnum() and is_text(head)):
            return unpack
    return None


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(stream, 1 << 16)


def _head(file: io.BufferedReader) -> bytes:
    return file.peek(HEAD)[:HEAD]


def _bomb(name: str) -> RegardError:
    return RegardError(
        f"{name}: unpacks to more than {BOMB_RATIO} times its size, as no text does; if it is meant, unpack it yourself"
    )


def _damaged(name: str, error: Exception) -> RegardError:
    return RegardError(f"{name}: the compressed file is cut off or damaged ({error}); copy it again")


class _Zstd(io.RawIOBase):
    """What zstd frames unpack to; unlike the library's own stream it refuses one that is cut off."""

    def __init__(self, stream: BinaryIO, library: Any, error: type[Exception]) -> None:
        self._stream = stream
        self._library = library
        self._error = error
        self._frame: Any = None
        self._unpacked = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            data = self._stream.read(ZSTD_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            self._unpacked = self._feed(data)
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _feed(self, data: bytes) -> bytes:
        found = []
        try:
            while data:
                self._frame = self._frame or self._library.decompressobj()
                found.append(self._frame.decompress(data))
                data = b""
                if self._frame.eof:
                    data, self._frame = self._frame.unused_data, None
        except self._error as error:
            raise EOFError(str(error)) from None
        return b"".join(found)


class _Counted(io.RawIOBase):
    """A stream that knows how many bytes were read from it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        self._size += count
        return count

    def size(self) -> int:
        return self._size


class _Bounded(io.RawIOBase):
    """What a stream unpacks to, as long as that is not many times what it was unpacked from."""

    def __init__(self, stream: Any, packed: Callable[[], int], name: str, look: Look) -> None:
        self._stream = stream
        self._packed = packed
        self._name = name
        self._look = look
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._size += len(data)
        if self._size > SUSPICIOUS and self._size > BOMB_RATIO * self._packed():
            if self._size > BOMB_SIZE:
                raise _bomb(self._name)
            look, self._look = self._look, None
            if look is not None:
                look()
        return len(data)
