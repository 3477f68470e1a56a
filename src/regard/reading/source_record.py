"""The sources of an answer: its passages with what they did to it, and the verdict."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final, overload

from regard.errors import RegardError
from regard.reading.asked import Asked
from regard.reading.record import Span
from regard.reading.source_curves import RemovalCurves, removal_curves

# random orders of the passages beside the ranking's, in curves
ORDERS = 4


def numbered(number: int) -> str:
    """How a source is called, by its place from 0: ① to ⑳, then (21)."""
    return chr(ord("①") + number) if number < 20 else f"({number + 1})"


@final
@dataclass(frozen=True)
class Source:
    """A passage: characters `start` to `end` of the text, and what it did to the answer's log-probability, in nats.

    Below 0 the passage made the answer likelier. `estimate` is of first order; `effect` is what removing it does in
    truth, `token_effects` to each token of the answer, both None where that was not tried. `share` is its part of what
    all passages that made the answer likelier did. `positions` are its tokens.
    """

    text: str
    start: int
    end: int
    estimate: float
    effect: float | None = None
    token_effects: tuple[float, ...] | None = None
    share: float = 0.0
    positions: Span = (0, 0)

    @property
    def strength(self) -> float:
        """The effect where it is known, else the estimate."""
        return self.estimate if self.effect is None else self.effect


@final
@dataclass(frozen=True)
class Verdict:
    """What an answer rests on: the numbers of sources, counted from 0, each confirmed.

    With `either` each of them is enough, so that only all of them removed change the answer. `text` says it.
    """

    on: tuple[int, ...]
    either: bool
    text: str

    def __str__(self) -> str:
        return self.text


@final
@dataclass(frozen=True)
class Sentence:
    """A sentence of the answer, from character `start` to `end` of it, with its own verdict."""

    text: str
    start: int
    end: int
    verdict: Verdict


@final
@dataclass(frozen=True, eq=False)
class Sources(Sequence[Source]):
    """The passages of a prompt, strongest first, with a verdict. `question` is what the prompt asks, judged alike.

    `log_probability` is the answer's; `together` is what removing all confirmed passages at once does, None where one
    of them alone is enough or nothing of the prompt would be left. Where the answer has several sentences, `sentences`
    has a verdict for each, which counts the tokens of that sentence alone.
    `method` is "gradient"; "heads" where a model gives no gradient, for the reason in `why`: then estimates are those
    of heads that copy alone; or "removal" for an encoder–decoder, whose passages are all confirmed.
    `passes` is the cost in runs over prompt and answer, a backward pass counted as two.
    """

    answer: str
    sources: tuple[Source, ...]
    question: Source | None
    log_probability: float
    together: float | None
    verdict: Verdict
    sentences: tuple[Sentence, ...] = ()
    method: str = "gradient"
    why: str = ""
    passes: float = 0.0
    # the model with the answer, and the tokens of it that are judged: what curves need
    asked: Asked | None = field(default=None, repr=False)
    judged: slice = field(default_factory=lambda: slice(None), repr=False)

    def __repr__(self) -> str:
        return f"<Sources of {self.answer!r}: {self.verdict}>"

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | Sequence[Source]:
        return self.sources[index]

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources)

    def curves(self, *, orders: int = ORDERS, progress: Callable[[int], None] = lambda runs: None) -> RemovalCurves:
        """Deletion and insertion curves of this ranking, beside those of `orders` random orders of the passages.

        `progress` is called with 1 after each run; there are at most 20 for each order.
        Raises RegardError where the model is not at hand.
        """
        if self.asked is None:
            raise RegardError("curves run the model again, and it is not at hand: take the sources that it returned")
        if orders < 1:
            raise RegardError(f"orders must be at least 1, not {orders}")
        spans = [source.positions for source in self.sources]
        return removal_curves(
            self.asked.run(),
            spans,
            chosen=self.judged,
            leaves_some=sum(end - start for start, end in spans) < self.asked.prompt,
            orders=orders,
            progress=progress,
        )

    def __getstate__(self) -> dict[str, Any]:
        # a copy on disk or in another process has no model
        return {**self.__dict__, "asked": None}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""

        def verdict(found: Verdict) -> dict[str, Any]:
            return {"text": found.text, "on": list(found.on), "either": found.either}

        def plain(source: Source) -> dict[str, Any]:
            names = ("text", "start", "end", "estimate", "effect", "share")
            by_token = source.token_effects and list(source.token_effects)
            return {**{name: getattr(source, name) for name in names}, "token_effects": by_token}

        return {
            "answer": self.answer,
            "verdict": verdict(self.verdict),
            "sentences": [{**vars(each), "verdict": verdict(each.verdict)} for each in self.sentences],
            "log_probability": self.log_probability,
            "together": self.together,
            "method": self.method,
            "why": self.why,
            "passes": round(self.passes, 2),
            "question": None if self.question is None else plain(self.question),
            "sources": [plain(source) for source in self.sources],
        }
