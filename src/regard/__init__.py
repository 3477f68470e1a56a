"""Regard trains, runs and reads attention models."""

import importlib
from typing import TYPE_CHECKING, Any

from regard.errors import RegardError

if TYPE_CHECKING:
    from regard import attention, exercises
    from regard.api import Generation, Translator, atlas, evaluate, load, read, sources, train
    from regard.data.corpora import Corpus
    from regard.generation.decoding import Decoding
    from regard.language_model import LanguageModel
    from regard.reading.ablation import ablating
    from regard.reading.atlas import Atlas
    from regard.reading.atlas_difference import AtlasDifference
    from regard.reading.head_effects import HeadEffects, effects_of_heads
    from regard.reading.patching import patching
    from regard.reading.qk_attribution import QKAttribution
    from regard.reading.reading import Reading
    from regard.reading.served.assemble import reading_of
    from regard.reading.served.request import ServedLayer, ServedRequest
    from regard.reading.watch import watching

__version__ = "0.1.0"
__all__ = [
    "Atlas",
    "AtlasDifference",
    "Corpus",
    "Decoding",
    "Generation",
    "HeadEffects",
    "LanguageModel",
    "QKAttribution",
    "Reading",
    "RegardError",
    "ServedLayer",
    "ServedRequest",
    "Translator",
    "ablating",
    "atlas",
    "attention",
    "effects_of_heads",
    "evaluate",
    "exercises",
    "load",
    "patching",
    "read",
    "reading_of",
    "sources",
    "train",
    "watching",
]
# heavy imports wait until one of these is asked for; readings come with the views that their methods offer
_LAZY = {
    "Atlas": "regard.api",
    "AtlasDifference": "regard.api",
    "Corpus": "regard.data.corpora",
    "Decoding": "regard.generation.decoding",
    "Generation": "regard.api",
    "HeadEffects": "regard.api",
    "LanguageModel": "regard.language_model",
    "QKAttribution": "regard.api",
    "Reading": "regard.api",
    "ServedLayer": "regard.api",
    "ServedRequest": "regard.api",
    "Translator": "regard.api",
    "ablating": "regard.api",
    "atlas": "regard.api",
    "effects_of_heads": "regard.api",
    "evaluate": "regard.api",
    "load": "regard.api",
    "patching": "regard.api",
    "read": "regard.api",
    "reading_of": "regard.api",
    "sources": "regard.api",
    "train": "regard.api",
    "watching": "regard.api",
}


def __getattr__(name: str) -> Any:
    if name in ("attention", "exercises"):
        return importlib.import_module(f"regard.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
