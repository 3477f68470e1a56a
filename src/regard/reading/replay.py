"""Reading by replay: the model runs once more, teacher-forced, over source and target, and is read there.

How the target was found (beams, batches, another program) cannot touch what is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.attention.output import AttentionMap
from regard.data.batch import OWN_FRAMES, Frame, Frames, collate
from regard.data.pair_tokenizer import PairTokenizer, Token
from regard.errors import RegardError
from regard.reading import record as records
from regard.reading.alignment import word_alignment
from regard.reading.asked import Asked, followed_by
from regard.reading.compute.verify import check, complaint
from regard.reading.reading import Reading


@torch.inference_mode()
def replay(
    module: nn.Module,
    tokenizer: PairTokenizer,
    source: str,
    target: list[int],
    *,
    model: str,
    max_length: int,
    device: torch.device | str = "cpu",
) -> Reading:
    """The reading of one translation, whose target is given as ids without special tokens.

    Raises RegardError for a model without attention, an empty source and one that is too long.
    """
    if not source.strip():
        raise RegardError("the source is empty; there is nothing to read")
    source_ids = tokenizer.encode(source)
    check_lengths(source_ids, target, max_length, tokenizer.frames)
    output = module(collate([source_ids], [target], tokenizer.frames).to(device), read=True)
    if not output.attention:
        raise RegardError(
            f"{model} has no attention to read: its decoder sees the source only as one hidden state, the encoder's "
            "last; train a model with attention, such as numbers-bahdanau"
        )
    maps, checks, refused = proved(output.attention, output.logits.dtype)
    return Reading(
        model=model,
        sequences=sequences(tokenizer, source, target),
        maps=maps,
        checks=checks,
        refused=refused,
    )


def check_lengths(source: Sequence[int], target: Sequence[int], max_length: int, frames: Frames) -> None:
    """Raises RegardError where a translator takes fewer tokens, special ones counted."""
    fed = {"source": len(source) + frames.source.size, "target": len(target) + len(frames.target.before)}
    for name, length in fed.items():
        if length > max_length:
            raise RegardError(f"the {name} has {length} tokens, the model takes at most {max_length}; shorten it")


@torch.inference_mode()
def log_probabilities(
    module: nn.Module,
    source: list[int],
    target: list[int],
    *,
    frames: Frames = OWN_FRAMES,
    device: torch.device | str = "cpu",
) -> Float[Tensor, " target"]:
    """log p of each token of a target after a source, both ids without special tokens."""
    batch = collate([source], [target], frames).to(device)
    own = slice(frames.given, frames.given + len(target))
    scores = module(batch).logits[0, own].double().log_softmax(-1)
    return scores.gather(1, batch.labels[0, own, None])[:, 0]


def asked_of(
    module: nn.Module, tokenizer: PairTokenizer, source: str, target: list[int], *, device: torch.device | str = "cpu"
) -> Asked:
    """A translation whose sources are sought; the target is ids without special tokens."""
    if not source.strip():
        raise RegardError("the source is empty; there is no passage in it")
    # what is removed and what is judged are without special tokens
    given, written = (
        replace(each, tokens=each.tokens[len(frame.before) : len(each.tokens) - len(frame.after)])
        for each, frame in zip(sequences(tokenizer, source, target).values(), tokenizer.frames.sides, strict=True)
    )
    frames = tokenizer.frames
    return Asked(
        module,
        followed_by(given, written),
        len(given.tokens),
        translate=lambda source, target: log_probabilities(module, source, target, frames=frames, device=device),
    )


def sequences(tokenizer: PairTokenizer, source: str, target: list[int]) -> dict[str, records.Sequence]:
    """A source and a target, given as ids without special tokens, as the model is given them."""
    written = tokenizer.target
    return {
        "source": _sequence(
            source, tokenizer.tokens(source), tokenizer.text_word_indices(source), tokenizer, tokenizer.frames.source
        ),
        "target": _sequence(
            written.decode(target),
            written.decode_tokens(target),
            written.word_indices(target),
            written,
            tokenizer.frames.target,
        ),
    }


Layer = tuple[str, int]


def proved(
    attention: Sequence[AttentionMap], dtype: torch.dtype
) -> tuple[dict[Layer, Float[np.ndarray, "head row key"]], dict[Layer, records.Check], dict[Layer, str]]:
    """Weights of the only sequence, by kind and layer; their checks; and why some are refused, by the model's dtype."""
    maps, checks, refused = {}, {}, {}
    for map in attention:
        key = (map.kind, map.layer)
        checks[key] = check(map)
        if (why := complaint(checks[key], dtype)) is not None:
            refused[key] = why
        else:
            maps[key] = map.weights[0].float().cpu().numpy()
    return maps, checks, refused


