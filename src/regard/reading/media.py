"""Pictures and sounds that a model was given, and the part of them that one key or query stands for."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class ImageArea(NamedTuple):
    """What an image patch covers: pixels from `left`, `top` up to `right`, `bottom` of picture number `image`, as
    `Picture` holds it; `row` and `column` count in the model's own grid of patches, or of the tile it is in."""

    image: int
    row: int
    column: int
    left: float
    top: float
    right: float
    bottom: float


class SoundSpan(NamedTuple):
    """What an audio frame covers: seconds from `start` up to `end` of sound number `sound`."""

    sound: int
    start: float
    end: float


Area = ImageArea | SoundSpan


@dataclass(frozen=True)
class Picture:
    """A picture that a model was given, upright, as an encoded file: `media_type` is such as "image/png"."""

    name: str
    media_type: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Sound:
    """A sound that a model was given, in one channel, as an encoded file: `media_type` is such as "audio/wav"."""

    name: str
    media_type: str
    data: bytes
    seconds: float


Medium = Picture | Sound


def area_of(facts: dict[str, Any]) -> Area:
    """The area that `_asdict` wrote. Raises ValueError or TypeError for any other."""
    area = (ImageArea if "image" in facts else SoundSpan)(**facts)
    numbers = np.array([float(value) for value in area])
    index = area[0]
    if type(index) is not int or index < 0 or not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError(f"not valid: the area {facts}")
    return area


def medium_facts(medium: Medium) -> dict[str, Any]:
    """A picture or sound as JSON holds it, its file in base64."""
    sort = "image" if isinstance(medium, Picture) else "sound"
    return {"sort": sort, **medium.__dict__, "data": base64.b64encode(medium.data).decode("ascii")}


def medium_of(facts: dict[str, Any]) -> Medium:
    """What `medium_facts` wrote. Raises ValueError, TypeError or KeyError for any other."""
    facts = dict(facts)
    kind = {"image": Picture, "sound": Sound}[facts.pop("sort")]
    try:
        facts["data"] = base64.b64decode(facts["data"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"not valid: a picture or sound ({error})") from None
    medium = kind(**facts)
    sizes = [medium.width, medium.height] if isinstance(medium, Picture) else [medium.seconds]
    of_image = medium.media_type.startswith("image/" if kind is Picture else "audio/")
    if not isinstance(medium.name, str) or not of_image or not all(0 < size < 1e9 for size in sizes):
        raise ValueError("not valid: a picture or sound")
    return medium
