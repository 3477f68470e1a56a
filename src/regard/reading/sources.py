"""Which passages of its prompt an answer rests on: ranked from one run and its gradient, confirmed by removing them.

The estimate of a passage is the first-order effect of hiding it from all else, and what heads that copy look at. The
mean of all heads seldom finds the passage; what counts is the answer without it, as in ContextCite
(Cohen-Wang et al. 2024, "ContextCite: attributing model generation to context"), which learns it from dozens of runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from regard.config import from_dict, setting
from regard.errors import RegardError
from regard.reading.answer_run import FOREIGN, AnswerRun
from regard.reading.asked import Asked, Run
from regard.reading.copying import copied, copying_heads
from regard.reading.passages import Grain, passages_of, positions, question_in
from regard.reading.probe import Probe, fitting
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Span, Token
from regard.reading.segments import sentences
from regard.reading.source_record import Sentence, Source, Sources, Verdict, numbered

# passages that are removed in truth, the strongest by estimate
CONFIRMED = 3
# nats that the answer's likeliest loss must reach for an answer to rest on a passage
RESTS = 1.0
# passages that are removed at most, one after another, while the answer rests on each, and the passes over prompt and
# answer that all of it may cost then
MOST_CONFIRMED, MOST_PASSES = 10, 6.0


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How the sources of an answer are sought.

    Parameters
    ----------
    grain
        How the prompt is split: sentences, paragraphs, turns, documents or words; in Python also a function from a text
        to the characters at which its parts begin, or the parts themselves as pairs of characters of the whole text.
    question
        The part of the prompt that asks, which is no passage; by default what ends in a question mark, or the last
        paragraph.
    within
        The part of the prompt in which passages are sought, as its text: the sentences of one paragraph, the words of
        one sentence; in Python also a pair of characters.
    of
        The part of the answer that is judged, as its text; in Python also a pair of tokens of the answer.
    confirm
        How many passages, the strongest by estimate, are removed to see their true effect, alone and together: fewer
        where no more can be named, more while the answer rests on each and all of it costs less than six passes.
    """

    grain: Grain = "sentences"
    question: str | None = None
    within: str | Span | None = None
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

    `progress` is called with 1 after each step: the estimates of all passages, then each removal.
    Raises RegardError for options that make no sense, and where the model is no causal language model.
    """
    if asked.module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    if not asked.answer:
        raise RegardError("the answer is empty; there is nothing that could rest on a passage")
    if contrast is not None and not contrast:
        raise RegardError("the contrast is empty; give another answer")
    text = asked.tokens.text
    turns = list(asked.turns) or [(0, asked.tokens.tokens[asked.prompt - 1].end)]
    asks = _question(asked, options.question, turns)
    places = passages_of(text, _within(text, options.within, turns), options.grain, asks)
    spans = positions(asked.tokens, places, asked.prompt)
    if spans == [(0, asked.prompt)]:
        whole, remedy = ("prompt", ", or ask a question") if asked.translate is None else ("source", ": by words")
        raise RegardError(f"the {whole} is one passage and nothing else; split it more finely{remedy}")
    parts = [*spans, *([] if asks is None else positions(asked.tokens, [asks], asked.prompt))]
    chosen = chosen_tokens(asked.tokens, asked.answer_tokens, options.of)
    last = spans[-1][1]
    first = _estimated(asked, asked.answer, parts, chosen, last)
    compared = [(first, chosen, 1.0)]
    if contrast is not None:
        compared.append((_estimated(asked, list(contrast), parts, slice(None), last), slice(None), -1.0))
    progress(1)

    def removed(*gone: Span) -> tuple[float, np.ndarray]:
        """The change of what is judged, and of each token of the answer."""
        changes = [each.run.without(sorted(gone)).cpu().numpy() - each.log_probabilities for each, _, _ in compared]
        progress(1)
        judged = zip(changes, compared, strict=True)
        return sum(sign * float(change[where].sum()) for change, (_, where, sign) in judged), changes[0]

    def together(numbers: Sequence[int]) -> _Change | None:
        """What removing several at once does; None where nothing of the prompt would be left."""
        group = [spans[number] for number in numbers]
        return removed(*group) if sum(end - start for start, end in group) < asked.prompt else None

    def cost(number: int) -> float:
        """Passes over prompt and answer once this passage has been removed too."""
        return sum(each.run.passes for each, *_ in compared) / len(compared) + 1 - spans[number][0] / asked.prompt

    if first.estimates is None:
        effects = {number: removed(span) for number, span in enumerate(parts)}
        by_part = [effects[number][0] for number in range(len(parts))]
        confirmed = _of_all(effects, by_part[: len(spans)], together, options.confirm)
    else:
        by_part = list(first.estimates)
        if contrast is not None:
            by_part = [one - other for one, other in zip(by_part, compared[1][0].estimates or (), strict=True)]
        alone = by_part[: len(spans)]
        confirmed = confirm_strongest(alone, lambda number: removed(spans[number]), together, cost, options.confirm)
    whole, by_answer_token = confirmed.together or (None, None)

    def source(number: int, place: Span) -> Source:
        effect, by_token = confirmed.effects.get(number, (None, None))
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
    found = [replace(each, share=max(0.0, -each.strength) / total) for each in found]
    strengths = [each.effect for each in found]
    is_whole = contrast is None and options.of is None
    return Sources(
        answer=asked.text.strip(),
        sources=tuple(found),
        question=None if asks is None else source(len(spans), asks),
        log_probability=float(first.log_probabilities[chosen].sum()),
        together=whole,
        verdict=_verdict(strengths, whole, tried=confirmed.tried, has_question=asks is not None),
        sentences=_by_sentence(asked, found, by_answer_token, tried=confirmed.tried, asks=asks) if is_whole else (),
        method=first.method,
        why=first.why,
        passes=sum(each.run.passes for each, *_ in compared),
        asked=asked,
        judged=chosen,
    )


# the change of what is judged, and of each token of the answer
_Change = tuple[float, np.ndarray]


@dataclass(frozen=True, eq=False)
class Confirmed:
    """What removing passages does, by number, and what removing the `tried` strongest at once does, if that was asked.

    Two may say the same, each enough without the other.
    """

    effects: dict[int, _Change]
    tried: int = 0
    together: _Change | None = None


def confirm_strongest(
    estimates: Sequence[float],
    removed: Callable[[int], _Change],
    together: Callable[[Sequence[int]], _Change | None],
    cost: Callable[[int], float],
    confirm: int,
) -> Confirmed:
    """Remove the strongest until no more can be named; all at once where the first cannot be."""
    order = sorted(range(len(estimates)), key=lambda number: estimates[number])
    effects: dict[int, _Change] = {}
    is_found, last, group = False, 0.0, None
    for number in order[: max(confirm, MOST_CONFIRMED)]:
        if len(effects) >= confirm and not _rests(last):
            break
        # what is next could hardly be named, or costs too much
        if is_found and (not _rests(estimates[number]) or cost(number) > MOST_PASSES):
            break
        if len(effects) == 1 and not is_found:
            group = together(order[:confirm])
            if group is not None and not _rests(group[0]):
                break
        effects[number] = removed(number)
        last = effects[number][0]
        is_found = is_found or _rests(last)
    return Confirmed(effects) if is_found or group is None else Confirmed(effects, len(order[:confirm]), group)


def _of_all(
    effects: dict[int, _Change],
    by_passage: Sequence[float],
    together: Callable[[Sequence[int]], _Change | None],
    confirm: int,
) -> Confirmed:
    """The same where every passage has been removed."""
    order = sorted(range(len(by_passage)), key=lambda number: by_passage[number])[:confirm]
    group = None if len(order) < 2 or _rests(min(by_passage)) else together(order)
    return Confirmed(effects) if group is None else Confirmed(effects, len(order), group)


@dataclass(frozen=True, eq=False)
class _Estimated:
    """The first run, log p of the answer's tokens, and each part's estimate; None where parts are removed instead."""

    run: Run
    log_probabilities: np.ndarray
    estimates: list[float] | None
    method: str
    why: str = ""


@torch.inference_mode(False)
def _estimated(asked: Asked, answer: list[int], parts: list[Span], chosen: slice, last: int) -> _Estimated:
    """Gradients go back to the first passage, but in a long prompt no further than where the last ends, at `last`."""
    run = asked.run(answer)
    if not isinstance(run, AnswerRun):
        return _Estimated(run, run.run().numpy(), None, "removal")
    passages = torch.full((len(run.fed),), -1)
    for number, (start, stop) in enumerate(parts):
        passages[start:stop] = number
    queries, heads = range(asked.prompt - 1, len(run.fed))[chosen], copying_heads(asked.module)
    why, found, probe = "", None, None
    try:
        # what comes before looks at no passage but its own
        begin = min(end for _, end in parts)
        if len(run.fed) - begin > (most := fitting(asked.module)):
            begin = max(last, len(run.fed) - most // 2)
        begun = run.begin(begin)
        probe = Probe(asked.module, passages, queries, begun=begun, heads=heads)
        with probe.open():
            found = run.run()
            torch.autograd.backward(found[chosen].sum())
            run.passes += (2 + probe.recomputes) * (len(run.fed) - begun) / len(run.fed)
    except (RegardError, *FOREIGN) as error:
        why = f"gradients fail: {type(error).__name__}: {error}"
    refused = {} if probe is None else probe.refused
    why = why or next((f"{path}: {told}" for path, told in refused.items()), "")
    if probe is not None and not why and not probe.effects.isfinite().all():
        why = "its gradients are no numbers (NaN)"
    if why or found is None or probe is None:
        probe = Probe(asked.module, passages, queries, heads=heads)
        with torch.inference_mode(), probe.watched():
            found = run.run()
        if not probe.rows:
            raise RegardError(f"its attention cannot be read: {next(iter(probe.refused.values()), why)}")
        return _Estimated(run, found.cpu().numpy(), copied(probe).tolist(), "heads", why)
    effects = zip(parts, copied(probe).tolist(), strict=True)
    estimates = [float(probe.effects[slice(*part)].sum()) + copies for part, copies in effects]
    return _Estimated(run, found.detach().cpu().numpy(), estimates, "gradient")


def _question(asked: Asked, question: str | None, turns: Sequence[Span]) -> Span | None:
    """The characters of what asks: as given, or as found in the last turn; a translation's source asks nothing."""
    text = asked.tokens.text
    if question is not None:
        start = text.rfind(question, min(turns)[0], max(turns)[1])
        if not question.strip() or start < 0:
            raise RegardError(f"the prompt does not have the question {question!r}")
        return start, start + len(question)
    if asked.translate is not None:
        return None
    # what asks of other messages may be a message by itself
    return question_in(text, *turns[-1]) or (turns[-1] if len(turns) > 1 else None)


