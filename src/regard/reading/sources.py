"""Which passages of its prompt an answer rests on: ranked from one run and its gradient, confirmed by removing them.

The estimate of a passage is the first-order effect of hiding it from all else, and what heads that copy look at. The
mean of all heads seldom finds the passage; what counts is the answer without it, as in ContextCite
(Cohen-Wang et al. 2024, "ContextCite: attributing model generation to context"), which learns it from dozens of runs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final, overload

import numpy as np
import torch

from regard.config import from_dict, setting
from regard.errors import RegardError
from regard.reading.answer_run import FOREIGN, AnswerRun
from regard.reading.copying import copied
from regard.reading.passages import Grain, passages_of, positions, question_in
from regard.reading.probe import Probe
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Span

# passages that are removed in truth, the strongest by estimate
CONFIRMED = 3
# nats that the answer's likeliest loss must reach for an answer to rest on a passage
RESTS = 1.0
NUMBERS = "①②③④⑤⑥⑦⑧⑨⑩"


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
@dataclass(frozen=True, eq=False)
class Sources(Sequence[Source]):
    """The passages of a prompt, strongest first, with a verdict. `question` is what the prompt asks, judged alike.

    `log_probability` is the answer's, `together` what removing all confirmed passages at once does, None where one of
    them alone is enough. `method` is "gradient" or, where a model gives none, "heads", with the reason in `why`: then
    estimates are those of heads that copy alone. `passes` is the cost in runs over prompt and answer, a backward pass
    counted as two.
    """

    answer: str
    sources: tuple[Source, ...]
    question: Source | None
    log_probability: float
    together: float | None
    verdict: Verdict
    method: str = "gradient"
    why: str = ""
    passes: float = 0.0
    token_estimates: tuple[float, ...] = field(default=(), repr=False)

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

    def to_json(self) -> dict[str, Any]:
        """As plain data."""

        def plain(source: Source) -> dict[str, Any]:
            names = ("text", "start", "end", "estimate", "effect", "share")
            by_token = source.token_effects and list(source.token_effects)
            return {**{name: getattr(source, name) for name in names}, "token_effects": by_token}

        return {
            "answer": self.answer,
            "verdict": {"text": self.verdict.text, "on": list(self.verdict.on), "either": self.verdict.either},
            "log_probability": self.log_probability,
            "together": self.together,
            "method": self.method,
            "why": self.why,
            "passes": round(self.passes, 2),
            "question": None if self.question is None else plain(self.question),
            "sources": [plain(source) for source in self.sources],
        }


@dataclass(frozen=True, eq=False)
class Asked:
    """An answer whose sources are sought: the model, all tokens with their text, how many of them are the prompt's.

    `turns` are the characters of the prompt that are a user's, all of them where there are none; `ends` is how many of
    the last tokens only end the answer.
    """

    module: Any
    tokens: Tokens
    prompt: int
    turns: Sequence[Span] = ()
    ends: int = 0

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens.tokens]

    @property
    def answer(self) -> list[int]:
        return self.ids[self.prompt : len(self.tokens.tokens) - self.ends]

    @property
    def text(self) -> str:
        """The answer's, without what only ends it."""
        first, last = self.prompt, self.prompt + len(self.answer) - 1
        return self.tokens.text[self.tokens.tokens[first].start : self.tokens.tokens[last].end]


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How the sources of an answer are sought.

    Parameters
    ----------
    grain
        How the prompt is split: sentences, paragraphs, turns or documents; in Python also a function from a text to the
        characters at which its parts begin, or the parts themselves as pairs of characters of the whole text.
    question
        The part of the prompt that asks, which is no passage; by default what ends in a question mark, or the last
        paragraph.
    of
        The part of the answer that is judged, as its text; in Python also a pair of tokens of the answer.
    confirm
        How many passages, the strongest by estimate, are removed to see their true effect: fewer where the next could
        not be named, more while the answer rests on each.
    """

    grain: Grain = "sentences"
    question: str | None = None
    of: str | Span | None = None
    confirm: int = setting(CONFIRMED, least=1)

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> "SourceOptions":
        """Raises RegardError for an unknown option and for a value that makes no sense."""
        return from_dict(cls, {**vars(cls()), **settings}, where="sources:")


def find_sources(
    asked: Asked,
    options: SourceOptions,
    *,
    contrast: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Sources:
    """The sources of an answer, or of why it is that one and not `contrast`.

    `progress` hears of steps as they are done: the estimates of all passages, then each that is removed.
    Raises RegardError for options that make no sense, and where the model is no causal language model.
    """
    grain, question, of, confirm = options.grain, options.question, options.of, options.confirm
    if asked.module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    if not asked.answer:
        raise RegardError("the answer is empty; there is nothing that could rest on a passage")
    text = asked.tokens.text
    end = asked.tokens.tokens[asked.prompt - 1].end
    within = list(asked.turns) or [(0, end)]
    # what asks of other messages may be a message by itself
    asks = _given_question(text, question, within) or question_in(text, *within[-1])
    asks = asks or (within[-1] if len(within) > 1 else None)
    places = passages_of(text, within, grain, asks)
    spans = positions(asked.tokens, places, asked.prompt)
    parts = [*spans, *([] if asks is None else positions(asked.tokens, [asks], asked.prompt))]
    chosen = _chosen(asked, of)
    first, estimates, method, why = _estimated(asked, asked.answer, parts, chosen)
    base = first.log_probabilities
    runs = [(first.run, base, chosen, 1.0)]
    if contrast is not None:
        if not contrast:
            raise RegardError("the contrast is empty; give another answer")
        other, others, *_ = _estimated(asked, list(contrast), parts, slice(None))
        estimates = estimates[: asked.prompt] - others[: asked.prompt]
        runs.append((other.run, other.log_probabilities, slice(None), -1.0))

    progress(1)

    def removed(*gone: Span) -> tuple[float, np.ndarray]:
        changes = [(run.without(sorted(gone)).cpu().numpy() - before, where, sign) for run, before, where, sign in runs]
        progress(1)
        return sum(sign * float(change[where].sum()) for change, where, sign in changes), changes[0][0]

    by_part = [float(estimates[start:stop].sum()) for start, stop in parts]
    order = sorted(range(len(spans)), key=lambda number: by_part[number])
    if len(spans) == 1 and asks is None and spans[0] == (0, asked.prompt):
        raise RegardError("the prompt is one passage and nothing else; split it more finely, or ask a question")
    effects: dict[int, tuple[float, np.ndarray]] = {}
    last = None
    for number in order[: max(confirm, len(NUMBERS))]:
        is_found = any(_rests(effect) for effect, _ in effects.values())
        # what is next could not be named, or the one before was not
        if (is_found and not _rests(2 * by_part[number])) or (len(effects) >= confirm and not _rests(last)):
            break
        effects[number] = removed(spans[number])
        last = effects[number][0]
    is_found = any(_rests(effect) for effect, _ in effects.values())
    # two may say the same, each enough without the other
    together = None if is_found or len(effects) < 2 else removed(*(spans[number] for number in effects))[0]

    def source(number: int, place: Span) -> Source:
        effect, by_token = effects.get(number, (None, None))
        return Source(
            text=text[slice(*place)],
            start=place[0],
            end=place[1],
            estimate=by_part[number],
            effect=effect,
            token_effects=None if by_token is None else tuple(float(each) for each in by_token),
            positions=parts[number],
        )

    # what is confirmed comes before what is not
    found = sorted(
        (source(number, place) for number, place in enumerate(places)),
        key=lambda each: (each.effect is None, each.strength),
    )
    total = sum(max(0.0, -each.strength) for each in found) or 1.0
    found = [_with_share(each, max(0.0, -each.strength) / total) for each in found]
    return Sources(
        answer=asked.text.strip(),
        sources=tuple(found),
        question=None if asks is None else source(len(spans), asks),
        log_probability=float(base[chosen].sum()),
        together=together,
        verdict=_verdict(found, together, has_question=asks is not None),
        method=method,
        why=why,
        passes=sum(run.passes for run, *_ in runs),
        token_estimates=tuple(float(each) for each in estimates),
    )


def _with_share(source: Source, share: float) -> Source:
    return Source(**{**vars(source), "share": share})


@dataclass(frozen=True, eq=False)
class _First:
    run: AnswerRun
    log_probabilities: np.ndarray


@torch.inference_mode(False)
def _estimated(
    asked: Asked, answer: list[int], parts: list[Span], chosen: slice
) -> tuple[_First, np.ndarray, str, str]:
    """The first run, each position's estimate, how it was made, and why not otherwise."""
    run = AnswerRun(asked.module, asked.ids[: asked.prompt], answer)
    passages = torch.full((len(run.fed),), -1)
    for number, (start, stop) in enumerate(parts):
        passages[start:stop] = number
    queries = range(asked.prompt - 1, len(run.fed))[chosen]
    probe = Probe(asked.module, passages, queries)
    why, found = "", None
    try:
        with probe.open():
            found = run.run()
            torch.autograd.backward(found[chosen].sum())
            run.passes += 2 + probe.recomputes
    except (RegardError, *FOREIGN) as error:
        why = f"gradients fail: {type(error).__name__}: {error}"
    why = why or next((f"{path}: {told}" for path, told in probe.refused.items()), "")
    if not why and not probe.effects.isfinite().all():
        why = "its gradients are no numbers (NaN)"
    if why or found is None:
        probe = Probe(asked.module, passages, queries)
        with torch.inference_mode(), probe.watched():
            found = run.run()
        if not probe.rows:
            raise RegardError(f"its attention cannot be read: {next(iter(probe.refused.values()), why)}")
        return _First(run, found.cpu().numpy()), copied(asked.module, probe), "heads", why
    estimates = probe.effects.numpy() + copied(asked.module, probe)
    return _First(run, found.detach().cpu().numpy()), estimates, "gradient", ""


