"""A language model writes: one token after another, each the likeliest or drawn, until it ends or is stopped."""

import inspect
from collections.abc import Callable, Iterator, Sequence
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


@final
class TransformersFeed:
    """A decoder-only model of transformers; its prompts are of equal length, for not every model knows of padding."""

    def __init__(self, module: Any) -> None:
        self._module, self._name = module, cache_name(module)
        self._cache: Any = None

    def __call__(
        self, tokens: Int[Tensor, "row new"], padding: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row vocabulary"]:
        assert padding is None
        output = self._module(input_ids=tokens, use_cache=True, **{self._name: self._cache})
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
) -> Iterator[Written]:
    """The steps of `samples` samples of each prompt, all in one batch; the samples of a prompt are adjacent rows.

    A row ends with a token of `ends`, at the model's `context_length`, or when `going_on` says no. `first` is the place
    among all of the first prompt. Raises RegardError for an empty prompt and for one that leaves no room.
    """
    _check(prompts, context_length, first)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    padding = (longest - lengths).to(device)
    logits = feed(
        torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device),
        padding if padding.any() else None,
    )
    if samples > 1:
        each = torch.arange(len(prompts), device=device).repeat_interleave(samples)
        feed.select(each)
        logits = logits[each]
    rows = list(range(len(prompts) * samples))
    room = [len(prompts[row // samples]) for row in rows]
    room = [writing.max_new_tokens if context_length is None else context_length - length for length in room]
    seen = None
    if writing.repetition_penalty != 1:
        seen = torch.zeros(len(rows), logits.shape[1], dtype=torch.bool, device=device)
        for row in rows:
            seen[row, list(prompts[row // samples])] = True
    streams = [np.random.default_rng([writing.seed, first + row // samples, row % samples]) for row in rows]
    step = 0
    while True:
        # in float32 whatever the model's dtype
        logits = logits.float()
        normalisers = logits.logsumexp(-1)
        if not normalisers.isfinite().all():
            raise RegardError("the model's logits are no numbers (NaN); its weights are broken, or too large for dtype")
        chosen = _choose(logits, writing, seen, [streams[row] for row in rows])
        tokens = chosen.tolist()
        yield Written(rows, tokens, (logits.gather(1, chosen[:, None])[:, 0] - normalisers).tolist())
        step += 1
        goes_on = [
            token not in ends and step < min(writing.max_new_tokens, room[row]) and going_on(row)
            for row, token in zip(rows, tokens, strict=True)
        ]
        if not any(goes_on):
            return
        if seen is not None:
            seen[torch.arange(len(rows)), chosen] = True
        if not all(goes_on):
            kept = torch.tensor(goes_on, device=device).nonzero()[:, 0]
            feed.select(kept)
            chosen = chosen[kept]
            seen = None if seen is None else seen[kept]
            rows = [row for row, keeps in zip(rows, goes_on, strict=True) if keeps]
        logits = feed(chosen[:, None], None)


def _check(prompts: Sequence[Sequence[int]], context_length: int | None, first: int) -> None:
    for number, prompt in enumerate(prompts, start=first + 1):
        if not prompt:
            raise RegardError(f"prompt {number} is empty; give it at least one token")
        if context_length is not None and len(prompt) >= context_length:
            raise RegardError(
                f"prompt {number} has {len(prompt)} tokens, and the model takes {context_length}, what it writes "
                f"included; shorten it by {len(prompt) - context_length + 1} at least"
            )


def _choose(
    logits: Float[Tensor, "row vocabulary"],
    writing: Writing,
    seen: Bool[Tensor, "row vocabulary"] | None,
    streams: Sequence[np.random.Generator],
) -> Int[Tensor, " row"]:
    if seen is not None:
        penalty = writing.repetition_penalty
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if writing.temperature == 0:
        return logits.argmax(-1)
    uniforms = torch.tensor([stream.random() for stream in streams], dtype=torch.float64, device=logits.device)
    return draw(sampling_probabilities(logits.log_softmax(-1), writing), uniforms)
