"""Where in a sound written words looked: their weight on each frame, over the sound's own waveform."""

import io
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float

from regard.data.wav import read_head, read_samples
from regard.errors import RegardError
from regard.reading.choices import nothing_read
from regard.reading.media import Sound, SoundSpan
from regard.reading.reading import Reading
from regard.reading.record import Token
from regard.reading.sound_frames import PADDING
from regard.reading.word_times import WordTime, alignment_heads
from regard.view.shares import chosen_rows, mean_head, name_of, scope_of

# of several kinds the first that looks at a sound
PREFERRED = ("cross", "decoder", "encoder")
LARGEST_SOUND = 1 << 28


class Line(NamedTuple):
    """What one written word, or one position, looked at: its weight on each frame, and its time where that is known."""

    text: str
    weights: Float[np.ndarray, " frame"]
    time: WordTime | None


@final
@dataclass(frozen=True)
class Heard:
    """What the chosen rows looked at in sound number `number`: frames between `starts` and `ends`, in seconds.

    `shares` say where all the weight went: to the sound, to the silence that it was padded with, to the rest.
    """

    number: int
    sound: Sound
    kind: str
    subject: str
    scope: str
    starts: Float[np.ndarray, " frame"]
    ends: Float[np.ndarray, " frame"]
    whole: Float[np.ndarray, " frame"]
    lines: list[Line]
    shares: list[tuple[str, float]]
    # how word times were found, where they were
    note: str


def has_sound(reading: Reading) -> bool:
    """Whether some kind of attention looks at frames of a sound that the reading has."""
    return any(_looks_at(reading, kind) for kind in reading.kinds)


def sounds(reading: Reading) -> list[Sound]:
    """The sounds, in the order that areas number them in."""
    return [medium for medium in reading.media if isinstance(medium, Sound)]


def heard(
    reading: Reading,
    *,
    kind: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    token: str | None = None,
    number: int = 0,
) -> Heard:
    """What the answer looked at in a sound: word by word, or, with `token`, one place in it or a text that it has.

    Of one layer and head, or by default the mean of the model's alignment heads, or of all heads where it has none.
    Raises RegardError where there is no such kind, token, layer, head or sound.
    """
    kind = _chosen_kind(reading, kind)
    if not 0 <= number < len(sounds(reading)):
        raise RegardError(f"there is no sound {number}; the reading has {len(sounds(reading))}, counted from 0")
    is_own = reading.sides[kind][0] == reading.sides[kind][1]
    count = reading.settings.get("prompt_tokens", 0) if reading.written(kind) is not None else 0
    rows, subject = chosen_rows(reading, kind, count, token)
    weights, scope = _weights(reading, kind, layer, head)
    keys = reading.keys(kind)
    frames = [place for place, each in enumerate(keys) if _is_of(each, number)]
    spans = np.array([(area.start, area.end) for place in frames if (area := keys[place].area)])  # pyright: ignore
    chosen = weights[rows]
    times, note = _times(reading, kind)
    return Heard(
        number=number,
        sound=sounds(reading)[number],
        kind=kind,
        subject=subject,
        scope=scope,
        starts=spans[:, 0],
        ends=spans[:, 1],
        whole=chosen.mean(axis=0)[frames],
        lines=[*_lines(reading, kind, rows, chosen[:, frames], times)],
        shares=_shares(keys, chosen.mean(axis=0), count if is_own else 0),
        note=note,
    )


def samples(sound: Sound) -> tuple[Float[np.ndarray, " sample"], int]:
    """The samples of a sound that a reading has, and their rate. Raises RegardError for other than WAV."""
    if len(sound.data) > LARGEST_SOUND:
        raise RegardError(f"{sound.name}: {len(sound.data):,} bytes of sound are too many to be drawn")
    file = io.BytesIO(sound.data)
    head = read_head(file, sound.name)
    return read_samples(file, head).mean(axis=1), head.rate


def loudness(sound: Sound, count: int) -> Float[np.ndarray, " part"]:
    """The largest amplitude in each of `count` equal parts, as a share of the largest of all."""
    values, _ = samples(sound)
    edges = np.linspace(0, len(values), count + 1).astype(int)
    found = np.array([np.abs(values[start : max(end, start + 1)]).max() for start, end in pairwise(edges)])
    return found / (found.max() or 1.0)


