"""Reading a transformers model by replay: it writes by its fastest path, then runs once over all of it, watched."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from regard.data.words import word_spans
from regard.errors import RegardError
from regard.generation.result import Generation
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer
from regard.models.pretrained.texts import Encoded
from regard.reading.effects import Effects
from regard.reading.labels import Label, placed, sequence, spell
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.record import Sequence as Tokens
from regard.reading.replay import proved, sequences
from regard.reading.watch import watching


def followed(given: Encoded, written: list[int], tokenizer: Any, others: Mapping[int, Label] | None = None) -> Tokens:
    """The text that a model was given with the tokens that it wrote after it; `others` are positions of no token."""
    others = others or {}
    added = sequence([Label(id) for id in written], tokenizer)
    start, ids = len(given.text), [*given.ids, *written]
    text = given.text + added.text
    spans = [*_filled(given.offsets), *((start + token.start, start + token.end) for token in added.tokens)]
    names = [text[begin:end] for begin, end in spans]
    # what a model puts around a text stands nowhere in it
    for index, id in enumerate(given.ids):
        if not names[index]:
            names[index] = tokenizer.convert_ids_to_tokens(id)
    special = {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    # what is unknown has a special token too, and is a part of its word
    apart = [span for id, span, name in zip(ids, spans, names, strict=True) if special.get(id) == name.strip()]
    apart += [spans[position] for position in others]
    labels = [others.get(position, Label(id)) for position, id in enumerate(ids)]
    return placed(
        text,
        [label.id for label in labels],
        names,
        spans,
        _words(text, [*apart, *(turn[1:] for turn in given.turns)]),
        sorts=[label.sort for label in labels],
        areas=[label.area for label in labels],
    )


def _words(text: str, apart: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The words of a text, none of which goes past a special token or the end of a message."""
    borders = sorted({0, len(text), *(border for span in apart for border in span)})
    return [(at + start, at + end) for at, until in pairwise(borders) for start, end in word_spans(text[at:until])]


def _filled(offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """With tokens that stand nowhere set where the one before them ended."""
    filled, end = [], 0
    for start, stop in offsets:
        filled.append((start, stop) if stop > start else (end, end))
        end = filled[-1][1]
    return filled


@torch.inference_mode()
def read_tokens(
    module: Any,
    tokenizer: Any,
    given: Encoded,
    written: list[int],
    options: ReadOptions,
    *,
    ends: frozenset[int],
    inputs: Callable[[Tensor], dict[str, Any]],
    name: str,
    others: Mapping[int, Label] | None = None,
    known: Mapping[str, Tokens] | None = None,
) -> Reading:
    """What a model of one sequence looked at in a text and, all but the last, the tokens that it wrote after it.

    `inputs` makes the module's arguments from token ids; `ends` are those that end a text. Rows "generated" are those
    that wrote a token, or else the last. Of a chat the segments "turns" are its messages, and what the template puts
    before, between and behind them. `others` are the positions of the text that are no tokens, such as patches;
    `known` are the other sequences that are known by name, such as a picture.
    """
    text = followed(given, written, tokenizer, others)
    ids = [*given.ids, *written]
    fed = ids[:-1] if written else ids
    if options.segments == "turns" and given.turns:
        starts = _turn_starts(given, fed, tokenizer)
        options = replace(options, segments=lambda text: starts)
    tokens = torch.tensor([fed], device=next(module.parameters()).device)
    with watching(module, tokenizer=tokenizer, name=name, **vars(options)) as watch:
        watch.wanted = replace(watch.wanted, prompt=len(given.ids), known={**(known or {}), "text": text})
        module(**inputs(tokens))
    reading = watch.reading(0)
    own = [reading.sequences[side] for kind in ("decoder", "cross") for side in reading.sides.get(kind, ())[:1]]
    if any(each is not text for each in own):
        count = max(len(each.tokens) for each in own if each is not text)
        raise RegardError(
            f"{name} looks from {count} positions where it was given {len(fed)} tokens: it puts others of its own "
            "among them, and which row wrote which token is not known; watch its run with regard.watching"
        )
    beside = {side for kind in reading.kinds for side in reading.sides[kind]} - {"text"}
    return replace(
        reading,
        # the text is there, whatever was read of it
        sequences={"text": text, **{name: reading.sequences[name] for name in beside}},
        settings={**reading.settings, **settings_of(given, written, ends)},
        knockout=Effects(module, ids) if reading.kinds == ["decoder"] and not others else None,
    )


def read_noted(
    module: Any, tokenizer: Any, given: Encoded, written: Generation, *, ends: frozenset[int], name: str
) -> Reading:
    """What a model of Regard's looked at, noted while it wrote after a text; `ends` are the ids that end one."""
    ids = [*given.ids, *written.tokens]
    dtype = module.embedding.weight.dtype
    maps, checks, refused = proved(written.attention, dtype)
    return Reading(
        model=name,
        sequences={"text": followed(given, written.tokens, tokenizer)},
        maps=maps,
        checks=checks,
        refused=refused,
        settings=settings_of(given, written.tokens, ends),
        sides={"decoder": ("text", "text")},
        kept={"decoder": list(range(len(given.ids) - 1, len(ids) - 1))},
        knockout=Effects(module, ids),
    )


@torch.inference_mode()
def read_pair(
    module: Any, tokenizer: PretrainedTokenizer, source: str, target: list[int], options: ReadOptions, *, name: str
) -> Reading:
    """What an encoder–decoder of transformers looked at when it wrote `target`, ids without special tokens."""
    frames = tokenizer.frames
    tokens = torch.tensor([frames.source(tokenizer.encode(source))], device=module.device)
    decoder = torch.tensor([frames.target(target)[:-1]], device=module.device)
    with watching(module, tokenizer=tokenizer.backend, name=name, **vars(options)) as watch:
        module(input_ids=tokens, attention_mask=torch.ones_like(tokens), decoder_input_ids=decoder)
    reading = watch.reading(0)
    found = sequences(tokenizer, source, target)
    names = {side for kind in reading.kinds for side in reading.sides[kind]}
    return replace(reading, sequences={name: found[name] for name in names})


def settings_of(given: Encoded, written: list[int], ends: frozenset[int]) -> dict[str, Any]:
    """How many tokens are the prompt and how many only end the answer; of a chat where its messages stand."""
    facts: dict[str, Any] = {
        "prompt_tokens": len(given.ids) if written else 0,
        "end_tokens": int(bool(written) and written[-1] in ends),
    }
    return {**facts, "turns": [turn._asdict() for turn in given.turns]} if given.turns else facts


def _turn_starts(given: Encoded, fed: list[int], tokenizer: Any) -> list[int]:
    """Where messages begin and end in the text of `fed` as the tokenizer spells it, and where the answer begins."""
    _, spans = spell(fed, tokenizer)
    starts, ends = ([pair[side] for pair in _filled(given.offsets)] for side in (0, 1))
    borders = {0, len(given.ids)}
    for turn in given.turns:
        # a token that holds the end of the template and the beginning of a message is the message's
        borders |= {bisect_right(ends, turn.start), bisect_left(starts, turn.end)}
    return sorted({spans[border][0] for border in borders if border < len(spans)})
