"""Where in a picture the weight went: each patch's weight spread evenly over the pixels that it covers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from regard.errors import RegardError
from regard.reading.choices import nothing_read
from regard.reading.media import ImageArea, Picture
from regard.reading.reading import Reading
from regard.reading.record import Token
from regard.view.folds import GATHERED, PADDING, grid_of, is_patch, patches_of
from regard.view.shares import chosen_rows, mean_head, name_of, scope_of
from regard.view.words import printable

# of several kinds the first in which written text looks at patches
PREFERRED = ("decoder", "cross", "resampler", "vision", "encoder", "queries")
# edges of areas closer than a thousandth of a pixel are one edge
DIGITS = 3


@final
@dataclass(frozen=True)
class Heat:
    """Weight over picture number `number`, in cells between the edges `xs` and `ys`, which are pixels.

    `density` is weight for every `unit` pixels, the size that most of its patches have: where all have it and none
    overlap it is a patch's weight, and where they overlap the sum. `share` is the weight of all patches.
    """

    number: int
    picture: Picture
    xs: Float[np.ndarray, " right"]
    ys: Float[np.ndarray, " lower"]
    density: Float[np.ndarray, "row column"]
    unit: float
    share: float
    # left, top, right and bottom of its patches, and what they are
    boxes: Float[np.ndarray, "patch 4"]
    grid: str

    @property
    def scale(self) -> str:
        """What the numbers of `density` are."""
        sizes = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        covered = (self.coverage > 0) * np.outer(np.diff(self.ys), np.diff(self.xs))
        is_plain = np.allclose(sizes, self.unit, rtol=0.01) and np.isclose(sizes.sum(), covered.sum(), rtol=0.01)
        return "weight of a patch" if is_plain else f"weight of {self.unit:,.0f} pixels"

    @property
    def coverage(self) -> Int[np.ndarray, "row column"]:
        """How many patches each cell is part of."""
        found = np.zeros(self.density.shape, dtype=np.int64)
        for left, top, right, bottom in _edges(self.boxes, self.xs, self.ys):
            found[top:bottom, left:right] += 1
        return found


@final
@dataclass(frozen=True)
class Looks:
    """What the chosen rows saw of each picture, and of what is in none; all `shares` sum to 1.

    `by_token` has the same for each row that wrote a token or, where patches look, for each position that is none.
    """

    kind: str
    subject: str
    scope: str
    heats: list[Heat]
    by_token: list[tuple[str, list[Heat]]]
    shares: list[tuple[str, float]]


def has_pictures(reading: Reading) -> bool:
    """Whether some kind of attention looks at patches of a picture that the reading has."""
    return any(_looks_at(reading, kind) for kind in reading.kinds)


def pictures(reading: Reading) -> list[Picture]:
    """The pictures, in the order that areas number them in."""
    return [medium for medium in reading.media if isinstance(medium, Picture)]


def looks(
    reading: Reading,
    *,
    kind: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    token: str | None = None,
) -> Looks:
    """What the answer saw of the pictures: all of it or, with `token`, one place in it or a text that it has.

    Of one layer and head or, by default, the mean of all. Raises RegardError where there is no such kind, token, layer
    or head, or no patch that is looked at has a known place.
    """
    kind = _chosen_kind(reading, kind)
    keys, shown = reading.keys(kind), pictures(reading)
    is_own = reading.sides[kind][0] == reading.sides[kind][1]
    count = reading.settings.get("prompt_tokens", 0) if reading.written(kind) is not None else 0
    rows, subject = chosen_rows(reading, kind, count, token)
    layers = reading.layers(kind)
    tables = [reading.weights(kind, number) for number in layers]
    chosen = tables if layer is None else [reading.weights(kind, layer)]
    weights = mean_head([table[:, rows] for table in chosen], layer, head)
    canvases = [canvas for number, picture in enumerate(shown) if (canvas := _canvas(number, picture, keys))]
    whole = weights.mean(axis=0)
    return Looks(
        kind=kind,
        subject=subject,
        scope=scope_of(layers, tables, layer, head),
        heats=[canvas.heat(whole) for canvas in canvases],
        by_token=[
            (name, [canvas.heat(weights[place]) for canvas in canvases]) for place, name in _names(reading, kind, rows)
        ],
        shares=_shares(keys, whole, canvases, count if is_own else 0, is_text=reading.written(kind) is not None),
    )


class _Canvas(NamedTuple):
    """A picture with the cells that its patches' edges cut it into, and the cells of each patch."""

    number: int
    picture: Picture
    xs: np.ndarray
    ys: np.ndarray
    keys: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    unit: float
    grid: str
    # each cell of each patch, with the patch
    cells: np.ndarray
    patches: np.ndarray

    def heat(self, weights: Float[np.ndarray, " key"]) -> Heat:
        own = weights[self.keys].astype(np.float64)
        shape = (len(self.ys) - 1, len(self.xs) - 1)
        values = (own * self.unit / self.sizes)[self.patches]
        density = np.bincount(self.cells, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
        return Heat(
            self.number, self.picture, self.xs, self.ys, density, self.unit, float(own.sum()), self.boxes, self.grid
        )


def _edges(boxes: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Of each box the numbers of its edges: left, top, right, bottom."""
    return np.stack([np.searchsorted((xs, ys)[side % 2], boxes[:, side]) for side in range(4)], axis=1)


def _canvas(number: int, picture: Picture, keys: Sequence[Token]) -> _Canvas | None:
    """None where no key has a place in the picture."""
    found = [
        (place, token.area)
        for place, token in enumerate(keys)
        if isinstance(token.area, ImageArea) and token.area.image == number
    ]
    limits = np.array([picture.width, picture.height, picture.width, picture.height], dtype=float)
    boxes = np.array([area[3:] for _, area in found], dtype=float).reshape(-1, 4)
    boxes = np.minimum(boxes, limits)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes = np.round(boxes, DIGITS)
    # what was added around a picture has no pixel of it
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not inside.any():
        return None
    boxes, sizes = boxes[inside], sizes[inside]
    xs, ys = (np.unique(np.concatenate([boxes[:, (axis, axis + 2)].ravel(), [0, limits[axis]]])) for axis in (0, 1))
    _, group, counts = np.unique(np.round(sizes / sizes.max(), DIGITS), return_inverse=True, return_counts=True)
    unit = float(sizes[group == counts.argmax()].mean())
    places = np.array([place for place, _ in found])[inside]
    areas = [area for (_, area), is_inside in zip(found, inside, strict=True) if is_inside]
    grid = patches_of(len(areas), grid_of(areas))
    numbers = np.arange((len(ys) - 1) * (len(xs) - 1)).reshape(len(ys) - 1, -1)
    cells = [numbers[top:bottom, left:right].ravel() for left, top, right, bottom in _edges(boxes, xs, ys)]
    patches = np.repeat(np.arange(len(cells)), [len(own) for own in cells])
    return _Canvas(number, picture, xs, ys, places, boxes, sizes, unit, grid, np.concatenate(cells), patches)


def _shares(
    keys: Sequence[Token], weights: np.ndarray, canvases: Sequence[_Canvas], prompt: int, *, is_text: bool
) -> list[tuple[str, float]]:
    names: list[str] = ["" for _ in keys]
    counts = Counter(token.sort for token in keys)
    for canvas in canvases:
        for place in canvas.keys.tolist():
            names[place] = f"image {canvas.number + 1}"
    for place, token in enumerate(keys):
        if names[place]:
            continue
        if is_patch(token) and token.sort not in (PADDING, GATHERED):
            names[place] = "image patches that have no place"
        elif token.sort != "token":
            has_several = counts[token.sort] > 1 and token.sort != PADDING
            names[place] = f"{token.sort}s" if has_several else token.sort
        elif is_text and place == 0:
            names[place] = f"first token {printable(token.text.strip() or token.text)}"
        else:
            names[place] = "the answer itself" if prompt and place >= prompt else "text"
    found: dict[str, float] = {}
    order = [f"image {canvas.number + 1}" for canvas in canvases] + ["text", "the answer itself"]
    for name in [name for name in order if name in names]:
        found[name] = 0.0
    for name, weight in zip(names, weights.tolist(), strict=True):
        found[name] = found.get(name, 0.0) + weight
    outside = 1 - float(weights.sum())
    return [*found.items(), *([("outside the sequence", outside)] if outside > 0.005 else [])]


def _names(reading: Reading, kind: str, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
    """The rows that are shown one by one, by their place among the chosen, with what they are called."""
    written, queries = reading.written(kind), reading.queries(kind)
    for place, row in enumerate(rows):
        if written is not None:
            token = written[row]
            yield place, name_of([token]) if token is not None else f"after {name_of([queries[row]])}"
        elif not is_patch(queries[row]):
            yield place, name_of([queries[row]])


def _chosen_kind(reading: Reading, kind: str | None) -> str:
    if not pictures(reading):
        raise RegardError(f"{reading.model}: this reading has no picture; read(…, images=[…]) gives the model some")
    if kind is not None and kind not in reading.kinds:
        raise nothing_read(reading, kind)
    known = [name for name in PREFERRED if name in reading.kinds and _looks_at(reading, name)]
    if kind is None and known:
        return known[0]
    if kind is None or kind not in known:
        where = f"; {' and '.join(known)} attention does" if known else ""
        who = f"{kind} attention looks at no patches" if kind else "no attention looks at patches"
        raise RegardError(f"{reading.model}: {who} of a picture that have a known place{where}")
    return kind


def _looks_at(reading: Reading, kind: str) -> bool:
    shown, keys = pictures(reading), reading.keys(kind)
    return any(_canvas(number, picture, keys) is not None for number, picture in enumerate(shown))
