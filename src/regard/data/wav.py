"""WAV files: samples from one, and samples into one.

"Multimedia Programming Interface and Data Specifications 1.0", IBM and Microsoft 1991, with the extensible format of
"Multiple channel audio data and WAVE files", Microsoft 2001: whole numbers of 8 to 32 bits and floats of 32 or 64.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# what follows the format's number in the identifier of an extensible format
GUID_END = bytes.fromhex("000000001000800000aa00389b71")
MOST_CHUNKS = 1 << 10
OTHERWISE = "export it again as WAV of 16-bit PCM"


class WavHead(NamedTuple):
    """What a WAV file says of itself, and where its samples begin and how many bytes they are."""

    format: int
    channels: int
    rate: int
    bits: int
    start: int
    size: int

    @property
    def frames(self) -> int:
        return self.size // (self.channels * self.bits // 8)


def is_wav(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def read_head(file: BinaryIO, name: str) -> WavHead:
    """Raises RegardError for a file that is damaged, or holds its samples in a way that is not known."""
    try:
        return _head(file)
    except (ValueError, struct.error) as error:
        raise RegardError(f"{name}: not a WAV file that can be read: {error}; {OTHERWISE}") from None


def read_samples(file: BinaryIO, head: WavHead) -> Float[np.ndarray, "frame channel"]:
    """The samples, from −1 to 1."""
    file.seek(head.start)
    data = file.read(head.frames * head.channels * head.bits // 8)
    if head.format == FLOAT:
        found = np.frombuffer(data, f"<f{head.bits // 8}").astype(np.float32)
    elif head.bits == 24:
        # as the upper three bytes of four
        parts = np.zeros((len(data) // 3, 4), np.uint8)
        parts[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        found = parts.view("<i4")[:, 0].astype(np.float32) / 2**31
    elif head.bits == 8:
        found = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    else:
        found = np.frombuffer(data, f"<i{head.bits // 8}").astype(np.float32) / 2 ** (head.bits - 1)
    return found.reshape(-1, head.channels)


def wav_bytes(samples: Float[np.ndarray, " sample"], rate: int) -> bytes:
    """A WAV file of one channel, in 16 bits; what is beyond −1 and 1 is clipped."""
    data = np.clip(np.round(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, PCM, 1, rate, rate * 2, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE") + form + struct.pack("<4sI", b"data", len(data)) + data
    )


def _head(file: BinaryIO) -> WavHead:
    size = file.seek(0, 2)
    file.seek(0)
    kind, _, form = struct.unpack("<4sI4s", file.read(12))
    if kind == b"RF64":
        raise ValueError("it is an RF64 file, of more than 4 GiB")
    if (kind, form) != (b"RIFF", b"WAVE"):
        raise ValueError("it does not begin as one")
    known = None
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack("<4sI", head)
        start = file.tell()
        if name == b"fmt ":
            known = _format(file.read(min(length, 40)))
        elif name == b"data":
            if known is None:
                raise ValueError("its samples come before what says of which sort they are")
            if start + length > size:
                raise ValueError(f"it should hold {length:,} bytes of samples and ends after {size - start:,}")
            return WavHead(*known, start=start, size=length)
        # chunks begin at even places
        file.seek(start + length + length % 2)
    raise ValueError("it holds no samples")


def _format(data: bytes) -> tuple[int, int, int, int]:
    form, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", data)
    if form == EXTENSIBLE:
        form, end = struct.unpack_from("<H14s", data, 24)
        form = form if end == GUID_END else EXTENSIBLE
    if (form, bits) not in {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)}:
        raise ValueError(f"its samples are of format {form} in {bits} bits")
    if not (0 < channels <= 64 and 0 < rate <= 1_000_000) or block != channels * bits // 8:
        raise ValueError(f"{channels} channels at {rate} Hz, {block} bytes at a time, in {bits} bits")
    return form, channels, rate, bits
