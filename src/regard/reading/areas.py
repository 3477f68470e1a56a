"""Which part of a picture each key stands for: places in a text that hold a picture, and a vision model's own sequence.

What a tile of pixels covers is known from the processor (`regard.models.pretrained.tiles`). How a family makes keys of
tiles is written here, one function a family; a key of any other family has no area. Neither has what gathers a picture
into a few vectors (Q-Former, Perceiver, pooling heads), for each of those saw all of it.
"""

from collections.abc import Callable
from collections.abc import Sequence as Sequences
from typing import Any, NamedTuple

import torch

from regard.models.pretrained.tiles import Tile
from regard.reading.labels import Label, before_patches, sequence
from regard.reading.media import ImageArea
from regard.reading.record import Sequence

# pixels that a convolutional backbone steps over at a time
STRIDE = 32
PATCH, PADDING, GATHERED = "image patch", "image padding", "gathered image"


class Shown(NamedTuple):
    """The pictures that a model is given: its module, what the processor made of them, and their tiles in order."""

    module: Any
    inputs: dict[str, Any]
    tiles: Sequences[Tile | None]
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
    """Labels of the places in a text that hold pictures, of a vision model's sequence, and of what a text sees.

    Each is empty where it is not known.
    """

    text: list[Label]
    vision: list[Label]
    source: list[Label] = []  # noqa: RUF012

    def sequences(self) -> dict[str, Sequence]:
        """Those that are known beside the text, by their names in a reading."""
        known = {"image": self.vision, "source": self.source}
        return {name: sequence(labels, None) for name, labels in known.items() if labels}


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


def _windows(shown: Shown) -> Places:
    """Qwen2.5-VL: the same, but that the squares of the vision model go window by window."""
    merge, vision = shown.vision.spatial_merge_size, shown.vision
    side = vision.window_size // merge // vision.patch_size
    whole = _merged(shown)
    order: list[int] = []
    for _, rows, columns in shown.inputs["image_grid_thw"].tolist():
        first, height, width = len(order), rows // merge, columns // merge
        order += [
            first + row * width + column
            for top in range(0, height, side)
            for left in range(0, width, side)
            for row in range(top, min(top + side, height))
            for column in range(left, min(left + side, width))
        ]
    area = merge**2
    return Places(whole.text, [whole.vision[square * area + index] for square in order for index in range(area)])


