"""A picture's pixels, from the encoded file that a reading holds."""

import importlib.util
import io
import warnings

import numpy as np
from jaxtyping import UInt8

from regard.errors import RegardError
from regard.reading.media import Picture

# as the viewer in a browser, which takes no vector graphics either
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP"}
MOST_PIXELS = 200_000_000


def pixels(picture: Picture, longest: int) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in RGB, its longer side at most `longest` pixels.

    Raises RegardError where pillow is not installed, and for a file that is no picture of the size that it should be.
    """
    if importlib.util.find_spec("PIL") is None:
        raise RegardError("a picture is drawn by pillow; pip install pillow")
    from PIL import Image, ImageOps

    if picture.media_type not in FORMATS:
        raise RegardError(f"{picture.name}: {picture.media_type} is not drawn here; {', '.join(FORMATS)} are")
    if picture.width * picture.height > MOST_PIXELS:
        raise RegardError(f"{picture.name}: more than {MOST_PIXELS:,} pixels are not drawn")
    try:
        with warnings.catch_warnings():
            # it is as large as it should be, which was just judged, or refused below before it is decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(picture.data), formats=[FORMATS[picture.media_type]])
            upright = (picture.width, picture.height)
            if opened.size not in (upright, upright[::-1]):
                raise RegardError(f"{picture.name}: the file is {opened.size[0]} × {opened.size[1]}, not {upright}")
            opened.draft("RGB", (longest, longest))
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "I;16", "F"):
                # sixteen bits a pixel
                image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
            if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB")
            scale = min(1.0, longest / max(image.size))
            if scale < 1:
                image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
            return np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RegardError(f"{picture.name}: the picture in this reading is damaged ({error})") from None


def grey(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """The same without its colours, so that those of the heat are not taken for its own."""
    luma = image @ np.array([0.2126, 0.7152, 0.0722])
    return np.repeat(luma.round().astype(np.uint8)[:, :, None], 3, axis=2)
