"""Which part of a picture each key stands for: places in a text that hold a picture, and a vision model's own sequence.

What a tile of pixels covers is known from the processor (`regard.models.pretrained.tiles`). How a family makes keys of
tiles is written here, one function a family; a key of any other family has no area. Neither has what gathers a picture
into a few vectors (Q-Former, Perceiver, pooling heads), for each of those saw all of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from regard.models.pretrained.tiles import Tile
from regard.reading.labels import Label, before_patches
from regard.reading.media import ImageArea

PATCH, PADDING, GATHERED = "image patch", "image padding", "gathered image"


class Shown(NamedTuple):
    """The pictures that a model is given: its module, what the processor made of them, and their tiles in order."""

    module: Any
    inputs: dict[str, Any]
    tiles: Sequence[Tile | None]
    num_images: int

    @property
    def config(self) -> Any:
        return self.module.config

    @property
    def vision(self) -> Any:
        """The configuration of the vision model."""
        return getattr(self.config, "vision_config", self.config)

    @property
    def tower(self) -> Any:
        """The vision model within the module, or the module itself."""
        within = (each for each in self.module.modules() if getattr(each, "config", None) is self.vision)
        return next(within, self.module)

    def suffixes(self) -> list[str]:
        """What tells the tiles apart in a name: the picture where there are several, the tile where it has several."""
        owners = [None if tile is None else tile.image for tile in self.tiles]
        counts: dict[int | None, int] = {}
        found = []
        for owner in owners:
            number = counts[owner] = counts.get(owner, 0) + 1
            picture = f" image {owner + 1}" if self.num_images > 1 and owner is not None else ""
            found.append(picture + (f" tile {number}" if owners.count(owner) > 1 else ""))
        return found


class Places(NamedTuple):
    """Labels of the places in a text that hold pictures, and of a vision model's sequence; none where not known."""

    text: list[Label]
    vision: list[Label]


def places_of(shown: Shown) -> Places:
    """What each place stands for, by the family of the model."""
    place = FAMILIES.get(getattr(shown.config, "model_type", ""), _patches)
    return place(shown)


def grid(tile: Tile | None, rows: int, columns: int, suffix: str = "", image: int = 0) -> list[Label]:
    """Labels of a tile that is cut into rows and columns, row by row."""
    found = []
    for row in range(rows):
        for column in range(columns):
            place = f"({row}, {column}){suffix}"
            if tile is None:
                found.append(Label(-1, PATCH, place))
                continue
            across, down = tile.width / columns, tile.height / rows
            area = tile.area(column * across, row * down, (column + 1) * across, (row + 1) * down)
            if area is None:
                found.append(Label(-1, PADDING, place))
            else:
                found.append(Label(-1, PATCH, place, ImageArea(tile.image, row, column, *area)))
    return found


def _patches(shown: Shown) -> Places:
    """A vision transformer that cuts each tile into patches, row by row, behind its class token and registers."""
    return Places([], _vision(shown))


def _vision(shown: Shown) -> list[Label]:
    if getattr(shown.vision, "model_type", None) not in TOWERS:
        return []
    before, size = before_patches(shown.tower), _pair(getattr(shown.vision, "patch_size", None))
    if before is None or size is None:
        return []
    found: list[Label] = []
    for tile, suffix in zip(shown.tiles, shown.suffixes(), strict=True):
        if tile is None:
            return []
        found += [label._replace(place=f"{label.place}{suffix}".strip()) for label in before]
        found += grid(tile, tile.height // size[0], tile.width // size[1], suffix)
    return found


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return tuple(size)
    return None


def _each_patch(shown: Shown) -> Places:
    """LLaVA: the text has a place for each patch of the vision model, in its order, mostly without its class token."""
    vision = _vision(shown)
    is_whole = getattr(shown.config, "vision_feature_select_strategy", "default") == "full"
    return Places([label for label in vision if is_whole or label.sort in (PATCH, PADDING)], vision)


def _merged(shown: Shown) -> Places:
    """Qwen2-VL: the text has a place for each square of patches; the vision model has those of a square in turn."""
    merge = shown.vision.spatial_merge_size
    text: list[Label] = []
    vision: list[Label] = []
    grids = shown.inputs["image_grid_thw"].tolist()
    for (_, rows, columns), tile, suffix in zip(grids, shown.tiles, shown.suffixes(), strict=True):
        text += grid(tile, rows // merge, columns // merge, suffix)
        patches = grid(tile, rows, columns, suffix)
        vision += [
            patches[row * columns + column]
            for top in range(0, rows, merge)
            for left in range(0, columns, merge)
            for row in range(top, top + merge)
            for column in range(left, left + merge)
        ]
    return Places(text, vision)


# vision models that cut a picture into patches row by row
TOWERS = {
    "beit",
    "blip_2_vision_model",
    "clip",
    "clip_vision_model",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "ijepa",
    "siglip",
    "siglip_vision_model",
    "vit",
}
FAMILIES: dict[str, Callable[[Shown], Places]] = {
    "llava": _each_patch,
    "vipllava": _each_patch,
    "qwen2_vl": _merged,
}
