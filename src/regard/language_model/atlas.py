"""An atlas of a language model: its heads measured on texts, one after another."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.language_model import LanguageModel
from regard.reading.atlas import Atlas
from regard.reading.head_effects import effects_of_heads
from regard.reading.measuring import Measuring, prefix_matching
from regard.reading.tally import PromptRows, Tally

# random tokens that are given twice, how many texts of them, and what they are drawn with
PROBE_TOKENS, PROBES, SEED = 64, 8, 0


class Measured(NamedTuple):
    """What was measured of a text, whether it was cut, and what ablating each head does to it, where that was asked.

    With the first of all texts come the probes: random tokens given twice.
    """

    rows: PromptRows
    is_cut: bool
    effects: Float[np.ndarray, "layer head"] | None
    probes: list[PromptRows]


@final
class AtlasMaker:
    """Measures texts. Of those longer than `max_tokens` the first tokens are taken; None takes texts whole.

    `segments` is what a text is parted into, by the options of a reading. Of the first `effects` texts every head is
    ablated in turn, which takes as many passes as the model has heads.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        max_tokens: int | None = None,
        segments: str | Callable[[str], list[int]] = "sentences",
        effects: int = 0,
    ) -> None:
        for name, value, least in (("max_tokens", max_tokens, 2), ("effects", effects, 0)):
            if value is not None and (type(value) is not int or value < least):
                raise RegardError(f"{name} must be a whole number, at least {least}, not {value!r}")
        if effects and not model.writes:
            raise RegardError(f"{model.name} predicts no next token, so that no effects can be told; leave effects out")
        self.model, self.max_tokens, self.segments, self.effects = model, max_tokens, segments, effects
        self.kind = "decoder" if model.writes else "encoder"
        self._measuring = Measuring(model.module, self.kind, model._tokenizer(), segments)

    def settings(self) -> dict[str, Any]:
        """How an atlas was made, as JSON holds it."""
        segments = self.segments if isinstance(self.segments, str) else getattr(self.segments, "__name__", "its own")
        return {"max_tokens": self.max_tokens, "segments": segments}

    def measured(self, text: str, *, id: str, place: int) -> Measured:
        """Measure the text with this id, the `place`-th of all. Raises RegardError for one of less than two tokens."""
        ids, _ = self.model.encode(text)
        is_cut = self.max_tokens is not None and len(ids) > self.max_tokens
        ids = ids[: self.max_tokens]
        self.model.check_length(len(ids))
        rows = self._measuring.prompt(ids, self._run, id=id, place=place)
        effects = effects_of_heads(self.model, [ids]).values[0] if place < self.effects else None
        return Measured(rows, is_cut, effects, self._probes() if place == 0 and self.model.writes else [])

    def _probes(self) -> list[PromptRows]:
        tokenizer, size = self.model.tokenizer, PROBE_TOKENS
        if self.model.context_length is not None:
            size = min(size, self.model.context_length // 2)
        special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        known = np.setdiff1d(np.arange(len(tokenizer)), sorted(special))
        generator = np.random.default_rng(SEED)
        texts = [generator.choice(known, size, replace=len(known) < size).tolist() for _ in range(PROBES)]
        return [
            prefix_matching(self._measuring.prompt([*text, *text], self._run, id=f"probe {number}", place=0))
            for number, text in enumerate(texts)
        ]

    def _run(self, tokens: Tensor) -> None:
        self.model.module(**self.model.adapter.inputs(tokens))

    def add(self, tally: Tally | None, found: Measured) -> Tally:
        """The tally with this text's numbers, a new one for the first text."""
        shapes = found.rows.shapes
        layers = sorted(shapes)
        tally = tally or Tally(layers, [shapes[layer] for layer in layers])
        tally.add(found.rows)
        for probe in found.probes:
            tally.add_probe(probe)
        tally.cut += found.is_cut
        if found.effects is not None:
            tally.effects[found.rows.place] = found.effects
        return tally

    def atlas(self, tally: Tally) -> Atlas:
        """The atlas of all that was counted."""
        return Atlas(self.model.name, self.kind, tally, self.settings())


def atlas_of(
    model: LanguageModel, texts: Sequence[str], *, progress: Callable[[int], None] = lambda texts: None, **options: Any
) -> Atlas:
    """`regard.atlas` of texts in memory, whose ids are their places."""
    if isinstance(texts, str) or not len(texts):
        raise RegardError("an atlas is over a list of at least one text")
    maker, tally = AtlasMaker(model, **options), None
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise RegardError(f"text {place} is empty, or no text; leave it out")
        try:
            tally = maker.add(tally, maker.measured(text, id=str(place), place=place))
        except RegardError as error:
            raise RegardError(f"text {place}: {error}") from None
        progress(1)
    assert tally is not None
    return maker.atlas(tally)
