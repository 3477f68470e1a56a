"""Pictures as a user has them, as upright RGB images: from a file, a PIL image or an array, within stated limits.

Files are PNG, JPEG, WebP, GIF, BMP, TIFF, PPM and AVIF, of one picture each; nothing is fetched. EXIF rotation is
applied, transparency is laid over white, 16 bits become the upper 8, and CMYK, grey and palettes become RGB without
their colour profile.
"""

import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regard.errors import RegardError
from regard.files import read_whole

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# whose pixels are no longer what was drawn, so that a lossy copy loses nothing that matters
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
LARGEST_FILE = 1 << 28
MOST_PIXELS = 1 << 26
# longer than this times its other side, a picture is a line
MOST_RATIO = 1000
ADDRESS = re.compile(r"(?i)(?:[a-z][a-z0-9+.-]+://|data:)")
QUALITY = 95


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An upright RGB picture under the name of its file or its place among others."""

    name: str
    image: "Image"
    is_lossy: bool = False

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height

    def encoded(self) -> tuple[str, bytes]:
        """Its media type and file: PNG, or JPEG where it came in a lossy format; without the file's metadata."""
        file = io.BytesIO()
        if self.is_lossy:
            self.image.save(file, "JPEG", quality=QUALITY, subsampling=0)
        else:
            self.image.save(file, "PNG")
        return f"image/{'jpeg' if self.is_lossy else 'png'}", file.getvalue()


def open_image(image: Any, name: str = "image 1") -> OpenedImage:
    """A path, a PIL image or an array [height, width], [height, width, channel] or [channel, height, width].

    Whole numbers of an array are 0 to 255, or to 65535 in 16 bits, fractions 0 to 1. `name` is for what has no file.
    Raises RegardError for an address, for what cannot be read or is no picture, for one that is too large and for a
    file of several frames.
    """
    check_pillow()
    from PIL.Image import Image

    if isinstance(image, OpenedImage):
        return image
    if isinstance(image, str | os.PathLike):
        text = os.fspath(image)
        if isinstance(text, bytes) or not text:
            raise RegardError(f"{name}: {text!r} is no path of a picture")
        if ADDRESS.match(text):
            raise RegardError(f"{text[:80]}: an address, and nothing is fetched; save the picture and give its path")
        return _of_file(Path(text))
    if isinstance(image, Image):
        return _upright(image, name, is_lossy=getattr(image, "format", None) in LOSSY)
    if hasattr(image, "__array__"):
        return _of_array(image, name)
    raise RegardError(f"{name}: give a path, a PIL image or an array, not {type(image).__name__}")


def check_pillow() -> None:
    """Raises RegardError where pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise RegardError(
            f"pictures need pillow, which cannot be imported ({error}); run: python -m pip install 'regard[media]'"
        ) from None


def _of_file(path: Path) -> OpenedImage:
    from PIL import Image, UnidentifiedImageError

    try:
        data = read_whole(path, LARGEST_FILE)
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise RegardError(f"{path}: the file is empty")
    known = [each for each in FORMATS if each in _registered()]
    try:
        with warnings.catch_warnings():
            # of its size, which has a limit here, and of metadata, which is not kept
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=known) as opened:
                return _upright(opened, path.name, is_lossy=opened.format in LOSSY, where=str(path))
    except Image.DecompressionBombError:
        raise _too_large(str(path)) from None
    except UnidentifiedImageError:
        raise RegardError(f"{path}: no picture in a format that is read here: {', '.join(known)}") from None


def _registered() -> set[str]:
    from PIL import Image

    Image.init()
    return set(Image.ID)


def _upright(image: "Image", name: str, *, is_lossy: bool = False, where: str | None = None) -> OpenedImage:
    from PIL import ImageOps

    where = where or name
    _check_size(image.width, image.height, where)
    frames = getattr(image, "n_frames", 1)
    # a camera's MPO has a preview, or a second eye, beside its picture
    if frames > 1 and image.format != "MPO":
        raise RegardError(f"{where}: it has {frames} frames, and one picture is read; save the frame that you mean")
    try:
        image.load()
        turned = ImageOps.exif_transpose(image)
        return OpenedImage(name, _rgb(turned, where), is_lossy)
    except RegardError:
        raise
    # decoders raise all sorts of errors on damaged files
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, MemoryError, EOFError) as error:
        raise RegardError(f"{where}: it cannot be decoded ({error}); the file is truncated or damaged") from None


def _check_size(width: int, height: int, where: str) -> None:
    if width < 1 or height < 1:
        raise RegardError(f"{where}: {width} × {height} pixels are no picture")
    if width * height > MOST_PIXELS:
        raise _too_large(where, f" ({width:,} × {height:,})")
    if max(width, height) > MOST_RATIO * min(width, height):
        raise RegardError(f"{where}: {width} × {height} pixels are a line, which no model takes; crop or widen it")


def _too_large(where: str, size: str = "") -> RegardError:
    return RegardError(f"{where}: more than {MOST_PIXELS:,} pixels{size}, the most that are read; shrink it")


def _rgb(image: "Image", where: str) -> "Image":
    from PIL import Image

    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise RegardError(f"{where}: its pixels have more than 16 bits; save it with 8")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if mode == "F":
        raise RegardError(f"{where}: its pixels are fractions of no known range; save it with 8 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    # a copy, which does not hang on the file
    return image.convert("RGB") if mode != "RGB" else image.copy()


def _of_array(array: Any, name: str) -> OpenedImage:
    from PIL import Image

    try:
        values = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RegardError(f"{name}: no array of pixels ({error})") from None
    if values.ndim == 3 and values.shape[-1] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (3, 4)):
        raise RegardError(f"{name}: an array of the shape {list(values.shape)}; give [height, width, 3]")
    _check_size(values.shape[1], values.shape[0], name)
    return _upright(Image.fromarray(_bytes(values, name)), name)


def _bytes(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise RegardError(f"{name}: an array of {values.dtype}, which are no pixels")
    is_fraction = np.issubdtype(values.dtype, np.floating)
    most = 1 if is_fraction else 255
    # NaN is neither
    if not ((values >= 0) & (values <= most)).all():
        raise RegardError(f"{name}: an array of {values.dtype} must be 0 to {most}, and no pixel NaN; scale it")
    return (values.astype(np.float64) * 255).round().astype(np.uint8) if is_fraction else values.astype(np.uint8)