def over(found: Heard, weights: Float[np.ndarray, " frame"], count: int) -> Float[np.ndarray, " part"]:
    """The weight in each of `count` equal parts of the sound: a frame's is spread evenly over its seconds."""
    edges = np.linspace(0, found.sound.seconds, count + 1)
    shared = np.minimum(edges[1:, None], found.ends) - np.maximum(edges[:-1, None], found.starts)
    return np.maximum(0, shared) @ (weights / (found.ends - found.starts))


def _weights(reading: Reading, kind: str, layer: int | None, head: int | None) -> tuple[np.ndarray, str]:
    layers = reading.layers(kind)
    if kind == "cross" and layer is None and head is None:
        heads, is_own = alignment_heads(reading)
        known = [(one, other) for one, other in heads if one in layers and other < len(reading.maps[kind, one])]
        if is_own and known:
            table = np.stack([reading.weights(kind, one)[other] for one, other in known]).mean(axis=0, dtype=np.float64)
            return table, f"mean of the model's {len(known)} alignment heads"
    tables = [reading.weights(kind, number) for number in layers]
    chosen = tables if layer is None else [reading.weights(kind, layer)]
    return mean_head(chosen, layer, head), scope_of(layers, tables, layer, head)


def _times(reading: Reading, kind: str) -> tuple[list[WordTime], str]:
    if kind != "cross":
        return [], ""
    try:
        found = reading.word_times()
    except RegardError as error:
        return [], f"no word times: {error}"
    _, is_own = alignment_heads(reading)
    which = "the model's alignment heads" if is_own else "all heads of the last half of the layers: less exact"
    return found, f"word times by dynamic time warping of {which}"


def _lines(
    reading: Reading, kind: str, rows: list[int], weights: Float[np.ndarray, "row frame"], times: list[WordTime]
) -> list[Line]:
    """A line for each written word, which is the mean of its tokens; for each row where no words are written."""
    written = reading.written(kind)
    if written is None:
        queries = reading.queries(kind)
        many = len(rows) > 1 and all(queries[row].sort != "token" for row in rows)
        if many:
            return []
        return [Line(name_of([queries[row]]), weights[place], None) for place, row in enumerate(rows)]
    sequence = reading.sequences[reading.sides[kind][0]]
    by_word: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        for word in getattr(written[row], "words", []):
            by_word.setdefault(word, []).append(place)
    known = dict(zip(timed(sequence.words, times), times, strict=True))
    return [
        Line(sequence.words[word], weights[places].mean(axis=0), known.get(word)) for word, places in by_word.items()
    ]


def timed(words: list[str], times: list[WordTime]) -> list[int]:
    """Which word each time is of: they come in order."""
    found, place = [], 0
    for time in times:
        place = words.index(time.text, place)
        found.append(place)
        place += 1
    return found


def _shares(keys: list[Token], weights: np.ndarray, prompt: int) -> list[tuple[str, float]]:
    found: dict[str, float] = {}
    for place, (token, weight) in enumerate(zip(keys, weights.tolist(), strict=True)):
        if isinstance(token.area, SoundSpan):
            name = f"sound {token.area.sound + 1}" if token.area.sound else "the sound"
        elif token.sort == PADDING:
            name = "the silence after it"
        elif token.sort != "token":
            name = f"{token.sort}s"
        else:
            name = "the answer itself" if prompt and place >= prompt else "text"
        found[name] = found.get(name, 0.0) + weight
    return list(found.items())


def _chosen_kind(reading: Reading, kind: str | None) -> str:
    if not sounds(reading):
        raise RegardError(f"{reading.model}: this reading has no sound; read(audio=…) gives the model one")
    if kind is not None and kind not in reading.kinds:
        raise nothing_read(reading, kind)
    known = [name for name in PREFERRED if name in reading.kinds and _looks_at(reading, name)]
    if kind is None and known:
        return known[0]
    if kind is None or kind not in known:
        where = f"; {' and '.join(known)} attention does" if known else ""
        who = f"{kind} attention looks at no frames" if kind else "no attention looks at frames"
        raise RegardError(f"{reading.model}: {who} of a sound whose seconds are known{where}")
    return kind


def _looks_at(reading: Reading, kind: str) -> bool:
    count = len(sounds(reading))
    return any(isinstance(token.area, SoundSpan) and token.area.sound < count for token in reading.keys(kind))


def _is_of(token: Token, number: int) -> bool:
    return isinstance(token.area, SoundSpan) and token.area.sound == number
