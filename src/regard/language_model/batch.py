"""A language model continues prompts, as text."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from regard.generation.result import Generation
from regard.generation.spelling import Prefix
from regard.generation.steps import Beside, half_of, write
from regard.generation.streaming import TextStream
from regard.generation.writing import Writing
from regard.language_model.pieces import prefix_of

logger = logging.getLogger("regard")

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


def write_all(
    model: "LanguageModel",
    prompts: list[list[int]],
    writing: Writing,
    *,
    batch_size: int,
    one_line: bool,
    first: int = 0,
    **how: Any,
) -> list[Generation]:
    """`write_batch` for as many prompts as there are, `batch_size` at a time where the library pads them."""
    prefix = prefix_of(writing.prefix, model.tokenizer, model.name, one_line=one_line) if writing.prefix else None
    how |= {"one_line": one_line, "prefix": prefix}
    size = batch_size if model.adapter.pads else 1
    found: list[Generation] = []
    for start in range(0, len(prompts), size):
        found += write_batch(model, prompts[start : start + size], writing, first=first + start, **how)
    return found


def write_batch(
    model: "LanguageModel",
    prompts: list[list[int]],
    writing: Writing,
    *,
    ends: frozenset[int],
    one_line: bool = False,
    stream: Callable[[str], None] | None = None,
    going_on: Callable[[], bool] = lambda: True,
    read: bool = False,
    first: int = 0,
    samples: int = 1,
    prefix: Prefix | None = None,
    beside: Beside = None,
) -> list[Generation]:
    """`samples` samples of each prompt, those of a prompt adjacent; `first` is the place among all of the first prompt.

    A text ends with a token of `ends`, with `one_line` also at the first newline after text. `stream`, `going_on` and
    `read` are those of `LanguageModel.generate`; a text that is read never slides, and none that has other inputs
    `beside` its tokens. Raises RegardError for an empty
    prompt and for one that leaves no room.
    """
    # a prefix is spelt in as many tokens as it has bytes at most, and one before it that decoding drops
    most = writing.max_new_tokens + (0 if prefix is None else len(writing.prefix.encode()) + 1)
    feed_for = partial(model.adapter.feed, max_new_tokens=most, reads=read, beside=beside)
    feed = feed_for(prompts)
    count = len(prompts) * samples
    show = stream or (lambda text: None)
    streams = [TextStream(model.decode, writing.stop, one_line=one_line) for _ in range(count)]
    tokens: list[list[int]] = [[] for _ in range(count)]
    sums = [0.0] * count
    ends_there = read or beside is not None or writing.past_context == "end"
    full: list[bool] = []
    try:
        for step in write(
            feed,
            prompts,
            writing,
            ends=ends,
            context_length=model.context_length,
            device=model.device,
            going_on=lambda row: not streams[row].stopped and going_on(),
            first=first,
            samples=samples,
            prefix=prefix,
            slide=None if ends_there else feed_for,
            on_full=lambda: full.append(True),
        ):
            for row, token, log_probability in zip(step.rows, step.tokens, step.log_probabilities, strict=True):
                tokens[row].append(token)
                sums[row] += log_probability
                if token not in ends:
                    show(streams[row].add(token))
    finally:
        # of what was interrupted too
        for each in streams:
            show(each.finish())
    if full:
        # not amid a text that is shown as it comes
        length = model.context_length or 0
        told = f"prompt and text fill the model's context of {length} tokens: the text "
        half = f"goes on from the last {half_of(length)} of them, and so each time they are filled"
        logger.warning("%s", told + ("ends there" if ends_there else half))
    attention = feed.attention()
    return [
        Generation(
            text=each.text,
            tokens=written,
            score=total / len(written),
            finished=each.stopped or written[-1] in ends,
            log_probability=total,
            attention=attention,
        )
        for each, written, total in zip(streams, tokens, sums, strict=True)
    ]
