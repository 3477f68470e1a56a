"""What a viewer is sent of a reading: a header in JSON, and binary tables that it asks for one at a time.

Weights go as one byte each on a logarithmic scale, which rounds them by at most `ROUNDING`; means over all layers and
heads, statistics and whatever is asked for as exact go as float32. Tables are little-endian, and nothing of the size of
all pairs of tokens is ever made.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from regard.errors import RegardError
from regard.reading.compute.statistics import STATISTICS
from regard.reading.media import ImageArea, Medium, Picture, SoundSpan
from regard.reading.reading import Reading
from regard.reading.record import Sequence, Span, Token
from regard.reading.segments import paragraphs, sentences
from regard.view.folds import folds
from regard.view.heads import by_head, has_one_number
from regard.view.speech import has_sound, timed

FORMAT = "regard-view-1"
# code 0 stands for less than FLOOR · top, code 1 for that, code 255 for top
FLOOR, STEPS = 1e-6, 254
# the largest relative error of a value that is sent as one byte: half a step
ROUNDING = math.expm1(-math.log(FLOOR) / STEPS / 2)

# messages whose answers are not in the reading and may take long
RUNS_THE_MODEL = {"sources", "removal", "why"}
ASKED = {"grain": "sentences", "of": None, "within": None}


def header(reading: Reading) -> dict[str, Any]:
    """All but the tables, as JSON holds it: texts, tokens, what was read and refused, and where tables have what.

    Offsets into texts count UTF-16 units, as a browser does. `parts` name the tables of one layer, with their place in
    what `layer` gives.
    """
    return {
        "format": FORMAT,
        "model": reading.model,
        "settings": _settings(reading),
        "rounding": {"floor": FLOOR, "steps": STEPS, "relative": ROUNDING},
        **({"media": [_medium(medium) for medium in reading.media]} if reading.media else {}),
        **({"word_times": times} if (times := _word_times(reading)) else {}),
        "sequences": {name: _sequence(sequence) for name, sequence in reading.sequences.items()},
        "statistics": {
            name: {"axes": each.axes, "unit": each.unit, "label": {"en": each.label, "zh": each.label_zh}}
            for name, each in STATISTICS.items()
        },
        "kinds": [_kind(reading, kind) for kind in reading.kinds],
        "checks": [
            {"kind": kind, "layer": layer, **check._asdict()}
            for (kind, layer), check in sorted(reading.checks.items())
            if (kind, layer) in reading.maps
        ],
        "refused": [
            {"kind": kind, "layer": layer, "why": why} for (kind, layer), why in sorted(reading.refused.items())
        ],
    }


def layer(reading: Reading, kind: str, layer: int) -> bytes:
    """The tables of one layer, one after another as the header's `parts` tell.

    Raises RegardError if the reading has no such layer.
    """
    return b"".join(part.tobytes() for part in _parts(reading, kind, layer))


def mean(reading: Reading, kind: str, measure: str = "weights") -> bytes:
    """Of every kept row the mean over all layers and heads, float32 [row, key]; of a measure without heads, such as
    rollout, the first layer's.

    Raises RegardError if the reading has no such kind or measure.
    """
    if measure in STATISTICS and "head" not in STATISTICS[measure].axes:
        return _little(reading.statistic(measure, kind, reading.layers(kind)[0]))
    total, heads = np.zeros((), dtype=np.float64), 0
    for number in reading.layers(kind):
        table = reading.weights(kind, number) if measure == "weights" else reading.statistic(measure, kind, number)
        # every head counts alike, also where layers have different numbers of them
        total, heads = total + table.sum(axis=0, dtype=np.float64), heads + len(table)
    return _little(total / heads)


def exact(reading: Reading, kind: str, layer: int, head: int, row: int) -> bytes:
    """One kept row as it was read, float32 [key]; `row` is its place among the kept ones. Raises RegardError."""
    table = reading.weights(kind, layer)
    for name, place, size in (("head", head, len(table)), ("row", row, table.shape[1])):
        if not 0 <= place < size:
            raise RegardError(f"there is no {name} {place}; {kind} layer {layer} has {size}, from 0")
    return _little(table[head, row])


def answer(
    reading: Reading, message: dict[str, Any], progress: Callable[[int], None] = lambda steps: None
) -> tuple[dict[str, Any], list[bytes]]:
    """What a viewer's message asks for: a message that repeats the question, and its table if it is one.

    The types are `mean`, `layer`, `exact`, `medium` (the file of a picture or sound), and what runs the model:
    `sources` and `removal`, which stay with the reading, and `why`; `progress` hears of the steps of these as they are
    done. Raises RegardError for any other, for what is missing in it, and for what the reading does not have.
    """
    match message:
        case {"type": "mean", "kind": str(kind), "measure": str(measure)}:
            return message, [mean(reading, kind, measure)]
        case {"type": "layer", "kind": str(kind), "layer": int(number)}:
            return message, [layer(reading, kind, number)]
        case {"type": "exact", "kind": str(kind), "layer": int(number), "head": int(head), "row": int(row)}:
            return message, [exact(reading, kind, number, head, row)]
        case {"type": "medium", "number": int(number)} if 0 <= number < len(reading.media):
            return message, [reading.media[number].data]
        case {"type": "removal", "start": int(start), "end": int(end)}:
            return {**message, "removals": _remove(reading, (start, end), progress)}, []
        case {"type": "why", "layer": int(number), "head": int(head), "row": int(row), "key": int(key)}:
            return {**message, "why": _plain(reading.why(number, head, row, key, progress=progress).to_json())}, []
        case {"type": "sources", "grain": str(), "of": None | [int(), int()]} if _is_place(message.get("within")):
            _seek_sources(reading, _asked(message), progress)
            return {**message, "sources": _settings(reading)["sources"]}, []
    raise RegardError(
        "a viewer asks for mean, layer, exact, medium, sources, removal or why, with its places, not for "
        f"{str(message)[:200]}"
    )


def encode(table: Float[np.ndarray, "*shape"], top: float) -> UInt8[np.ndarray, "*shape"]:
    """Values from 0 to `top` as one byte each."""
    with np.errstate(divide="ignore"):
        codes = np.log(table / np.float32(top or 1)) * np.float32(-STEPS / math.log(FLOOR)) + np.float32(STEPS + 1.5)
    # what lies less than half a step below the lowest code rounds up to it
    return np.where(codes >= 1, np.minimum(codes, STEPS + 1), 0).astype(np.uint8)


def decode(codes: UInt8[np.ndarray, "*shape"], top: float) -> Float[np.ndarray, "*shape"]:
    """The values that `encode` rounded to."""
    values = top * FLOOR ** (1 - (np.arange(STEPS + 2) - 1) / STEPS)
    values[0] = 0
    return values[codes].astype(np.float32)


class _Part(NamedTuple):
    """A table of a layer and how it is sent; as bytes where it has a `top`."""

    name: str
    table: np.ndarray
    dtype: str
    top: float | None = None

    def tobytes(self) -> bytes:
        # −1, where there is no such key, becomes the largest unsigned number
        sent = np.asarray(self.table).astype(f"<{np.dtype(self.dtype).str[1:]}") if self.top is None else None
        return (encode(self.table, self.top or 0.0) if sent is None else sent).tobytes()

    def facts(self, offset: int) -> dict[str, Any]:
        found = {"name": self.name, "dtype": self.dtype, "shape": list(self.table.shape), "offset": offset}
        return found if self.top is None else {**found, "top": self.top}

    @property
    def size(self) -> int:
        return self.table.size * np.dtype(self.dtype).itemsize


def _parts(reading: Reading, kind: str, number: int) -> Iterator[_Part]:
    """Tables of four bytes a number come first, so that each begins where a browser can read it."""
    weights = reading.weights(kind, number)
    found = reading.statistics.get((kind, number), {})
    for name in STATISTICS:
        if name in found and has_one_number(name):
            yield _Part(name, found[name], "float32")
    top = reading.tops.get((kind, number))
    if top is not None:
        yield _Part("top_positions", top.positions, "uint16" if weights.shape[2] < 2**16 - 1 else "uint32")
        yield _Part("top_weights", top.weights, "uint8", 1.0)
    yield _Part("weights", weights, "uint8", 1.0)
    for name in STATISTICS:
        if name in found and _is_measure(name):
            yield _Part(name, found[name], "uint8", float(np.max(found[name], initial=0.0)))


def _is_measure(name: str) -> bool:
    """Whether a statistic, as the weights, has a number for each kept row and key: [head, row, key] or [row, key]."""
    return name in STATISTICS and STATISTICS[name].axes[-2:] == ("row", "key")


def _kind(reading: Reading, kind: str) -> dict[str, Any]:
    query, key = reading.sides[kind]
    layers, places = reading.layers(kind), []
    for number in layers:
        parts, offset = [], 0
        for part in _parts(reading, kind, number):
            parts.append(part.facts(offset))
            offset += part.size
        places.append({"layer": number, "heads": len(reading.weights(kind, number)), "bytes": offset, "parts": parts})
    has = [set(reading.statistics.get((kind, number), {})) for number in layers]
    return {
        "kind": kind,
        "query": query,
        "key": key,
        "rows": reading.rows(kind),
        "keys": len(reading.keys(kind)),
        "writes": reading.written(kind) is not None,
        "prompt": reading.settings.get("prompt_tokens", 0) if query == key else 0,
        "measures": [
            "weights",
            *(name for name in STATISTICS if _is_measure(name) and all(name in found for found in has)),
        ],
        "layers": places,
        "summary": {
            name: [[float(value) if math.isfinite(value) else None for value in row] for row in table]
            for name, table in by_head(reading, kind).items()
        },
    }


def _is_place(value: Any) -> bool:
    """A pair of positions, or None."""
    return value is None or (isinstance(value, list) and [type(each) for each in value] == [int, int])


def _seek_sources(reading: Reading, asked: dict[str, Any], progress: Callable[[int], None]) -> None:
    """Keep the sources in the reading, with those that they were sought within.

    They are by grain, of the whole answer or of the positions `of`, in the whole prompt or in the positions `within`.
    """
    before = list(_around(reading.settings.get("sources")))
    found = next((each for each in before if _asked(each["asked"]) == asked), None)
    if found is None:
        # the options count the tokens of the answer, and the characters of the prompt
        of, within = asked["of"], asked["within"]
        first, chosen = reading.settings.get("prompt_tokens", 0), {}
        if of is not None:
            chosen["of"] = (of[0] - first, of[1] - first)
        if within is not None:
            tokens = reading.sequences["text"].tokens[:first]
            if not 0 <= within[0] < within[1] <= len(tokens):
                raise RegardError(f"the prompt has positions 0 to {first - 1}, which {within} is not within")
            chosen["within"] = (tokens[within[0]].start, tokens[within[1] - 1].end)
        found = reading.sources(grain=asked["grain"], progress=progress, **chosen).to_json()
        found = _plain(
            {**found, "asked": asked, "around": next(filter(lambda each: _holds(each, asked), before), None)}
        )
    reading.settings["sources"] = found


def _around(found: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Sources, those of the part of the prompt that they were sought within, and so on."""
    while found is not None:
        found = {**found, "asked": _asked(found.get("asked"))}
        yield found
        found = found.get("around")


