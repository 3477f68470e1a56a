"""An answer whose sources are sought: its model, its tokens, and runs of the model with parts of the prompt removed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import RegardError
from regard.reading.answer_run import AnswerRun
from regard.reading.capture import session
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Span, Token

# log p of each token of a target that follows a source, both given as ids
Translate = Callable[[list[int], list[int]], Float[Tensor, " target"]]


@runtime_checkable
class Run(Protocol):
    """A prompt and an answer, run whole or without parts of the prompt; `passes` counts what was run."""

    passes: float

    def run(self) -> Float[Tensor, " answer"]: ...

    def without(self, spans: list[Span]) -> Float[Tensor, " answer"]: ...


@dataclass(eq=False)
class TranslationRun:
    """The same of an encoder–decoder, whose prompt is the source; every change of it is a run of its own."""

    translate: Translate
    source: list[int]
    answer: list[int]
    passes: float = 0.0

    def run(self) -> Float[Tensor, " answer"]:
        """log p of each token of the answer."""
        return self.without([])

    @torch.inference_mode()
    def without(self, spans: list[Span]) -> Float[Tensor, " answer"]:
        """The same with these positions of the source removed. Raises RegardError where none is left."""
        gone = {position for start, end in spans for position in range(start, end)}
        kept = [token for position, token in enumerate(self.source) if position not in gone]
        if not kept:
            raise RegardError("nothing of the source is left without these passages; split it into smaller ones")
        self.passes += (len(kept) + len(self.answer)) / (len(self.source) + len(self.answer))
        with session.only():
            found = self.translate(kept, self.answer).double().cpu()
        if not found.isfinite().all():
            raise RegardError("the model gives no finite probability of the answer")
        return found


@dataclass(frozen=True, eq=False)
class Asked:
    """The model, the tokens of prompt and answer with their text, and how many of them are the prompt's.

    `turns` are the characters in which passages are sought, those of the message that asks last in the list; the whole
    prompt where there are none. `ends` is how many of the last tokens only end the answer. `translate` runs an
    encoder–decoder, of which the prompt is the source; it is None for a language model.
    """

    module: Any
    tokens: Tokens
    prompt: int
    turns: Sequence[Span] = ()
    ends: int = 0
    translate: Translate | None = None

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens.tokens]

    @property
    def answer(self) -> list[int]:
        return self.ids[self.prompt : len(self.tokens.tokens) - self.ends]

    @property
    def answer_tokens(self) -> list[Token]:
        return self.tokens.tokens[self.prompt : self.prompt + len(self.answer)]

    @property
    def text(self) -> str:
        """The answer's, without what only ends it."""
        tokens = self.answer_tokens
        return self.tokens.text[tokens[0].start : tokens[-1].end]

    def run(self, answer: list[int] | None = None) -> Run:
        """A run of this answer, or of another one, after the prompt."""
        prompt, answer = self.ids[: self.prompt], self.answer if answer is None else answer
        if self.translate is not None:
            return TranslationRun(self.translate, prompt, answer)
        return AnswerRun(self.module, prompt, answer)


def passages_in(turns: Iterable[tuple[str, int, int]]) -> list[Span]:
    """The characters of turns (role, start, end) in which passages are sought: documents first, the model's own out."""
    found = [(role != "document", start, end) for role, start, end in turns if role != "assistant"]
    return [(start, end) for _, start, end in sorted(found)]


def followed_by(source: Tokens, target: Tokens) -> Tokens:
    """A source and its translation as one text: the translation on a line of its own."""
    start = len(source.text) + 1
    moved = [token._replace(start=start + token.start, end=start + token.end, words=[]) for token in target.tokens]
    kept = [token._replace(words=[]) for token in source.tokens]
    return Tokens(f"{source.text}\n{target.text}", [*kept, *moved], [])