def _pooled(shown: Shown) -> Places:
    """Tiles whose patches become fewer places of the text, each for a square of them: Gemma 3, SmolVLM, InternVL."""
    config, vision = shown.config, _vision(shown)
    text: list[Label] = []
    for tile, suffix in zip(shown.tiles, shown.suffixes(), strict=True):
        if tile is None:
            return Places([], vision)
        sides = [length // step for length, step in zip((tile.height, tile.width), _sizes(shown), strict=True)]
        if hasattr(config, "mm_tokens_per_image"):
            rows = columns = round(config.mm_tokens_per_image**0.5)
        elif hasattr(config, "downsample_ratio"):
            rows, columns = (round(side * config.downsample_ratio) for side in sides)
        else:
            rows, columns = (side // config.scale_factor for side in sides)
        # a remainder would be left out
        if sides[0] % rows or sides[1] % columns:
            return Places([], vision)
        text += grid(tile, rows, columns, suffix)
    return Places(text, vision)


def _sizes(shown: Shown) -> tuple[int, int]:
    return _pair(shown.vision.patch_size) or (1, 1)


def _packed(shown: Shown) -> Places:
    """LLaVA-NeXT and -OneVision: the whole, then its tiles as one grid without padding, with an end to each row."""
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    config, size = shown.config, _sizes(shown)
    most = shown.inputs["pixel_values"].shape[1]
    before = before_patches(shown.tower)
    if before is None or shown.vision.model_type not in TOWERS:
        return Places([], [])
    text: list[Label] = []
    vision: list[Label] = []
    suffixes = shown.suffixes()
    for image, sizes in enumerate(shown.inputs["image_sizes"].tolist()):
        rows, columns = get_anyres_image_grid_shape(sizes, config.image_grid_pinpoints, config.vision_config.image_size)
        tiles = shown.tiles[image * most : image * most + 1 + rows * columns]
        grids = [
            grid(tile, side // size[0], side // size[1], suffix)
            for tile, suffix in zip(tiles, suffixes[image * most :], strict=False)
            for side in [shown.inputs["pixel_values"].shape[-1]]
        ]
        side = round(len(grids[0]) ** 0.5)
        for own in grids:
            vision += [*before, *own]
        places = torch.arange(rows * columns * side * side).view(rows, columns, side, side)
        whole = unpad_image(places.permute(0, 2, 1, 3).reshape(1, rows * side, columns * side), sizes)[0]
        if _is_shrunk(config, whole.shape, side):
            return Places([], [])
        joined = [label for own in grids[1:] for label in own]
        text += grids[0]
        for row, line in enumerate(whole.tolist()):
            text += [*(joined[place] for place in line), Label(-1, "end of a row", f"{row}{suffixes[image * most]}")]
    return Places(text, vision)


def _is_shrunk(config: Any, shape: Sequences[int], side: int) -> bool:
    """Whether LLaVA-OneVision resamples the grid of a large picture, after which no place is a patch's."""
    most = getattr(config, "vision_aspect_ratio", None)
    count = int(most.removeprefix("anyres_max_")) if isinstance(most, str) and most.startswith("anyres_max_") else None
    return count is not None and (shape[0] * shape[1] / (count * side**2)) ** 0.5 > 1.1


def _gathered(shown: Shown) -> Places:
    """BLIP-2 and its like: learned queries gather the whole picture, so that a place of the text has no area."""
    count = getattr(shown.config, "num_query_tokens", None) or getattr(shown.config, "latent_query_num", 0)
    return Places([Label(-1, GATHERED, str(index)) for index in range(count * shown.num_images)], _vision(shown))


def _crossed(shown: Shown) -> Places:
    """Llama 3.2 Vision: the text looks at all tiles, each behind a class token; the vision model pads each of them."""
    patch = shown.vision.patch_size
    source: list[Label] = []
    vision: list[Label] = []
    height, width = shown.inputs["pixel_values"].shape[-2:]
    for tile, suffix in zip(shown.tiles, shown.suffixes(), strict=True):
        patches = grid(tile, height // patch, width // patch, suffix)
        if tile is None:
            # one for which the picture is too small
            patches = [label._replace(sort=PADDING) for label in patches]
        own = [Label(-1, "class token", suffix.strip()), *patches]
        source += own
        vision += [*own, *[Label(-1, "padding")] * (-len(own) % 8)]
    return Places([], vision, source)


def _cells(shown: Shown) -> Places:
    """DETR: a convolution makes a grid of cells of a picture, each of the pixels that it steps over at a time."""
    if len(shown.tiles) != 1 or shown.tiles[0] is None:
        return Places([], [])
    tile = shown.tiles[0]
    # that of the usual backbones
    rows, columns = (-(-length // STRIDE) for length in (tile.height, tile.width))
    across, down = STRIDE / tile.width * columns, STRIDE / tile.height * rows
    whole = tile._replace(width=STRIDE * columns, height=STRIDE * rows) if max(across, down) > 1 else tile
    return Places([], [], grid(whole, rows, columns))


# vision models that cut a picture into patches row by row
TOWERS = {
    "blip_2_vision",
    "idefics3",
    "idefics3_vision",
    "instructblip_vision_model",
    "internvl_vision",
    "kosmos_2_vision_model",
    "smolvlm",
    "smolvlm_vision",
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
    "paligemma": _each_patch,
    "llava_next": _packed,
    "llava_onevision": _packed,
    "gemma3": _pooled,
    "idefics3": _pooled,
    "smolvlm": _pooled,
    "internvl": _pooled,
    "qwen2_vl": _merged,
    "qwen3_vl": _merged,
    "qwen2_5_vl": _windows,
    "mllama": _crossed,
    "blip-2": _gathered,
    "instructblip": _gathered,
    "kosmos-2": _gathered,
    "detr": _cells,
    "conditional_detr": _cells,
    "table-transformer": _cells,
}