def _within(text: str, within: str | Span | None, turns: Sequence[Span]) -> list[Span]:
    """The parts of the turns in which passages are sought."""
    if within is None:
        return list(turns)
    if isinstance(within, str):
        whole = text[: max(turns)[1]]
        count = whole.count(within) if within.strip() else 0
        if count != 1:
            how_often = f"has {within!r} {count} times; give its characters as a pair, or more of it"
            none = f"does not have {within!r}, in which passages are to be sought; copy it from the prompt"
            raise RegardError(f"the prompt {how_often if count else none}")
        within = (whole.index(within), whole.index(within) + len(within))
    parts = [(max(start, within[0]), min(end, within[1])) for start, end in turns]
    if not (found := [(start, end) for start, end in parts if start < end]):
        raise RegardError(f"within={within} has nothing of the prompt, which has the characters {list(turns)}")
    return found


def chosen_tokens(text: Tokens, tokens: Sequence[Token], of: str | Span | None) -> slice:
    """Which tokens of an answer, whose tokens in a text these are, are judged. Raises RegardError for others."""
    if of is None:
        return slice(None)
    if not isinstance(of, str):
        start, end = of
        if not 0 <= start < end <= len(tokens):
            raise RegardError(f"of is a pair of tokens of the answer, which has {len(tokens)}, not {of!r}")
        return slice(start, end)
    at = text.text.find(of, tokens[0].start) if of.strip() else -1
    inside = [number for number, token in enumerate(tokens) if token.start < at + len(of) and at < token.end]
    if at < 0 or not inside:
        raise RegardError(f"the answer does not have {of!r}")
    return slice(inside[0], inside[-1] + 1)


