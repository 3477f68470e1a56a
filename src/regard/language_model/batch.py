"""A language model continues the prompts of one batch, as text."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from regard.generation.result import Generation
from regard.generation.steps import write
from regard.generation.streaming import TextStream
from regard.generation.writing import Writing

if TYPE_CHECKING:
    from regard.language_model import LanguageModel


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
) -> list[Generation]:
    """`samples` samples of each prompt, those of a prompt adjacent; `first` is the place among all of the first prompt.

    A text ends with a token of `ends`, with `one_line` also at the first newline after text. `stream`, `going_on` and
    `read` are those of `LanguageModel.generate`. Raises RegardError for an empty prompt and one that leaves no room.
    """
    feed = model.adapter.feed(prompts, writing.max_new_tokens, reads=read)
    count = len(prompts) * samples
    show = stream or (lambda text: None)
    streams = [TextStream(model.decode, writing.stop, one_line=one_line) for _ in range(count)]
    tokens: list[list[int]] = [[] for _ in range(count)]
    sums = [0.0] * count
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