class Words(NamedTuple):
    """A sequence as a model and as a reader see it: its ids, and of which of its `num_words` words each is part."""

    ids: list[int]
    indices: list[list[int]]
    num_words: int

    @classmethod
    def of_text(cls, tokenizer: PairTokenizer, text: str) -> "Words":
        """The words of a text itself, even those that the tokenizer does not know."""
        words, indices = tokenizer.text_word_indices(text)
        return cls(tokenizer.encode(text), indices, len(words))

    @classmethod
    def of_ids(cls, tokenizer: PairTokenizer, ids: list[int]) -> "Words":
        """The words of what ids decode to."""
        words, indices = tokenizer.word_indices(ids)
        return cls(ids, indices, len(words))


def cross_attention(
    module: nn.Module,
    pairs: Sequence[tuple[Words, Words]],
    *,
    layer: int | None = None,
    guided: tuple[int, int] | None = None,
    frames: Frames = OWN_FRAMES,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Iterator[dict[int, Float[np.ndarray, "head target source"]]]:
    """Cross-attention between the words of each source and target, many pairs at a time: all heads of each layer.

    The layers are all there are, none in a model without attention, or the one that is asked for. The row of a token is
    the query that wrote it; of a `guided` layer and head, the one that reads it next, as training taught that head.
    Raises RegardError if the model lacks the layer asked for, and for weights that do not prove themselves.
    """
    for start in range(0, len(pairs), batch_size):
        rows = pairs[start : start + batch_size]
        with torch.inference_mode():
            batch = collate([source.ids for source, _ in rows], [target.ids for _, target in rows], frames)
            output = module(batch.to(device), read=True)
        maps = [map for map in output.attention if map.kind == "cross"]
        tables = {}
        for map in maps if layer is None else [_one_of(maps, layer)]:
            if (why := complaint(check(map), map.weights.dtype)) is not None:
                raise RegardError(f"cross layer {map.layer} was refused: {why}")
            table = map.weights[:, :, frames.given :, len(frames.source.before) :].float().cpu().numpy()
            if guided is not None and map.layer == guided[0]:
                table[:, guided[1], :-1] = table[:, guided[1], 1:].copy()
            tables[map.layer] = table
        for row, (source, target) in enumerate(rows):
            yield {
                number: word_alignment(
                    table[row, :, : len(target.ids), : len(source.ids)],
                    target_words=target.indices,
                    source_words=source.indices,
                    shape=(target.num_words, source.num_words),
                )
                for number, table in tables.items()
            }


def _one_of(maps: Sequence[AttentionMap], layer: int) -> AttentionMap:
    if not maps:
        raise RegardError("this model has no attention, so it has no alignments; train one with attention")
    if not -len(maps) <= layer < len(maps):
        raise RegardError(f"there is no cross layer {layer}; there are layers 0 to {len(maps) - 1}")
    return maps[layer]


def alignments(
    module: nn.Module,
    tokenizer: PairTokenizer,
    sources: Sequence[str],
    targets: Sequence[list[int] | str],
    *,
    layer: int = -1,
    head: int | None = None,
    guided: tuple[int, int] | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Iterator[Float[np.ndarray, "target source"]]:
    """The word alignment of each text and its translation, as `Reading.alignment` gives it, many at a time.

    `guided` as in `cross_attention`. A translation is given as the ids that the model wrote, or as text.
    """
    pairs = [
        (
            Words.of_text(tokenizer, source),
            Words.of_text(tokenizer.target, target)
            if isinstance(target, str)
            else Words.of_ids(tokenizer.target, target),
        )
        for source, target in zip(sources, targets, strict=True)
    ]
    frames = tokenizer.frames
    how: dict[str, Any] = {"frames": frames, "batch_size": batch_size, "device": device}
    for tables in cross_attention(module, pairs, layer=layer, guided=guided, **how):
        (table,) = tables.values()
        if head is not None and not 0 <= head < len(table):
            raise RegardError(f"there is no head {head}; the layer has heads 0 to {len(table) - 1}")
        yield table.mean(axis=0) if head is None else table[head]


def links(alignment: Float[np.ndarray, "target source"]) -> list[tuple[int, int]]:
    """Each target word with any weight and the source word with most, as (source, target); of equal ones the first."""
    return [(int(row.argmax()), target) for target, row in enumerate(alignment) if row.any()]


def pharaoh(alignment: Float[np.ndarray, "target source"]) -> str:
    """The links of an alignment as text: `i-j` for source word i and target word j."""
    return " ".join(f"{source}-{target}" for source, target in links(alignment))


def _sequence(
    text: str,
    pieces: list[Token],
    words_and_indices: tuple[list[str], list[list[int]]],
    tokenizer: PairTokenizer,
    frame: Frame,
) -> records.Sequence:
    words, words_of = words_and_indices
    tokens = [
        records.Token(id=token.id, text=token.text, start=token.start, end=token.end, words=own)
        for token, own in zip(pieces, words_of, strict=True)
    ]
    before, after = (
        [records.Token(id=id, text=tokenizer.name_of(id), start=place, end=place, words=[]) for id in ids]
        for ids, place in zip(frame, (0, len(text)), strict=True)
    )
    tokens = [*before, *tokens, *after]
    return records.Sequence(text=text, tokens=tokens, words=words)
