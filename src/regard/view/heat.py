"""The colours of heat over a picture in grey: the stronger, the redder, and the less of the picture shines through."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8

from regard.view.pictures import Heat
from regard.view.pixels import grey, pixels

# red, green, blue, and how much of the picture they cover, in even steps from no weight to the largest; the page's too
STOPS = ((252, 237, 140, 0.0), (252, 184, 50, 0.55), (237, 97, 20, 0.78), (173, 13, 26, 0.88))
# over which a scale is drawn, as heat is over a picture
MIDDLE_GREY = 140


def coloured(
    shares: Float[np.ndarray, "*place"], under: Float[np.ndarray, "*place 3"]
) -> UInt8[np.ndarray, "*place 3"]:
    """Shares of the largest weight, from 0 to 1, over these colours."""
    at = np.linspace(0, 1, len(STOPS))
    red, green, blue, covers = (np.interp(shares, at, [stop[part] for stop in STOPS]) for part in range(4))
    mixed = under * (1 - covers[..., None]) + np.stack([red, green, blue], axis=-1) * covers[..., None]
    return mixed.round().astype(np.uint8)


def over(
    heat: Heat, rows: int, columns: int, cells: Float[np.ndarray, "row column"] | None = None
) -> Float[np.ndarray, "rows columns"]:
    """Of the picture cut into equal places, the mean density of each, or of other numbers of its cells."""
    across, down = parts(heat.xs, columns), parts(heat.ys, rows)
    return down @ (heat.density if cells is None else cells.astype(float)) @ across.T


def parts(edges: Float[np.ndarray, " edge"], count: int) -> Float[np.ndarray, "place cell"]:
    """The part of each of `count` equal places that is in each cell."""
    places = np.linspace(edges[0], edges[-1], count + 1)
    low = np.maximum(places[:-1, None], edges[None, :-1])
    high = np.minimum(places[1:, None], edges[None, 1:])
    return np.maximum(0, high - low) / (places[1] - places[0])


def heated(heat: Heat, longest: int) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in grey with its heat, its longer side at most `longest` pixels. Raises RegardError as `pixels`."""
    image = grey(pixels(heat.picture, longest))
    return coloured(over(heat, *image.shape[:2]) / (heat.density.max() or 1.0), image.astype(float))


def data_url(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """A PNG file inside an address, as HTML takes it."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
