import io

import numpy as np
import pytest
import torch

from regard import RegardError
from regard.data import media
from regard.data.media import open_image

Image = pytest.importorskip("PIL.Image")

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corners(width=40, height=20):
    """A picture whose corners are told apart by colour: red at the top left, green beside it, blue below."""
    picture = Image.new("RGB", (width, height), "white")
    for colour, place in ((RED, (0, 0)), (GREEN, (width - 8, 0)), (BLUE, (0, height - 8))):
        picture.paste(colour, (*place, place[0] + 8, place[1] + 8))
    return picture


def test_a_file_a_pil_image_and_arrays_of_any_layout_are_the_same_picture(tmp_path):
    picture = corners()
    pixels = np.asarray(picture)
    picture.save(tmp_path / "corners.png")
    given = [
        tmp_path / "corners.png",
        str(tmp_path / "corners.png"),
        picture,
        pixels,
        pixels.transpose(2, 0, 1),
        torch.from_numpy(pixels.copy()),
        pixels / np.float32(255),
        pixels.astype(np.uint16) * 257,
    ]
    for each in given:
        opened = open_image(each)
        assert opened.image.mode == "RGB"
        assert np.array_equal(np.asarray(opened.image), pixels)
    assert [open_image(each).name for each in given[:3]] == ["corners.png", "corners.png", "image 1"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_says(tmp_path, orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = corners()
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "camera.png", exif=exif)
    opened = open_image(tmp_path / "camera.png")
    assert np.array_equal(np.asarray(opened.image), np.asarray(upright))


def test_what_is_kept_of_a_picture_has_its_pixels_and_none_of_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    corners().save(tmp_path / "secret.png", exif=exif)
    media_type, data = open_image(tmp_path / "secret.png").encoded()
    assert media_type == "image/png"
    assert b"where I live" not in data
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(corners()))
    corners().save(tmp_path / "photo.jpg", exif=exif)
    media_type, data = open_image(tmp_path / "photo.jpg").encoded()
    assert media_type == "image/jpeg"
    assert b"where I live" not in data


def test_transparency_lies_over_white_and_16_bits_become_8():
    half = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert np.asarray(open_image(half).image).min() == 255
    deep = Image.fromarray(np.full((20, 20), 0x8000, dtype=np.uint16))
    assert (np.asarray(open_image(deep).image) == 0x80).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA", "HSV"])
def test_pictures_of_all_modes_become_rgb(mode):
    # CMYK of pure colours comes back as it was; others round
    found = np.asarray(open_image(corners().convert(mode)).image, dtype=int)
    assert found.shape == (20, 40, 3)
    if mode in ("CMYK", "RGBA", "P"):
        assert np.abs(found - np.asarray(corners(), dtype=int)).max() <= 1


def test_a_single_pixel_is_a_picture():
    assert open_image(Image.new("RGB", (1, 1))).width == 1


def test_an_address_is_not_fetched():
    for address in (
        "https://example.org/cat.png",
        "http://localhost/cat.png",
        "file:///etc/passwd",
        "data:image/png,x",
    ):
        with pytest.raises(RegardError, match="nothing is fetched"):
            open_image(address)


def test_files_that_are_no_whole_picture_are_refused_in_words(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for name, why in (
        ("cut.jpg", "truncated or damaged"),
        ("text.png", "no picture in a format"),
        ("empty.png", "empty"),
        ("moving.gif", "2 frames"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(RegardError, match=why) as error:
            open_image(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(RegardError, match="cannot be read"):
        open_image(tmp_path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    # a PNG's header, which promises far more pixels than follow
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for side in (30_000, 9_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
        (tmp_path / "bomb.png").write_bytes(data + chunk(b"IEND", b""))
        with pytest.raises(RegardError, match="more than 67,108,864 pixels"):
            open_image(tmp_path / "bomb.png")


def test_a_file_of_more_than_the_limit_is_not_read(tmp_path, monkeypatch):
    corners().save(tmp_path / "large.png")
    monkeypatch.setattr(media, "LARGEST_FILE", 50)
    with pytest.raises(RegardError, match="more than 50 bytes"):
        open_image(tmp_path / "large.png")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 20, 2)),
        np.zeros((2, 20, 20, 3)),
        np.zeros((0, 20, 3)),
        np.full((20, 20, 3), 2.0),
        np.full((20, 20, 3), np.nan),
        np.full((20, 20, 3), -1),
        np.full((20, 20, 3), 300),
        np.zeros((20, 20, 3), dtype=complex),
        np.full((20, 20), "a"),
        np.zeros((2, 20_000, 3), dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_that_are_no_pixels_are_refused(array):
    with pytest.raises(RegardError):
        open_image(array)


def test_what_is_no_picture_at_all_is_refused():
    for thing in (3, None, ["cat.png"], b"cat.png", ""):
        with pytest.raises(RegardError):
            open_image(thing)
