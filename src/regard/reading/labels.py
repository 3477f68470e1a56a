"""The tokens of a sequence that was read, and the text that they spell."""

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from regard.data.words import word_spans
from regard.errors import RegardError
from regard.reading.record import Sequence, Token
from regard.reading.runs import Forward, path_of
from regard.reading.segments import SEGMENTERS, Segmenter


def tokens(forward: Forward, kind: str, side: str, item: int) -> Int[Tensor, " position"]:
    """The ids at all positions of the side that looks, or that is looked at; −1 where they are not known."""
    of_source = forward.source_tokens is not None or forward.source_mask is not None
    if kind in ("encoder", "vision") or (kind == "cross" and side == "key"):
        ids, mask = (forward.source_tokens, forward.source_mask) if of_source else (forward.tokens, forward.mask)
        if kind == "vision" or ids is None or (kind == "cross" and not of_source):
            return torch.full((1 << 16,), -1)
        # an encoder runs once for all beams of a sentence
        row = item * len(ids) // forward.batch_size
        return ids[row][mask[row]] if mask is not None and mask.shape == ids.shape else ids[row]
    ids = torch.full((forward.start + max(forward.length, 1),), -1)
    for run, row, count in path_of(forward, item):
        if run.tokens is not None:
            ids[run.start : run.start + count] = run.tokens[row, :count]
    first = forward.first(item)
    return ids[first:]


def segments(ids: Int[Tensor, " position"], segmenter: str | Segmenter, tokenizer: Any) -> Int[Tensor, " position"]:
    """The segment that each token begins in. Raises RegardError where tokens are not known."""
    if len(ids) == 0:
        return torch.zeros(0, dtype=torch.int64)
    if int(ids.min()) < 0:
        raise RegardError("its tokens are not known, only embeddings, so that they make no segments; leave those out")
    text, spans = spell(ids.tolist(), tokenizer)
    starts = (SEGMENTERS[segmenter] if isinstance(segmenter, str) else segmenter)(text)
    # a token that begins with the space before a sentence is part of it
    begins = [start + len(text[start:end]) - len(text[start:end].lstrip()) for start, end in spans]
    return torch.tensor([max(0, bisect_right(starts, begin) - 1) for begin in begins])


def spell(ids: list[int], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The text of ids and the characters of each; tokens that hold parts of one character share it."""
    text, spans, begun = "", [], 0
    context = 0
    for index in range(len(ids)):
        before = tokenizer.decode(ids[context:begun], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        now = tokenizer.decode(ids[context : index + 1], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if now.endswith("\ufffd") and index + 1 < len(ids) and index - begun < 4:
            continue
        start, added = len(text), now[len(before) :]
        spans.extend([(start, start + len(added))] * (index + 1 - begun))
        text += added
        context, begun = begun, index + 1
    return text, spans


def sequence(ids: list[int], tokenizer: Any, *, unknown: str = "") -> Sequence:
    """A sequence of ids as text, where there is a tokenizer."""
    if tokenizer is None or any(id < 0 for id in ids):
        names = [str(id) if id >= 0 else f"{unknown}{position}" for position, id in enumerate(ids)]
        starts = np.cumsum([0, *(len(name) + 1 for name in names)]).tolist()
        text = " ".join(names)
        spans = [(start, after - 1) for start, after in pairwise(starts)]
    else:
        text, spans = spell(ids, tokenizer)
        names = [text[start:end] for start, end in spans]
    return placed(text, ids, names, spans, word_spans(text))


def placed(
    text: str, ids: list[int], names: list[str], spans: list[tuple[int, int]], words: list[tuple[int, int]]
) -> Sequence:
    """A sequence of tokens that stand at these characters of a text, of whose words these are."""
    starts, ends = [start for start, _ in words], [end for _, end in words]
    return Sequence(
        text=text,
        tokens=[
            Token(
                id=id,
                text=name,
                start=start,
                end=end,
                words=list(range(bisect_right(ends, start), bisect_left(starts, end))) if end > start else [],
            )
            for id, name, (start, end) in zip(ids, names, spans, strict=True)
        ],
        words=[text[start:end] for start, end in words],
    )