def _given_question(text: str, question: str | None, within: Sequence[Span]) -> Span | None:
    if question is None:
        return None
    start = text.rfind(question, within[0][0], within[-1][1])
    if not question.strip() or start < 0:
        raise RegardError(f"the prompt does not have the question {question!r}")
    return start, start + len(question)


def _chosen(asked: Asked, of: str | Span | None) -> slice:
    """Which tokens of the answer are judged."""
    if of is None:
        return slice(None)
    tokens = asked.tokens.tokens[asked.prompt :]
    if not isinstance(of, str):
        start, end = of
        if not 0 <= start < end <= len(asked.answer):
            raise RegardError(f"of is a pair of tokens of the answer, which has {len(asked.answer)}, not {of!r}")
        return slice(start, end)
    at = asked.tokens.text.find(of, tokens[0].start) if of.strip() else -1
    if at < 0:
        raise RegardError(f"the answer does not have {of!r}")
    inside = [number for number, token in enumerate(tokens) if token.start < at + len(of) and at < token.end]
    return slice(inside[0], min(inside[-1] + 1, len(asked.answer)))


def _verdict(found: Sequence[Source], together: float | None, *, has_question: bool) -> Verdict:
    """What the confirmed effects say."""
    tried = [number for number, each in enumerate(found) if each.effect is not None]
    on = tuple(number for number in tried if _rests(found[number].effect))
    if on:
        return Verdict(on, False, f"rests on {_numbered(on, 'and')}")
    # where more is missing, an answer that rests on none of it also loses more
    if together is not None and together <= -RESTS * len(tried):
        both = tuple(tried[:2])
        return Verdict(both, True, f"rests on {_numbered(both, 'or')}")
    return Verdict(
        (),
        False,
        "rests on no passage: on the question, or on what the model knows"
        if has_question
        else "rests on no passage: on what the model knows",
    )


def _rests(effect: float | None) -> bool:
    return effect is not None and effect <= -RESTS


def _numbered(numbers: Sequence[int], word: str) -> str:
    names = [NUMBERS[number] if number < len(NUMBERS) else f"({number + 1})" for number in numbers]
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
