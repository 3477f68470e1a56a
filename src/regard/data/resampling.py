"""Samples of a sound at another rate, by a windowed sinc: what the new rate cannot hold is filtered out.

Smith, "Digital audio resampling home page" (ccrma.stanford.edu/~jos/resample): band-limited interpolation, here with a
Kaiser window over `ZEROS` zero crossings on each side.
"""

import math

import numpy as np
from jaxtyping import Float

ZEROS, BETA = 32, 10.0
# of the lower rate's half, so that the filter has fallen where that ends
ROLLOFF = 0.945
NUMBERS_AT_ONCE = 1 << 23
# of more places between two samples than these, filters are interpolated
MOST_PLACES = 1 << 10


def resample(samples: Float[np.ndarray, " sample"], rate: int, to: int) -> Float[np.ndarray, " other"]:
    """The sound, from a time 0 that stays where it is; silence is before and after it."""
    if rate == to:
        return samples
    shared = math.gcd(rate, to)
    up, down = to // shared, rate // shared
    cutoff = ROLLOFF * min(1.0, up / down)
    half = math.ceil(ZEROS / cutoff)
    at_once = NUMBERS_AT_ONCE // (2 * half)
    # the filters of the places that a new sample has between two old ones
    count = min(up, MOST_PLACES)
    filters = _filters(np.arange(count + 1) / count, cutoff, half)
    silence = np.zeros(half + 1, np.float32)
    padded = np.concatenate([silence[:-2], samples.astype(np.float32), silence])
    length = -(-len(samples) * up // down)
    found = np.empty(length, np.float32)
    steps = np.arange(2 * half)
    for start in range(0, length, at_once):
        places = np.arange(start, min(start + at_once, length), dtype=np.int64) * down
        first, phase = places // up, places % up
        place, rest = np.divmod(phase * count, up)
        near = padded[first[:, None] + steps]
        found[start : start + len(places)] = np.einsum("nk,nk->n", near, filters[place])
        if count < up:
            between = np.einsum("nk,nk->n", near, filters[place + 1] - filters[place])
            found[start : start + len(places)] += between * (rest / up).astype(np.float32)
    return found


def _filters(places: Float[np.ndarray, " place"], cutoff: float, half: int) -> Float[np.ndarray, "place tap"]:
    offsets = np.arange(1 - half, half + 1)[None, :] - places[:, None]
    window = np.i0(BETA * np.sqrt(np.clip(1 - (offsets / half) ** 2, 0, 1))) / np.i0(BETA)
    return (cutoff * np.sinc(cutoff * offsets) * window).astype(np.float32)
