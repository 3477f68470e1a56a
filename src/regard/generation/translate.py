"""Token ids in, hypotheses out, for as many sentences as there are."""

from collections.abc import Callable, Sequence

import torch

from regard.data.batch import EOS, pad
from regard.errors import RegardError
from regard.generation.search import Hypothesis, beam_search, greedy_search
from regard.models import TranslatorModule


def translate_tokens(
    model: TranslatorModule,
    sources: Sequence[Sequence[int]],
    *,
    max_length: int,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda sentences: None,
    name: Callable[[int], str] = lambda index: f"sentence {index + 1}",
) -> list[list[Hypothesis]]:
    """The hypotheses of every sentence, best first, in the order of the sentences.

    Sentences of like length share a batch. A translation ends after `max_new_tokens`, by default twice the
    source and twenty more, and never goes past the model's `max_length`. `name` says in errors which sentence it is.
    Raises RegardError for a source longer than `max_length` and for settings out of range.
    """
    _check(num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size)
    # farther out length ** length_penalty is no number any more
    if not -10 <= length_penalty <= 10:
        raise RegardError(f"length_penalty must lie in -10 to 10, not {length_penalty}")
    for index, source in enumerate(sources):
        if len(source) + 1 > max_length:
            raise RegardError(
                f"{name(index)} has {len(source) + 1} tokens, the model reads at most {max_length}; "
                "split it, or train with a larger model.max_length"
            )
    results: list[list[Hypothesis]] = [[] for _ in sources]
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        source, lengths = pad([[*sources[row], EOS] for row in rows])
        limits = (2 * lengths + 20 if max_new_tokens is None else torch.full_like(lengths, max_new_tokens)).clamp(
            max=max_length - 1
        )
        source, lengths = source.to(device), lengths.to(device)
        if num_beams == 1:
            found = greedy_search(model, source, lengths, limits=limits, length_penalty=length_penalty)
        else:
            found = beam_search(
                model, source, lengths, limits=limits, num_beams=num_beams, length_penalty=length_penalty
            )
        for row, hypotheses in zip(rows, found, strict=True):
            results[row] = hypotheses
        progress(len(rows))
    return results


def _check(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise RegardError(f"{name} must be at least 1, not {value}")
