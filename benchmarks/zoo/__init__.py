"""Tiny random models of many of transformers' architectures, to read attention from: no weights, no network.

`python -m benchmarks.zoo` runs them all and shows by which route each one attends.
"""

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.decoders import DECODERS
from benchmarks.zoo.encoders import ENCODERS
from benchmarks.zoo.pictures import PICTURES
from benchmarks.zoo.translators import TRANSLATORS

__all__ = ["ARCHITECTURES", "Architecture"]

ARCHITECTURES: dict[str, Architecture] = DECODERS | TRANSLATORS | ENCODERS | PICTURES
