"""Reading a model that hears: it runs once, watched, over a sound and what it wrote down, and knows the seconds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.data.sound import Waveform
from regard.data.words import word_spans
from regard.reading.compute.statistics import STATISTICS
from regard.reading.labels import Label, placed, sequence
from regard.reading.media import Sound
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.record import Place
from regard.reading.record import Sequence as Tokens
from regard.reading.sound_frames import FRAME, PADDING, Frames
from regard.reading.watch import watching


def as_media(sounds: Sequence[Waveform]) -> list[Sound]:
    """The sounds as a reading keeps them, as WAV files in 16 bits of what the model heard."""
    return [Sound(each.name, "audio/wav", each.wav(), each.seconds) for each in sounds]


def frame_tokens(frames: Frames | None, count: int, sound: Waveform, number: int = 0) -> Tokens:
    """An encoder's frames of a sound as a sequence: each is named by its time, and is a word of its own."""
    spans = [None if frames is None else frames.span(index, number, sound.seconds) for index in range(count)]
    names, sorts = [], []
    for index, span in enumerate(spans):
        is_padding = frames is not None and span is None
        sorts.append(PADDING if is_padding else FRAME)
        names.append(
            f"{PADDING} {index}" if is_padding else f"{FRAME} {index}" if frames is None else _time(frames, index)
        )
    text, places = "", []
    for name in names:
        text += " " * bool(text)
        places.append((len(text), len(text) + len(name)))
        text += name
    found = placed(text, [-1] * count, names, places, places, sorts=sorts)
    return replace(found, tokens=[each._replace(area=span) for each, span in zip(found.tokens, spans, strict=True)])


def _time(frames: Frames, index: int) -> str:
    return f"{frames.centre(index):.2f} s"


def transcript_tokens(prefix: list[int], written: list[int], tokenizer: Any) -> Tokens:
    """What a speech model wrote, after the special tokens that it begins with, which stand nowhere in its text."""
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(id for id, token in added if token.special)}
    own = [id for id in written if id not in special]
    found = sequence([Label(id) for id in own], tokenizer)
    lead = len(found.text) - len(found.text.lstrip())
    text = found.text[lead:].rstrip()
    spans, names, place, rest = [], [], 0, iter(found.tokens)
    for id in [*prefix, *written]:
        if id in special:
            spans.append((place, place))
            names.append(tokenizer.convert_ids_to_tokens(id))
            continue
        token = next(rest)
        start, place = (min(max(0, end - lead), len(text)) for end in (token.start, token.end))
        spans.append((start, place))
        names.append(token.text)
    return placed(text, [*prefix, *written], names, spans, word_spans(text))


@torch.inference_mode()
def read_transcript(
    module: Any,
    tokenizer: Any,
    features: dict[str, Tensor],
    sound: Waveform,
    frames: Frames | None,
    prefix: list[int],
    written: list[int],
    options: ReadOptions,
    *,
    ends: frozenset[int],
    facts: dict[str, Any],
    name: str,
) -> Reading:
    """What a speech model looked at in a sound, and in its own text, when it wrote these tokens after the prefix.

    `facts` are settings that the reading keeps beside its own.
    """
    ids = [*prefix, *written]
    is_usual = options.rows == "generated"
    if is_usual:
        options = replace(options, rows=slice(len(prefix) - 1, len(ids)))
    fed = torch.tensor([ids[:-1] if written else ids], device=module.device)
    reading = _read(
        lambda: module(**features, decoder_input_ids=fed, use_cache=False),
        module,
        tokenizer,
        options,
        name=name,
        sequences=lambda counts: {
            "source": frame_tokens(frames, counts["source"], sound),
            "target": transcript_tokens(prefix, written, tokenizer),
        },
        sound=sound,
        facts={
            "prompt_tokens": len(prefix) if written else 0,
            "end_tokens": int(bool(written) and written[-1] in ends),
            **facts,
        },
    )
    return _without_rows(reading, "encoder") if is_usual and "encoder" in reading.kinds else reading


@torch.inference_mode()
def read_encoder(
    module: Any,
    features: dict[str, Tensor],
    sound: Waveform,
    frames: Frames | None,
    options: ReadOptions,
    *,
    facts: dict[str, Any],
    name: str,
) -> Reading:
    """What the frames of a sound looked at in each other."""
    return _read(
        lambda: module(**features),
        module,
        None,
        options,
        name=name,
        sequences=lambda counts: {side: frame_tokens(frames, count, sound) for side, count in counts.items()},
        sound=sound,
        facts=facts,
    )


def _without_rows(reading: Reading, kind: str) -> Reading:
    """The same with no rows of a kind: what all its queries gave together stays."""

    def cut(name: str, table: np.ndarray) -> np.ndarray:
        axes = STATISTICS[name].axes if name in STATISTICS else ()
        return table[(*([slice(None)] * axes.index("row")), slice(0))] if "row" in axes else table

    def emptied(tables: dict[Place, np.ndarray]) -> dict[Place, np.ndarray]:
        return {place: table[:, :0] if place[0] == kind else table for place, table in tables.items()}

    return replace(
        reading,
        maps=emptied(reading.maps),
        score_maps=emptied(reading.score_maps),
        kept={**reading.kept, kind: []},
        statistics={
            place: {name: cut(name, table) for name, table in found.items()} if place[0] == kind else found
            for place, found in reading.statistics.items()
        },
    )


def _read(
    run: Callable[[], Any],
    module: Any,
    tokenizer: Any,
    options: ReadOptions,
    *,
    name: str,
    sequences: Callable[[dict[str, int]], dict[str, Tokens]],
    sound: Waveform,
    facts: dict[str, Any],
) -> Reading:
    with watching(module, tokenizer=tokenizer, name=name, **vars(options)) as watch:
        run()
    reading = watch.reading(0)
    counts = {side: len(each.tokens) for side, each in reading.sequences.items()}
    found = sequences(counts)
    return replace(
        reading,
        sequences={side: found[side] for side in counts},
        settings={**reading.settings, **facts},
        media=as_media([sound]),
        knockout=None,
    )
