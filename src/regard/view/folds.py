"""Tokens that stand for a picture, which a text shows as one: "image 1 · 24×24 patches"."""

from collections.abc import Sequence
from typing import NamedTuple

from regard.reading.media import ImageArea
from regard.reading.record import Token

PATCH = "image patch"
# tokens between two patches of one picture that count as its separators: the end of a row, the mark of a tile
SEPARATORS = 3


class Fold(NamedTuple):
    """Tokens from `first` to before `last` that stand for picture `image`, None where that is not known."""

    image: int | None
    first: int
    last: int
    name: str


def is_patch(token: Token) -> bool:
    return token.sort == PATCH or isinstance(token.area, ImageArea)


def folds(tokens: Sequence[Token]) -> list[Fold]:
    """The stretches of tokens that each stand for one picture, separators between its rows and tiles included."""
    found: list[Fold] = []
    patches: list[list[Token]] = []
    for place, token in enumerate(tokens):
        if not is_patch(token):
            continue
        image = token.area.image if isinstance(token.area, ImageArea) else None
        last = found[-1] if found else None
        if last is not None and last.image == image and place - last.last <= SEPARATORS:
            found[-1] = last._replace(last=place + 1)
            patches[-1].append(token)
        else:
            found.append(Fold(image, place, place + 1, ""))
            patches.append([token])
    return [fold._replace(name=_name(fold, own)) for fold, own in zip(found, patches, strict=True)]


def _name(fold: Fold, patches: Sequence[Token]) -> str:
    areas = [token.area for token in patches if isinstance(token.area, ImageArea)]
    title = "image" if fold.image is None else f"image {fold.image + 1}"
    return f"{title} · {grid_of(areas) if len(areas) == len(patches) else f'{len(patches):,} patches'}"


def grid_of(areas: Sequence[ImageArea]) -> str:
    """How many patches there are, as a grid where they are one; of tiles, which are several, their number."""
    places = {(area.row, area.column) for area in areas}
    height, width = (len({place[axis] for place in places}) for axis in (0, 1))
    is_grid = len(places) == len(areas) == height * width
    return f"{height}×{width} patches" if is_grid else f"{len(areas):,} patches"
