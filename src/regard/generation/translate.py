"""Token ids in, hypotheses out, for as many sentences as there are."""

from collections.abc import Callable, Sequence

import torch

from regard.data.batch import OWN_FRAMES, Frames, pad
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.search import Hypothesis, beam_search, sequence_search
from regard.generation.spelling import Prefix, Spelling, TextConstraint
from regard.kernels.memory import memory_for
from regard.models import TranslatorModule


def translate_tokens(
    model: TranslatorModule,
    sources: Sequence[Sequence[int]],
    *,
    max_length: int,
    decoding: Decoding,
    frames: Frames = OWN_FRAMES,
    spelling: Spelling | None = None,
    prefixes: Sequence[Prefix] | None = None,
    numbers: Sequence[int] | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda sentences: None,
    name: Callable[[int], str] = lambda index: f"sentence {index + 1}",
) -> list[list[Hypothesis]]:
    """The `n_best` hypotheses of every sentence, in the order of the sentences.

    Sentences of like length share a batch. A translation ends after `max_new_tokens`, by default twice the
    source and twenty more, and never goes past the model's `max_length`; to `max_new_tokens` its prefix does not count.
    With a `spelling` translations are valid UTF-8, and the hypotheses of a beam search differ in their texts. Samples
    follow from `numbers`, by default the places of the sentences. `name` says in errors which sentence it is.
    Raises RegardError for a source or prefix longer than `max_length` and for a model whose weights are no numbers.
    """
    if batch_size < 1:
        raise RegardError(f"batch_size must be at least 1, not {batch_size}")
    for index, source in enumerate(sources):
        if (length := len(source) + frames.source.size) > max_length:
            raise RegardError(
                f"{name(index)} has {length} tokens, the model reads at most {max_length}; "
                "split it, or train with a larger model.max_length"
            )
    # what the decoder is given takes room too
    room = max_length - len(frames.target.before)
    for index, prefix in enumerate(prefixes or ()):
        # what ends it, at least, stands behind
        if prefix.need + 1 > room:
            raise RegardError(
                f"{name(index)} is to begin with {prefix.need} tokens, the model writes at most "
                f"{room - 1}; shorten the prefix"
            )
    results: list[list[Hypothesis]] = [[] for _ in sources]
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        source, lengths = pad([frames.source(sources[row]) for row in rows])
        limits = 2 * lengths + 20
        if decoding.max_new_tokens is not None:
            limits = torch.full_like(lengths, decoding.max_new_tokens)
        limits = limits.clamp(max=room)
        constraint = TextConstraint(
            spelling,
            None if prefixes is None else [prefixes[row] for row in rows],
            room=room,
            apart=decoding.max_new_tokens is not None,
            never=frames.never,
            device=torch.device(device),
        )
        batch = source.to(device), lengths.to(device)
        hypotheses = max(decoding.num_beams, decoding.n_best)
        with memory_for(f"{len(rows)} sentences with {hypotheses} hypotheses each", "lower batch_size or num_beams"):
            if decoding.num_beams > 1:
                found = beam_search(
                    model, *batch, limits=limits, decoding=decoding, constraint=constraint, frames=frames
                )
            else:
                own = [row if numbers is None else numbers[row] for row in rows]
                found = sequence_search(
                    model,
                    *batch,
                    limits=limits,
                    decoding=decoding,
                    constraint=constraint,
                    numbers=own,
                    frames=frames,
                )
        for row, hypotheses in zip(rows, found, strict=True):
            if not hypotheses:
                raise RegardError(
                    f"{name(row)}: the model's probabilities are no numbers; its weights are broken, train it again"
                )
            results[row] = hypotheses
        progress(len(rows))
    return results
