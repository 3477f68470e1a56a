"""Where in a picture each pixel that a model is given comes from, found by asking the model's own processor.

A processor resizes, crops, pads and cuts a picture into tiles, each in its own way. Here it is given pictures of the
same sizes whose colours spell their coordinates, once across and once down: a coarse ramp says about where a pixel is,
a sine and a cosine say it to a small part of one. What comes out is a straight line along each axis of every tile.
Sizes and offsets are whole pixels, before the resizing or after it, so that the line is known exactly; a tile that
follows no such line has no place.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

# levels of a channel: the ramp and the waves stay clear of the ends, which interpolation may pass
LOW, SPAN, MIDDLE, WAVE = 32, 191, 128, 95
PERIODS = 4
# pixels of a picture below which a wave cannot be told from its edges
LEAST_SIDE = 16
# pixels at the end of a picture that an interpolation bends
EDGE = 3
# of a pixel of the tile: how far a line may be from what was measured, and a line of whole pixels from a fitted one
STRAIGHT, SNAPPED = 0.5, 0.1
# by how much a line of a picture that is cut first must be nearer, for most are resized first
PREFERRED = 0.015
# pictures are told apart by a level for each, so many to a channel
STEP, LEVELS = 8, 24


class Tile(NamedTuple):
    """A grid of pixels that a model is given, `width` by `height`, and where it comes from: picture `image`.

    Pixel (x, y) of it begins at `left` + `step_x`·x, `top` + `step_y`·y of the picture, which has `size` pixels across
    and down; what is beyond these is padding.
    """

    image: int
    width: int
    height: int
    left: float
    top: float
    step_x: float
    step_y: float
    size: tuple[int, int]

    def area(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float] | None:
        """What of the picture these pixels of the tile cover; None where that is padding alone."""
        across = _covered(self.left, self.step_x, left, right, self.size[0])
        down = _covered(self.top, self.step_y, top, bottom, self.size[1])
        return None if across is None or down is None else (across[0], down[0], across[1], down[1])


def _covered(start: float, step: float, first: float, last: float, size: int) -> tuple[float, float] | None:
    begin, end = max(0.0, start + step * first), min(float(size), start + step * last)
    return (begin, end) if end > begin + 1e-6 * step else None


# pictures in, what the model is given of them out
Prepare = Callable[[Sequence["Image"]], Mapping[str, Any]]


def tiles_of(prepare: Prepare, sizes: Sequence[tuple[int, int]], processor: Any) -> list[Tile | None]:
    """The tiles that a processor makes of pictures of these sizes, in its order; None for one without a place."""
    across, down = (_planes(prepare([_probe(size, axis) for size in sizes]), processor) for axis in (0, 1))
    owners = [0] * len(across)
    if len(sizes) > 1:
        marked = _planes(prepare([_solid(size, index) for index, size in enumerate(sizes)]), processor)
        owners = [_owner(plane, len(sizes)) for plane in marked]
    if not len(across) == len(down) == len(owners):
        return [None] * len(across)
    return [_tile(owner, sizes, *pair) for owner, *pair in zip(owners, across, down, strict=True)]


def _probe(size: tuple[int, int], axis: int) -> "Image":
    """A picture whose colours are the coordinate of each pixel along an axis, 0 across and 1 down."""
    from PIL import Image

    count = size[axis]
    place = (np.arange(count) + 0.5) / count
    angle = 2 * math.pi * _periods(count) * place
    line = np.stack((LOW + SPAN * place, MIDDLE + WAVE * np.cos(angle), MIDDLE + WAVE * np.sin(angle)), axis=-1)
    pixels = np.broadcast_to(line[None] if axis == 0 else line[:, None], (size[1], size[0], 3))
    # rounded up or down by chance, so that the mean of several pixels is finer than a level
    chance = np.random.default_rng(axis).random(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.floor(pixels + chance).astype(np.uint8))


def _periods(count: int) -> int:
    return max(1, min(PERIODS, count // LEAST_SIDE))


def _solid(size: tuple[int, int], index: int) -> "Image":
    from PIL import Image

    return Image.new("RGB", size, (LOW + STEP * (index % LEVELS), LOW + STEP * (index // LEVELS % LEVELS), MIDDLE))


def _owner(plane: np.ndarray, count: int) -> int:
    """The picture that a tile of solid pictures is of, or −1."""
    is_marked = np.abs(plane[2] - MIDDLE) < 2
    if not is_marked.any():
        return -1
    first, second = (round((float(np.median(plane[channel][is_marked])) - LOW) / STEP) for channel in (0, 1))
    index = first + LEVELS * second
    return index if 0 <= first < LEVELS and 0 <= index < count else -1


def _planes(found: Mapping[str, Any], processor: Any) -> list[np.ndarray]:
    """The tiles that a model is given, [3, height, width] each, as levels of 0 to 255."""
    pixels = found.get("pixel_values")
    if pixels is None:
        return []
    if "image_grid_thw" in found:
        planes = _unpatched(pixels.numpy(), found["image_grid_thw"].tolist(), processor)
    elif "spatial_shapes" in found:
        size = processor.patch_size
        planes = [
            _grid(each.numpy()[: height * width].reshape(height, width, size, size, 3))
            for each, (height, width) in zip(pixels, found["spatial_shapes"].tolist(), strict=True)
        ]
    elif pixels.dim() >= 4 and pixels.shape[-3] == 3:
        planes = list(pixels.reshape(-1, *pixels.shape[-3:]).float().numpy())
    else:
        return []
    return [_levels(plane, processor) for plane in planes]


def _unpatched(pixels: np.ndarray, grids: Sequence[Sequence[int]], processor: Any) -> list[np.ndarray]:
    """Pictures of which the patches come one after the other, square by square of those that become one token."""
    size, merge = processor.patch_size, processor.merge_size
    planes, start = [], 0
    for frames, height, width in grids:
        own = pixels[start : start + frames * height * width]
        start += frames * height * width
        blocks = own.reshape(frames, height // merge, width // merge, merge, merge, 3, -1, size, size)[0]
        # of two equal moments the first
        planes.append(blocks[..., 0, :, :].transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, height * size, width * size))
    return planes


def _grid(patches: np.ndarray) -> np.ndarray:
    """[row, column, height, width, channel] as one plane."""
    rows, columns, height, width, _ = patches.shape
    return patches.transpose(4, 0, 2, 1, 3).reshape(3, rows * height, columns * width)


def _levels(plane: np.ndarray, processor: Any) -> np.ndarray:
    plane = np.asarray(plane, dtype=np.float64)
    if getattr(processor, "do_normalize", False):
        mean, std = (np.asarray(getattr(processor, name)) for name in ("image_mean", "image_std"))
        plane = plane * std.reshape(-1, 1, 1) + mean.reshape(-1, 1, 1)
    return plane / processor.rescale_factor if getattr(processor, "do_rescale", False) else plane


def _tile(owner: int, sizes: Sequence[tuple[int, int]], across: np.ndarray, down: np.ndarray) -> Tile | None:
    if owner < 0 or across.shape != down.shape:
        return None
    size = sizes[owner]
    horizontal = _line(across, size[0])
    # down is across of the picture on its side
    vertical = _line(down.transpose(0, 2, 1), size[1])
    if horizontal is None or vertical is None:
        return None
    height, width = across.shape[1:]
    (left, step_x), (top, step_y) = horizontal, vertical
    return Tile(owner, width, height, left, top, step_x, step_y, size)


def _line(plane: np.ndarray, size: int) -> tuple[float, float] | None:
    """Where the first column of a tile begins in the picture, and the step from each to the next, in its pixels."""
    periods = _periods(size)
    cosine, sine = ((plane[channel] - MIDDLE) / WAVE for channel in (1, 2))
    ramp = (plane[0] - LOW) / SPAN
    fine = np.arctan2(sine, cosine) / (2 * math.pi * periods)
    place = fine + np.round((ramp - fine) * periods) / periods
    # padding is of one colour, which is on no wave
    is_real = (np.abs(np.hypot(cosine, sine) - 1) < 0.2) & (np.abs(place - ramp) < 0.25 / periods)
    enough = is_real.sum(0) * 2 > is_real.sum(0).max(initial=0)
    columns = enough.nonzero()[0]
    if size < LEAST_SIDE or len(columns) < 4:
        return None
    sums = np.where(is_real, place, 0).sum(0)[columns] / is_real.sum(0)[columns]
    centres = columns + 0.5
    slope = float(np.polyfit(centres, sums, 1)[0])
    if slope <= 0:
        return None
    # what interpolation bends at the ends of the picture has no part in the line
    margin = EDGE * max(slope, 1 / size)
    inner = (sums > margin) & (sums < 1 - margin)
    if inner.sum() < 4:
        return None
    slope, start = map(float, np.polyfit(centres[inner], sums[inner], 1))
    if np.abs(start + slope * centres[inner] - sums[inner]).max() > STRAIGHT * slope:
        return None
    return _snapped(start, slope, size, plane.shape[2])


def _snapped(start: float, slope: float, size: int, width: int) -> tuple[float, float] | None:
    """The line of whole pixels that is the fitted one: `start` and `slope` are parts of the picture's `size`."""

    def distance(line: tuple[float, float]) -> float:
        """How far the line is from the fitted one, in pixels of the tile, at the end of it where that is more."""
        ends = (line[0] - start, line[0] - start + (line[1] - slope) * width)
        return max(map(abs, ends)) / slope

    # resized to whole pixels, then cut or padded by whole ones; or cut or padded first, then resized to the tile
    resized, begin, count = round(1 / slope), round(start * size), round(slope * width * size)
    resized_first = (round(start * resized) / resized, 1 / resized) if resized else None
    cut_first = (begin / size, count / size / width) if count else None
    known = [
        (distance(line) - PREFERRED * (line is resized_first), line) for line in (resized_first, cut_first) if line
    ]
    _, best = min(known, default=(0.0, None))
    return None if best is None or distance(best) > SNAPPED else (best[0] * size, best[1] * size)
