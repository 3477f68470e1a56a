"""Tokens that stand for a picture or a sound, which a text shows as one: "image 1 · 24×24 patches"."""

from collections.abc import Sequence
from typing import NamedTuple

from regard.reading.media import ImageArea, SoundSpan
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Token
from regard.reading.sound_frames import FRAME
from regard.reading.sound_frames import PADDING as SILENCE

# patches of what a processor added around a picture have none of its pixels; what gathers a picture into a few vectors
# has seen all of it
PATCH, PADDING, GATHERED = "image patch", "image padding", "gathered image"
PADDINGS = (PADDING, SILENCE)
# tokens between two patches of one picture that count as its separators: the end of a row, the mark of a tile
SEPARATORS = 3


class Fold(NamedTuple):
    """Tokens from `first` to before `last` that stand for picture `image`, None where that is not known.

    `patches` are those among them, `grid` their rows and columns where they are one grid, and `gathered` the number of
    vectors into which the picture was gathered instead. Where they stand for a sound, `is_sound`, `image` is its number
    and `patches` are its frames.
    """

    image: int | None
    first: int
    last: int
    patches: int
    grid: tuple[int, int] | None
    gathered: int = 0
    is_sound: bool = False

    @property
    def name(self) -> str:
        if self.is_sound:
            return f"sound{'' if self.image is None else f' {self.image + 1}'} · {self.patches:,} frames"
        title = "image" if self.image is None else f"image {self.image + 1}"
        own = f"{self.gathered:,} vectors" if self.gathered else patches_of(self.patches, self.grid)
        return f"{title} · {own}"


def is_patch(token: Token) -> bool:
    return token.sort in (PATCH, PADDING, GATHERED) or isinstance(token.area, ImageArea)


def is_frame(token: Token) -> bool:
    return token.sort in (FRAME, SILENCE) or isinstance(token.area, SoundSpan)


def folds(tokens: Sequence[Token]) -> list[Fold]:
    """The stretches of tokens that each stand for one picture or sound.

    Separators between a picture's rows and tiles, and the silence after a sound, are part of it.
    """
    found: list[Fold] = []
    patches: list[list[Token]] = []
    for place, token in enumerate(tokens):
        is_sound = is_frame(token)
        if not is_sound and not is_patch(token):
            continue
        image = None if token.area is None else token.area[0]
        last = found[-1] if found and found[-1].is_sound == is_sound else None
        # padding belongs to the picture or sound that is before it, or else to the picture after it
        is_padding = token.sort in PADDINGS or (bool(patches) and not patches[-1])
        if last is not None and place - last.last <= SEPARATORS and (is_padding or last.image == image):
            found[-1] = last._replace(last=place + 1, image=last.image if image is None else image)
        else:
            found.append(Fold(image, place, place + 1, 0, None, is_sound=is_sound))
            patches.append([])
        if token.sort not in PADDINGS:
            patches[-1].append(token)
    areas = [[token.area for token in own if isinstance(token.area, ImageArea)] for own in patches]
    return [
        fold._replace(
            patches=len(own),
            grid=grid_of(known) if known and len(known) == len(own) else None,
            gathered=sum(token.sort == GATHERED for token in own),
        )
        for fold, own, known in zip(found, patches, areas, strict=True)
    ]


def grid_of(areas: Sequence[ImageArea]) -> tuple[int, int] | None:
    """Rows and columns of patches that are one grid; None of others, such as those of several tiles."""
    places = {(area.row, area.column) for area in areas}
    height, width = (len({place[axis] for place in places}) for axis in (0, 1))
    return (height, width) if len(places) == len(areas) == height * width else None


def patches_of(count: int, grid: tuple[int, int] | None) -> str:
    return f"{count:,} patches" if grid is None else f"{grid[0]}×{grid[1]} patches"


def shown_text(sequence: Tokens, start: int, stop: int) -> str:
    """A part of a text on one line, with pictures by their names."""
    tokens, told = sequence.tokens, ""
    for fold in folds(tokens):
        first, last = tokens[fold.first].start, tokens[fold.last - 1].end
        if start <= first and last <= stop:
            told += f"{sequence.text[start:first]} [{fold.name}] "
            start = last
    return " ".join((told + sequence.text[start:stop]).split())
