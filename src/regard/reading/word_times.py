"""When each written word was spoken, from where the tokens of a transcript looked in the sound.

The method is that of openai-whisper (whisper/timing.py, `find_alignment`): the cross-attention of the heads that follow
the sound, standardised over tokens, smoothed by a median filter over time, averaged, and warped.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.media import Sound, SoundSpan
from regard.reading.tables import Tables
from regard.reading.time_warping import median_filter, warp

# of openai-whisper, where a configuration does not say
MEDIAN_WIDTH = 7


class WordTime(NamedTuple):
    """A written word, and the seconds between which it was spoken."""

    text: str
    start: float
    end: float


def alignment_heads(reading: Tables) -> tuple[list[tuple[int, int]], bool]:
    """The layers and heads that word times follow, and whether they are the model's own alignment heads.

    Else they are all heads of the last half of the decoder's layers, as openai-whisper has it for unknown models.
    """
    known = [(layer, head) for layer, head in reading.settings.get("alignment_heads") or ()]
    if known:
        return known, True
    count = reading.settings.get("decoder_layers") or max(reading.layers("cross")) + 1
    layers = [layer for layer in reading.layers("cross") if layer >= count // 2]
    return [(layer, head) for layer in layers for head in range(len(reading.maps["cross", layer]))], False


def word_times(reading: Tables) -> list[WordTime]:
    """What `Reading.word_times` gives."""
    if "cross" not in reading.kinds or not any(isinstance(each, Sound) for each in reading.media):
        raise RegardError(
            "word times come of the cross-attention of a speech model, such as Whisper, that was given a sound; read "
            "with audio="
        )
    written = reading.sequences[reading.sides["cross"][0]]
    prompt = reading.settings.get("prompt_tokens", 0)
    wrote = range(max(0, prompt - 1), len(written.tokens) - 1)
    if missing := [row for row in wrote if row not in reading.rows("cross")]:
        raise RegardError(f"row {missing[0]} was not kept, and word times need every written token's: rows='generated'")
    spans = [token.area for token in reading.keys("cross")]
    frames = [place for place, span in enumerate(spans) if isinstance(span, SoundSpan)]
    if not frames:
        raise RegardError("it is not known which seconds the frames of this model are, and so neither those of a word")
    heads, _ = alignment_heads(reading)
    rows = [reading.rows("cross").index(row) for row in wrote]
    try:
        found = np.stack([reading.weights("cross", layer)[head][np.ix_(rows, frames)] for layer, head in heads])
    except IndexError:
        raise RegardError(
            "the alignment heads in the model's generation_config.json are not heads of its decoder"
        ) from None
    times = _times([span for span in spans if isinstance(span, SoundSpan)])
    starts = jump_times(found, times, width=reading.settings.get("median_filter_width") or MEDIAN_WIDTH)
    return [
        WordTime(word, *ends)
        for index, word in enumerate(written.words)
        if (
            ends := _ends(starts, times, [row - wrote.start for row in wrote if index in written.tokens[row + 1].words])
        )
    ]


def _ends(starts: np.ndarray, times: np.ndarray, tokens: list[int]) -> tuple[float, float] | None:
    if not tokens:
        return None
    last = tokens[-1] + 1
    end = starts[last] if last < len(starts) else times[-1]
    return round(float(starts[tokens[0]]), 3), round(float(end), 3)


def jump_times(
    weights: Float[np.ndarray, "head row frame"], times: Float[np.ndarray, " frame"], *, width: int
) -> Float[np.ndarray, " row"]:
    """When the sound of each row's token begins: where the cheapest path steps to its row."""
    if weights.shape[1] == 0:
        return np.zeros(0)
    weights = weights.astype(np.float64)
    # of what was heard alone: the model was given silence after its end
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    deviation = weights.std(axis=1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    rows, columns = warp(-median_filter(weights, width).mean(axis=0))
    return times[columns[np.diff(rows, prepend=-1) > 0]]


def _times(spans: list[SoundSpan]) -> Float[np.ndarray, " frame"]:
    """The centre of each frame, as it is before the sound's beginning and end cut it."""
    starts, ends = np.array([(span.start, span.end) for span in spans]).T
    half = (ends - starts).max() / 2
    return np.maximum(0, np.where(starts > 0, starts + half, ends - half))