def _holds(found: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether what is asked for now is within what was asked for then, of the same part of the answer."""
    inner, outer = asked["within"], found["asked"]["within"]
    is_inside = inner is not None and (outer is None or (outer[0] <= inner[0] and inner[1] <= outer[1]))
    return is_inside and inner != outer and asked["of"] == found["asked"]["of"]


def _asked(asked: dict[str, Any] | None) -> dict[str, Any]:
    """How sources were sought: where it is not said, by sentence, of the whole answer, in the whole prompt."""
    return {name: (asked or {}).get(name, default) for name, default in ASKED.items()}


def _remove(reading: Reading, span: Span, progress: Callable[[int], None]) -> list[dict[str, Any]]:
    """All removals that the reading has, with that of this span."""
    found = reading.settings.get("removals", [])
    if not any((each["start"], each["end"]) == span for each in found):
        found = [*found, _plain(reading.removal(span, progress=progress).to_json())]
        reading.settings["removals"] = found
    return found


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """As a file will give it back. Raises RegardError for what is no number."""
    try:
        return json.loads(json.dumps(found, allow_nan=False))
    except ValueError:
        raise RegardError("an effect is not a finite number; load the model as float32 and ask again") from None


def _settings(reading: Reading) -> dict[str, Any]:
    """The settings, with turns and sources in units of the text, or without them where no text was read."""
    settings, text = dict(reading.settings), reading.sequences.get("text")
    turns, sources = settings.pop("turns", []), settings.pop("sources", None)
    if text is None:
        settings.pop("removals", None)
    if text is None or not (turns or sources):
        return settings
    units = _units(text.text).tolist()

    def placed(each: dict[str, Any]) -> dict[str, Any]:
        return {**each, "start": units[each["start"]], "end": units[each["end"]]}

    if turns:
        settings["turns"] = [placed(turn) for turn in turns]
    if sources:
        settings["sources"] = None
        for found in reversed(list(_around(sources))):
            settings["sources"] = {
                **found,
                "sources": [placed(source) for source in found["sources"]],
                "question": None if found["question"] is None else placed(found["question"]),
                "around": settings["sources"],
            }
    return settings


def _units(text: str) -> np.ndarray:
    """For each character, and the end, how many UTF-16 units come before it."""
    return np.cumsum([0, *(1 + (ord(letter) > 0xFFFF) for letter in text)])


def _sequence(sequence: Sequence) -> dict[str, Any]:
    units = _units(sequence.text)
    tokens = sequence.tokens
    return {
        "text": sequence.text,
        "ids": [token.id for token in tokens],
        "starts": units[[token.start for token in tokens]].tolist(),
        "ends": units[[token.end for token in tokens]].tolist(),
        # of a token that stands nowhere in the text, such as BOS
        "names": {place: token.text for place, token in enumerate(tokens) if token.start == token.end},
        # a token of several words counts for the first
        "words": [token.words[0] if token.words else -1 for token in tokens],
        "sentences": units[sentences(sequence.text)].tolist(),
        "paragraphs": units[paragraphs(sequence.text)].tolist(),
        **_areas(tokens),
    }


def _medium(medium: Medium) -> dict[str, Any]:
    """A picture or sound without its file, of which only the size is told."""
    facts = {name: value for name, value in vars(medium).items() if name != "data"}
    return {"sort": "image" if isinstance(medium, Picture) else "sound", **facts, "bytes": len(medium.data)}


def _areas(tokens: list[Token]) -> dict[str, Any]:
    """Where patches are in pictures and frames in sounds, what stands for one in the text, and other positions."""
    placed = [(place, token.area) for place, token in enumerate(tokens) if isinstance(token.area, ImageArea)]
    others: dict[str, list[int]] = {}
    for place, token in enumerate(tokens):
        if token.sort != "token" and not isinstance(token.area, ImageArea):
            others.setdefault(token.sort, []).append(place)
    found: dict[str, Any] = {"sorts": others} if others else {}
    if stretches := folds(tokens):
        found["folds"] = [fold._asdict() for fold in stretches]
    if placed:
        found["areas"] = {
            "tokens": [place for place, _ in placed],
            **{name: [getattr(area, name) for _, area in placed] for name in ("image", "row", "column")},
            "boxes": [round(edge, 3) for _, area in placed for edge in area[3:]],
        }
    spans = [(place, token.area) for place, token in enumerate(tokens) if isinstance(token.area, SoundSpan)]
    if spans:
        found["spans"] = {
            "tokens": [place for place, _ in spans],
            "sound": [span.sound for _, span in spans],
            "starts": [round(span.start, 4) for _, span in spans],
            "ends": [round(span.end, 4) for _, span in spans],
        }
    return found


def _word_times(reading: Reading) -> list[tuple[int, float, float]]:
    """The number of each written word with its start and end in seconds, where these can be told."""
    if not has_sound(reading) or "cross" not in reading.kinds:
        return []
    words = reading.sequences[reading.sides["cross"][0]].words
    try:
        times = reading.word_times()
    except RegardError:
        return []
    return [(word, time.start, time.end) for word, time in zip(timed(words, times), times, strict=True)]


def _little(table: np.ndarray) -> bytes:
    return np.asarray(table, dtype="<f4").tobytes()
