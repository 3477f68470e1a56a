"""A sound as a model hears it: one channel, at the model's rate, of a length that can be read.

Nothing is fetched, and nothing beyond the limits is decoded.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from regard.data.resampling import resample
from regard.data.wav import is_wav, read_head, read_samples, wav_bytes
from regard.errors import RegardError

# of one sound
MOST_SECONDS = 600
RATES = (1_000, 384_000)
# floats go from −1 to 1, and a lossy file's a little beyond
LARGEST = 2.0
SILENCE = 1e-5
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
CONVERT = "convert it to WAV"
HOW = "give a path, or samples with their rate as (array, 16000)"

logger = logging.getLogger("regard")


@dataclass(frozen=True, eq=False)
class Waveform:
    """Samples of one channel, from −1 to 1, `rate` of them a second."""

    name: str
    samples: Float[np.ndarray, " sample"]
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def wav(self) -> bytes:
        """A WAV file of it, in 16 bits."""
        return wav_bytes(self.samples, self.rate)


def open_sound(source: Any, *, rate: int, most_seconds: float = MOST_SECONDS, number: int = 0) -> Waveform:
    """A sound at `rate` from a path, from samples with their rate, `(array, 44100)`, from a mapping such as
    {"array": …, "sampling_rate": …}, or from one that was opened at another rate.

    Samples are [sample], or [channel, sample] or [sample, channel], whose longer axis is that of samples; whole numbers
    are taken as shares of their type's largest. The mean of several channels is heard; another rate is brought to
    `rate` by a windowed sinc. WAV files need nothing; FLAC, OGG and MP3 need soundfile.
    `number` counts the sounds, for the name of one that is no file.
    Raises RegardError for a URL, for what is no sound, an empty one, and one of more than `most_seconds`.
    """
    if isinstance(source, str | os.PathLike):
        name, frames, own = _of_file(source, most_seconds)
    elif isinstance(source, Waveform):
        name, frames, own = source.name, source.samples[:, None], source.rate
        _check_length(name, len(frames), own, most_seconds)
    else:
        name = f"sound {number + 1}"
        frames, own = _of_array(source, name)
        _check_length(name, len(frames) if frames.size else 0, own, most_seconds)
    if not np.isfinite(frames).all():
        raise RegardError(f"{name}: its samples are not all numbers (NaN or infinite); it is damaged")
    largest = float(np.abs(frames).max())
    if largest > LARGEST:
        raise RegardError(f"{name}: its samples reach {largest:.4g}, and floats go from −1 to 1; divide them")
    if largest < SILENCE:
        logger.warning("%s: it is silent; what a model writes of it is made up", name)
    if frames.shape[1] > 1:
        logger.info("%s: the mean of its %d channels is heard", name, frames.shape[1])
    if own != rate:
        logger.info("%s: brought from %d Hz to %d Hz, which the model takes", name, own, rate)
    samples = resample(np.ascontiguousarray(frames.mean(axis=1, dtype=np.float32)), own, rate)
    return Waveform(name, samples, rate)


def _of_file(source: str | os.PathLike[str], most_seconds: float) -> tuple[str, np.ndarray, int]:
    told = os.fspath(source)
    if isinstance(source, str) and URL.match(source):
        raise RegardError(f"{told[:80]}: a URL, and nothing is fetched; download it and give its path")
    path = Path(source)
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a device or a pipe" if path.exists() else "there is no such file"
            raise RegardError(f"{path}: {what}; name a sound file")
        if not path.stat().st_size:
            raise RegardError(f"{path}: the file is empty")
        if is_wav(path):
            with path.open("rb") as file:
                head = read_head(file, told)
                _check_length(path.name, head.frames, head.rate, most_seconds)
                return path.name, read_samples(file, head), head.rate
        return path.name, *_by_soundfile(path, most_seconds)
    except (OSError, ValueError) as error:
        raise RegardError(f"{told[:80]!a}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _by_soundfile(path: Path, most_seconds: float) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except (ImportError, OSError):
        raise RegardError(
            f"{path}: no WAV file; others need soundfile: pip install 'regard[media]', or {CONVERT}"
        ) from None
    try:
        with soundfile.SoundFile(path) as file:
            _check_length(path.name, file.frames, file.samplerate, most_seconds)
            # a file may hold more than it says
            most = int(most_seconds * file.samplerate) + 1
            frames, rate = file.read(most, dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".")
        raise RegardError(f"{path}: no sound file that can be read ({reason}); {CONVERT}") from None
    _check_length(path.name, len(frames), rate, most_seconds)
    return frames, rate


def _of_array(source: Any, name: str) -> tuple[np.ndarray, int]:
    if isinstance(source, Mapping) and {"array", "sampling_rate"} <= source.keys():
        source = source["array"], source["sampling_rate"]
    if not isinstance(source, tuple) or len(source) != 2:
        what = "samples without their rate" if isinstance(source, np.ndarray | list) else type(source).__name__
        raise RegardError(f"{name} is {what}; {HOW}")
    array, rate = source
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or int(rate) != rate:
        raise RegardError(f"{name}: its rate is {rate!r}, which must be a whole number of samples a second")
    try:
        samples = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RegardError(f"{name}: no array of samples ({error}); {HOW}") from None
    if samples.dtype.kind not in "iuf" or samples.ndim not in (1, 2):
        raise RegardError(f"{name}: an array of {samples.dtype} and {samples.ndim} axes is no sound; {HOW}")
    if samples.dtype.kind in "iu":
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = (samples.astype(np.float64) - (half if samples.dtype.kind == "u" else 0)) / half
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape[0] < samples.shape[1]:
        samples = samples.T
    return samples.astype(np.float32), int(rate)


def _check_length(name: str, frames: int, rate: int, most_seconds: float) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise RegardError(f"{name}: its rate is {rate} Hz; rates from {RATES[0]} to {RATES[1]} Hz are heard")
    if not frames:
        raise RegardError(f"{name}: it is empty, 0 seconds of sound")
    if frames > most_seconds * rate:
        raise RegardError(
            f"{name}: it lasts {frames / rate:,.1f} s, and at most {most_seconds:g} s are heard at once; cut it"
        )