def _by_sentence(
    asked: Asked, found: Sequence[Source], together: np.ndarray | None, *, tried: int, asks: Span | None
) -> tuple[Sentence, ...]:
    """What each sentence of the answer rests on, by its own tokens; nothing where there is one sentence."""
    tokens, whole = asked.answer_tokens, asked.text
    offset = tokens[0].start + len(whole) - len(whole.lstrip())
    text = whole.strip()
    parts = []
    for start, end in pairwise([*sentences(text), len(text)]):
        inside = [number for number, token in enumerate(tokens) if start <= max(token.start - offset, 0) < end]
        if not inside:
            continue
        where = slice(inside[0], inside[-1] + 1)
        effects = [None if each.token_effects is None else sum(each.token_effects[where]) for each in found]
        both = None if together is None else float(together[where].sum())
        verdict = _verdict(effects, both, tried=tried, has_question=asks is not None)
        parts.append(Sentence(text[start:end].strip(), start, start + len(text[start:end].rstrip()), verdict))
    return tuple(parts) if len(parts) > 1 else ()


def _verdict(effects: Sequence[float | None], together: float | None, *, tried: int, has_question: bool) -> Verdict:
    """What the confirmed effects of sources say, and that of removing so many of them together."""
    on = tuple(number for number, effect in enumerate(effects) if _rests(effect))
    if on:
        return Verdict(on, False, f"rests on {_numbered(on, 'and')}")
    # where more is missing, an answer that rests on none of it also loses more
    if together is not None and together <= -RESTS * tried:
        return Verdict((0, 1), True, f"rests on {_numbered((0, 1), 'or')}")
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
    names = list(map(numbered, numbers))
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
