# pyright: strict
"""What a user's type checker must know of Regard: pyright reads this file, nobody runs it."""

from collections.abc import Sequence
from typing import assert_type

import numpy as np

import regard

opened = regard.load("smollm2", dtype="int8")
assert_type(opened, regard.Translator | regard.LanguageModel)
assert isinstance(opened, regard.LanguageModel)
# one Generation for one prompt, a list for several or for several samples: annotate which
written: regard.Generation = opened.generate("Once upon a time", max_new_tokens=8)
assert_type(written.text, str)

trained = regard.train("numbers-rnn", out="runs/numbers", changes={"train.minutes": 1})
assert isinstance(trained, regard.Translator)
assert_type(trained.translate("two").text, str)
assert_type(trained.translate(["two", "three"]), list[regard.Generation])

reading = regard.read("runs/numbers", source="two hundred and six")
assert_type(reading, regard.Reading)
assert_type(reading.tokens, dict[str, list[str]])
weights: np.ndarray = reading.weights("cross", layer=-1)
statistic: np.ndarray = reading.statistic("received", "cross", layer=-1)
kinds: Sequence[str] = reading.kinds
assert_type(regard.Reading.load("a.safetensors"), regard.Reading)

with regard.watching(opened.module, rows="generated", statistics=("entropy",)) as watch:
    assert_type(watch.reading(0), regard.Reading)

mechanism = regard.attention.MECHANISMS["additive"](8, 8)
