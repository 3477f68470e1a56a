"""Readings of sounds made by hand, so that where each word looked is known."""

import numpy as np
from tests.sounds import RATE, tone

import regard
from regard.data.wav import wav_bytes
from regard.data.words import word_spans
from regard.reading.labels import placed
from regard.reading.media import Sound, SoundSpan
from regard.reading.sound_frames import PADDING, Frames

STRIDE, FRAMES, SILENT = 320, 100, 20
SECONDS = FRAMES * STRIDE / RATE


def spoken(words=("one", "two", "three", "four"), *, sound=None):
    """Each word looks at its own part of two seconds, with weight 0.8, and at the silence after them with 0.2.

    The last row wrote what ends the text, and looks at the last frame.
    """
    frames = Frames(RATE, STRIDE / 2, STRIDE)
    spans = [frames.span(index, 0, SECONDS) for index in range(FRAMES)] + [None] * SILENT
    names = [f"{span.start:.2f} s" for span in spans if span] + [f"{PADDING} {index}" for index in range(SILENT)]
    places = []
    text = ""
    for name in names:
        text += " " * bool(text)
        places.append((len(text), len(text) + len(name)))
        text += name
    sorts = ["audio frame"] * FRAMES + [PADDING] * SILENT
    source = placed(text, [-1] * len(names), names, places, places, sorts=sorts)
    keys = [token._replace(area=span) for token, span in zip(source.tokens, spans, strict=True)]
    said = " ".join(words)
    ends = [(0, 0), *word_spans(said), (len(said), len(said))]
    target = placed(
        said, range(len(ends)), ["<s>", *words, "</s>"], ends, word_spans(said), sorts=["token"] * len(ends)
    )
    weights = np.zeros((2, len(words) + 1, FRAMES + SILENT), np.float32)
    part = FRAMES // len(words)
    for row in range(len(words)):
        weights[:, row, row * part : (row + 1) * part] = 0.8 / part
    weights[:, -1, FRAMES - 1] = 0.8
    weights[:, :, FRAMES:] = 0.2 / SILENT
    return regard.Reading(
        model="made",
        sequences={"source": regard.reading.record.Sequence(text, keys, names), "target": target},
        maps={("cross", 0): weights},
        checks={("cross", 0): regard.reading.record.Check(1e-7, 1e-7, 5)},
        sides={"cross": ("target", "source")},
        settings={"prompt_tokens": 1, "end_tokens": 1, "alignment_heads": [[0, 0], [0, 1]]},
        media=[Sound("a.wav", "audio/wav", wav_bytes(tone(SECONDS), RATE), SECONDS) if sound is None else sound],
    )


def span_of(reading, place) -> SoundSpan:
    return reading.keys("cross")[place].area
