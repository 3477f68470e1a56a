"""Speech with the times of its words: espeak-ng speaks a text and says itself where each word begins.

The library is asked through its C interface (espeak-ng/speak_lib.h): samples and events come to one callback.
"""

import ctypes
import ctypes.util
import functools
from typing import Any, NamedTuple

import numpy as np

# of speak_lib.h
# samples are handed over as they are made, before espeak_Synth returns
SYNCHRONOUS, UTF8, CHARACTERS, RATE_PARAMETER = 2, 1, 1, 1
WORD, SENTENCE_END = 1, 5


class Spoken(NamedTuple):
    """Samples from −1 to 1, their rate, and of each word its text and the second in which it begins."""

    samples: np.ndarray
    rate: int
    words: list[tuple[str, float]]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_byte * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event), use_errno=False
)


@functools.cache
def library() -> tuple[Any, int] | None:
    """espeak-ng's library, which is set up once, and its rate; None where it is not installed."""
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        return None
    found = ctypes.CDLL(name)
    return found, found.espeak_Initialize(SYNCHRONOUS, 0, None, 0)


def speak(text: str, *, voice: str = "en-us", words_per_minute: int = 150) -> Spoken:
    """Raises RuntimeError where espeak-ng is not installed or has no such voice."""
    opened = library()
    if opened is None:
        raise RuntimeError("espeak-ng is not installed; on Debian: apt-get install espeak-ng")
    found, rate = opened
    if rate <= 0 or found.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"espeak-ng cannot speak with the voice {voice}")
    found.espeak_SetParameter(RATE_PARAMETER, words_per_minute, 0)
    parts: list[np.ndarray] = []
    places: dict[int, float] = {}

    def hear(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        place = 0
        while events[place].type:
            event = events[place]
            if event.type == WORD:
                # positions in the text count from 1
                places.setdefault(event.text_position - 1, event.audio_position / 1000)
            place += 1
        return 0

    callback = _CALLBACK(hear)
    found.espeak_SetSynthCallback(callback)
    data = text.encode("utf-8")
    found.espeak_Synth(data, len(data) + 1, 0, CHARACTERS, 0, UTF8, None, None)
    found.espeak_Synchronize()
    words = [(text[start:].split()[0], second) for start, second in sorted(places.items())]
    return Spoken(np.concatenate(parts).astype(np.float32) / 2**15, rate, words)
