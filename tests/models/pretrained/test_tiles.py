"""Where tiles come from is found by asking a processor: pixels that are painted must turn up there and only there."""

import importlib

import numpy as np
import pytest
import torch

from regard.models.pretrained.tiles import LEAST_SIDE, tiles_of

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("transformers")


def processor(family, name, **settings):
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)


SQUARE = {"height": 56, "width": 56}
GRIDS = [[56, 112], [112, 56], [112, 112]]
PROCESSORS = {
    "crop": ("clip", "CLIP", {"size": {"shortest_edge": 64}, "crop_size": SQUARE}),
    "stretch": ("vit", "ViT", {"size": SQUARE}),
    "short side, crop": ("bit", "Bit", {"size": {"shortest_edge": 64}, "crop_size": SQUARE}),
    "pad the batch": ("detr", "Detr", {"size": {"shortest_edge": 64, "longest_edge": 100}}),
    "square of patches": ("qwen2_vl", "Qwen2VL", {}),
    "tiles and the whole": ("llava_next", "LlavaNext", {"image_grid_pinpoints": GRIDS, "crop_size": SQUARE}),
    "tiles without padding": (
        "idefics3",
        "Idefics3",
        {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}},
    ),
    "tiles of the best shape": ("got_ocr2", "GotOcr2", {"size": SQUARE, "crop_to_patches": True, "max_patches": 6}),
    "parts cut first": (
        "gemma3",
        "Gemma3",
        {
            "size": SQUARE,
            "do_pan_and_scan": True,
            "pan_and_scan_min_crop_size": 20,
            "pan_and_scan_max_num_crops": 3,
            "pan_and_scan_min_ratio_to_activate": 1.1,
        },
    ),
    "a canvas of tiles": ("mllama", "Mllama", {"size": SQUARE, "max_image_tiles": 4}),
    "patches in a row": ("siglip2", "Siglip2", {"patch_size": 14, "max_num_patches": 64}),
    "padded first": ("llava", "Llava", {"size": {"shortest_edge": 56}, "crop_size": SQUARE, "do_pad": True}),
}
SIZES = [(200, 133), (91, 310), (64, 64)]


def settings_of(name):
    family, kind, settings = PROCESSORS[name]
    if name == "tiles and the whole":
        settings = {**settings, "size": {"shortest_edge": 56}}
    return processor(family, kind, **settings)


def planes(found, own):
    from regard.models.pretrained.tiles import _planes

    return _planes(found, own)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_painted_pixel_turns_up_where_its_tile_says_and_nowhere_else(name):
    own = settings_of(name)
    is_nested = name == "tiles without padding"

    def prepare(images):
        return own(images=[list(images)] if is_nested else list(images), return_tensors="pt")

    tiles = tiles_of(prepare, SIZES, own)
    assert {tile.image for tile in tiles if tile is not None} == {0, 1, 2}
    random = np.random.default_rng(0)
    for image, size in enumerate(SIZES):
        blank = [Image.new("RGB", each, (90, 90, 90)) for each in SIZES]
        before = planes(prepare(blank), own)
        # a square in the middle of somewhere
        left, top = (int(random.integers(0, side - 24)) for side in size)
        blank[image].paste((255, 255, 255), (left, top, left + 24, top + 24))
        after = planes(prepare(blank), own)
        assert len(before) == len(tiles)
        changes = 0
        for tile, old, new in zip(tiles, before, after, strict=True):
            changed = np.abs(new - old).max(0) > 80
            if tile is None:
                assert not changed.any()
                continue
            rows, columns = np.mgrid[: tile.height, : tile.width] + 0.5
            x, y = tile.left + tile.step_x * columns, tile.top + tile.step_y * rows
            # what interpolation mixes at the edge of the square is neither
            across = np.minimum(x - left, left + 24 - x) / tile.step_x
            down = np.minimum(y - top, top + 24 - y) / tile.step_y
            depth = np.minimum(across, down)
            is_inside = (depth > 1.5) & (tile.image == image)
            is_outside = (depth < -1.5) | (tile.image != image)
            assert changed[is_inside].all()
            assert not changed[is_outside].any()
            changes += int(is_inside.sum())
        assert changes or name in ("crop", "short side, crop")


def test_the_lines_are_those_that_the_sizes_give_by_hand():
    # 200 × 133 on a canvas of 112 × 112: resized to 112 × 75, with 18 rows of padding above
    own = settings_of("tiles and the whole")
    whole, first, *_ = tiles_of(lambda images: own(images=list(images), return_tensors="pt"), [(200, 133)], own)
    assert (whole.left, whole.top) == (0, 0)
    assert (whole.step_x, whole.step_y) == pytest.approx((200 / 56, 133 / 56), abs=1e-12)
    assert first.top == pytest.approx(-18 * 133 / 75, abs=1e-12)
    assert first.step_y == pytest.approx(133 / 75, abs=1e-12)
    # a part of the picture that is cut out before it is resized
    own = settings_of("parts cut first")
    tiles = tiles_of(lambda images: own(images=list(images), return_tensors="pt"), [(90, 310)], own)
    for tile, line in zip(tiles[1:], [(0, 104), (104, 104), (208, 102)], strict=True):
        assert (tile.top, tile.step_y * 56) == pytest.approx(line, abs=1e-9)


def test_an_area_ends_with_the_picture_and_padding_has_none():
    own = settings_of("tiles and the whole")
    _, first, *_ = tiles_of(lambda images: own(images=list(images), return_tensors="pt"), [(200, 133)], own)
    assert first.area(0.0, 0.0, 14.0, 14.0) is None
    left, top, right, bottom = first.area(0.0, 14.0, 14.0, 28.0)
    assert (left, top, right) == (0, 0, 25)
    assert bottom == pytest.approx(10 * 133 / 75)


def test_a_large_picture_in_many_tiles_is_known_to_a_hundredth_of_a_pixel():
    own = processor("llava_next", "LlavaNext", size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112},
                    image_grid_pinpoints=[[448, 1120]])  # fmt: skip
    width, height = 3001, 977
    tiles = tiles_of(lambda images: own(images=list(images), return_tensors="pt"), [(width, height)], own)
    resized = 1120, int(np.ceil(height * 1120 / width))
    padding = (448 - resized[1]) // 2
    for index, tile in enumerate(tiles[1:]):
        row, column = divmod(index, 10)
        if tile is None:
            assert not 0 < 112 * (row + 1) - padding < resized[1] + 112
            continue
        assert tile.left == pytest.approx(column * 112 * width / 1120, abs=0.01)
        assert tile.top == pytest.approx((row * 112 - padding) * height / resized[1], abs=0.01)


def test_a_picture_that_is_turned_or_too_small_has_no_places():
    def turned(images):
        pixels = np.stack([np.asarray(each).transpose(2, 1, 0) for each in images])
        return {"pixel_values": torch.from_numpy(pixels)}

    assert tiles_of(turned, [(64, 64)], object()) == [None]

    def plain(images):
        return {"pixel_values": torch.from_numpy(np.stack([np.asarray(each).transpose(2, 0, 1) for each in images]))}

    (tile,) = tiles_of(plain, [(64, 40)], object())
    assert tile[1:] == (64, 40, 0, 0, 1, 1, (64, 40))
    assert tiles_of(plain, [(LEAST_SIDE - 1, 64)], object()) == [None]
