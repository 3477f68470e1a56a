"""A language model writes: one token after another, each the likeliest or drawn, until it ends or is stopped."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.attention.key_values import KeyValues, Queries
from regard.attention.output import AttentionMap
from regard.errors import RegardError
from regard.generation.sampling import draw, sampling_probabilities
from regard.generation.spelling import BETWEEN, NEVER_SPELT, PREFIX, Option, Prefix
from regard.generation.writing import Writing
from regard.models.gpt import GPT


@runtime_checkable
class Feed(Protocol):
    """A model that keeps what it was fed, of one batch."""

    def __call__(
        self, tokens: Int[Tensor, "row new"], padding: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row vocabulary"]:
        """Logits of the token after these; the first ones have `padding` tokens on the left of each row."""
        ...

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Continue with these rows only, each as often as it is named."""
        ...

    def attention(self) -> list[AttentionMap]:
        """The attention of each query that wrote a token, where it was recorded."""
        ...


@final
class OwnFeed:
    """Regard's own model, with room for so many tokens a row, padding counted.

    One that reads notes what writes each token of its only row.
    """

    def __init__(self, module: GPT, room: int, *, reads: bool = False) -> None:
        self._module = module
        self._room = room
        self._queries = Queries() if reads else None
        self._past: KeyValues | None = None

    def __call__(
        self, tokens: Int[Tensor, "row new"], padding: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row vocabulary"]:
        self._past = self._past or KeyValues(self._room, padding=padding, queries=self._queries)
        return self._module(tokens, self._past, last=1).logits[:, -1]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        assert self._past is not None
        self._past.select(rows)

    @torch.inference_mode()
    def attention(self) -> list[AttentionMap]:
        return [] if self._queries is None or self._past is None else self._module.attention(self._past)


# what models call the cache that they are given and return: transformers from 5.24 on and before, and its state spaces
CACHES = ("cache", "past_key_values", "cache_params")


def cache_name(module: Any) -> str:
    """What a model of transformers calls its cache of keys and values."""
    return next((name for name in CACHES if name in inspect.signature(module.forward).parameters), CACHES[1])


def cache_of(output: Any) -> Any:
    """The cache that a model returned, if any."""
    # the old name is a property now, which warns
    values = getattr(output, "__dict__", {})
    return next((values[name] for name in CACHES if values.get(name) is not None), None)


# the arguments of a run over these tokens, the first or a later one, where a model is given more than tokens
Beside = Callable[[Tensor, bool], dict[str, Any]] | None


@final
class TransformersFeed:
    """A decoder-only model of transformers; its prompts are of equal length, for not every model knows of padding."""

    def __init__(self, module: Any, beside: Beside = None) -> None:
        self._module, self._name = module, cache_name(module)
        self._cache: Any = None
        self._beside = beside or (lambda tokens, is_first: {"input_ids": tokens})

    def __call__(
        self, tokens: Int[Tensor, "row new"], padding: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row vocabulary"]:
        assert padding is None
        given = self._beside(tokens, self._cache is None)
        output = self._module(**given, use_cache=True, **{self._name: self._cache})
        self._cache = cache_of(output)
        return output.logits[:, -1]

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        self._cache.batch_select_indices(rows)

    def attention(self) -> list[AttentionMap]:
        return []


@dataclass(frozen=True)
class Written:
    """One step: of every row that goes on, the token written and the model's own log-probability of it."""

    rows: list[int]
    tokens: list[int]
    log_probabilities: list[float]


@dataclass
class _Row:
    """A text under way: what the model sees of it, how many tokens may follow, how much of its prefix is written."""

    number: int
    window: list[int]
    left: int
    state: int
    stream: np.random.Generator


@torch.inference_mode()
def write(
    feed: Feed,
    prompts: Sequence[Sequence[int]],
    writing: Writing,
    *,
    ends: frozenset[int],
    context_length: int | None,
    device: torch.device,
    first: int = 0,
    samples: int = 1,
    going_on: Callable[[int], bool] = lambda row: True,
    prefix: Prefix | None = None,
    slide: Callable[[Sequence[Sequence[int]]], Feed] | None = None,
    on_full: Callable[[], object] = lambda: None,
) -> Iterator[Written]:
    """The steps of `samples` samples of each prompt, all in one batch; the samples of a prompt are adjacent rows.

    A row ends with a token of `ends`, after `max_new_tokens`, to which those of its `prefix` do not count, or when
    `going_on` says no. Once prompt and text fill the model's `context_length`, which `on_full` hears of, `slide` feeds
    their last half to a model anew, and the text goes on from there; without `slide` it ends. `first` is the place
    among all of the first prompt.
    Raises RegardError for an empty prompt and for one that leaves no room.
    """
    _check(prompts, context_length, first, need=0 if prefix is None or slide is not None else prefix.need)
    rows = [
        _Row(
            number,
            window=list(prompts[number // samples]),
            left=writing.max_new_tokens,
            state=BETWEEN if prefix is None else prefix.start,
            stream=np.random.default_rng([writing.seed, first + number // samples, number % samples]),
        )
        for number in range(len(prompts) * samples)
    ]
    logits = _fed(feed, prompts, device)
    if samples > 1:
        each = torch.arange(len(prompts), device=device).repeat_interleave(samples)
        feed.select(each)
        logits = logits[each]
    seen = None
    if writing.repetition_penalty != 1:
        seen = torch.zeros(len(rows), logits.shape[1], dtype=torch.bool, device=device)
        for row in rows:
            seen[row.number, row.window] = True
    while True:
        # in float32 whatever the model's dtype
        logits = logits.float()
        normalisers = logits.logsumexp(-1)
        if not normalisers.isfinite().all():
            raise RegardError("the model's logits are no numbers (NaN); its weights are broken, or too large for dtype")
        room = None if slide is not None else context_length
        options = [_options(row, prefix, room) for row in rows]
        chosen = _choose(logits, writing, seen, [row.stream for row in rows], options)
        tokens = chosen.tolist()
        log_probabilities = (logits.gather(1, chosen[:, None])[:, 0] - normalisers).tolist()
        yield Written([row.number for row in rows], tokens, log_probabilities)
        for row, token, found in zip(rows, tokens, options, strict=True):
            row.window.append(token)
            row.left -= found is None
            row.state = BETWEEN if found is None else found[token].state
        kept = [
            place
            for place, (row, token) in enumerate(zip(rows, tokens, strict=True))
            if token not in ends and row.left > 0 and going_on(row.number)
        ]
        full = [place for place in kept if context_length is not None and len(rows[place].window) >= context_length]
        if full:
            assert context_length is not None
            on_full()
            for place in full:
                del rows[place].window[: -half_of(context_length)]
            if slide is None:
                kept = [place for place in kept if place not in full]
        if not kept:
            return
        if seen is not None:
            seen[torch.arange(len(rows)), chosen] = True
        if len(kept) < len(rows):
            rows, index = [rows[place] for place in kept], torch.tensor(kept, device=device)
            chosen, seen = chosen[index], None if seen is None else seen[index]
            if not (full and slide):
                feed.select(index)
        if full and slide:
            windows = [row.window for row in rows]
            feed = slide(windows)
            logits = _fed(feed, windows, device)
        else:
            logits = feed(chosen[:, None], None)


def half_of(context_length: int) -> int:
    """How many tokens of a context that is full stay in it."""
    return max(1, context_length // 2)


def _fed(feed: Feed, texts: Sequence[Sequence[int]], device: torch.device) -> Float[Tensor, "row vocabulary"]:
    """The logits after these texts, the first that the model is fed."""
    lengths = torch.tensor([len(text) for text in texts])
    longest = int(lengths.max())
    padding = (longest - lengths).to(device)
    tokens = torch.tensor([[0] * (longest - len(text)) + list(text) for text in texts], device=device)
    return feed(tokens, padding if padding.any() else None)


def _options(row: _Row, prefix: Prefix | None, room: int | None) -> dict[int, Option] | None:
    """The tokens that may follow, where a prefix does not leave all of them open."""
    if prefix is None or row.state < PREFIX:
        return None
    most = NEVER_SPELT if room is None else room - len(row.window)
    return {each.token: each for each in prefix.options(row.state) if each.need < most}


def _check(prompts: Sequence[Sequence[int]], context_length: int | None, first: int, *, need: int) -> None:
    for number, prompt in enumerate(prompts, start=first + 1):
        if not prompt:
            raise RegardError(f"prompt {number} is empty; give it at least one token")
        length = len(prompt) + max(0, need - 1)
        if context_length is not None and length >= context_length:
            told = f"{len(prompt)} tokens" + f", its prefix {need}" * (need > 0)
            raise RegardError(
                f"prompt {number} has {told}, and the model takes {context_length}, what it writes "
                f"included; shorten it by {length - context_length + 1} at least"
            )


def _choose(
    logits: Float[Tensor, "row vocabulary"],
    writing: Writing,
    seen: Bool[Tensor, "row vocabulary"] | None,
    streams: Sequence[np.random.Generator],
    options: Sequence[Collection[int] | None],
) -> Int[Tensor, " row"]:
    if seen is not None:
        penalty = writing.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    for row, found in enumerate(options):
        if found is not None:
            logits = logits.index_copy(0, torch.tensor([row], device=logits.device), _only(logits[row], found)[None])
    if writing.temperature == 0:
        return logits.argmax(-1)
    uniforms = torch.tensor([stream.random() for stream in streams], dtype=torch.float64, device=logits.device)
    return draw(sampling_probabilities(logits.log_softmax(-1), writing), uniforms)


def _only(logits: Float[Tensor, " vocabulary"], tokens: Collection[int]) -> Float[Tensor, " vocabulary"]:
    index = torch.tensor([*tokens], device=logits.device)
    return torch.full_like(logits, -torch.inf).index_copy(0, index, logits[index])
