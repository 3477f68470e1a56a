"""Tiny random models of many of transformers' architectures, to read attention from: no weights, no network.

`python -m benchmarks.zoo` runs them all and shows by which route each one attends.
"""

import transformers

from benchmarks.zoo import decoders
from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.encoders import ENCODERS
from benchmarks.zoo.pictures import PICTURES
from benchmarks.zoo.sounds import SOUNDS
from benchmarks.zoo.translators import TRANSLATORS

__all__ = ["ARCHITECTURES", "DECODERS", "Architecture"]

ARCHITECTURES: dict[str, Architecture] = {
    name: architecture
    for name, architecture in (decoders.DECODERS | TRANSLATORS | ENCODERS | PICTURES | SOUNDS).items()
    # older versions of transformers lack some
    if hasattr(transformers, architecture.model)
}
DECODERS: dict[str, Architecture] = {
    name: architecture for name, architecture in ARCHITECTURES.items() if name in decoders.DECODERS
}
