"""What each query and key is: a token by its proved id, or else a position of a named sort.

An id is proved where it was fed, or where the embedding that was fed is its own. What is no token of the text has the
id −1 and says what it is: image patch, class token, register, audio frame, virtual token, position.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence as Sequences
from itertools import groupby
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from regard.data.words import word_spans
from regard.errors import RegardError
from regard.reading.media import Area
from regard.reading.parts import Part, placeholders
from regard.reading.record import Sequence, Token
from regard.reading.runs import Run, path_of
from regard.reading.segments import SEGMENTERS, Segmenter

TOKEN, POSITION = "token", "position"


class Label(NamedTuple):
    """An id, −1 where it is not known or is none; a sort; the place among those of that sort; its area, if known."""

    id: int
    sort: str = TOKEN
    place: str = ""
    area: Area | None = None

    @property
    def name(self) -> str:
        """What stands in a text for what is no token."""
        return f"{self.sort} {self.place}".strip()


def of_sequence(run: Run, item: int) -> list[Label]:
    """All positions of the sequence that is written on, up to the last that the run was fed."""
    total = run.start + run.length
    found = [Label(-1, POSITION)] * total
    for step, row, count in path_of(run, item):
        found[step.start : step.start + count] = _of_run(step, row)[:count]
    first, first_row, _ = path_of(run, item)[0]
    if first.ahead:
        picture, _ = first.sides.get("vision", (None, None))
        found[: first.ahead] = of_part(picture, first_row, first.batch_size, first.ahead)
    generation = run.generation
    if first.start and generation is not None and generation.ids is not None and not generation.offset:
        # what its cache held before is what generate was given
        ids = generation.ids[run.row(item, len(generation.ids)), : first.start].tolist()
        sorts = {} if first.own is None else placeholders(first.own.module)
        found[: first.start] = [Label(-1, sorts[id]) if id in sorts else Label(id) for id in ids]
    real = run.real(item).tolist()
    return _placed([label for label, is_token in zip(found, real, strict=True) if is_token])


def _of_run(run: Run, row: int) -> list[Label]:
    if run.tokens is None or run.known is None:
        return [Label(-1, POSITION)] * run.length
    chain = [] if run.own is None else list(run.own.chain)
    sorts: dict[int, str] = {}
    for part in chain:
        sorts |= placeholders(part.module)
    has_pixels = any(part.pixels is not None for part in chain)
    sorts[-1] = "image patch" if has_pixels else "virtual token"
    rows = zip(run.tokens[row].tolist(), run.known[row].tolist(), strict=True)
    return [Label(id) if known else Label(-1, sorts.get(id, POSITION)) for id, known in rows]


def of_part(part: Part | None, item: int, batch_size: int, count: int) -> list[Label]:
    """The positions of what an encoder was given: text, sound or a picture, as far as there are that many."""
    if part is not None and part.modality == "vision":
        return _of_picture(part, count)
    if part is not None and part.modality == "audio":
        return _placed([Label(-1, "audio frame")] * count)
    if part is not None and part.tokens is not None and part.known is not None:
        row = min(item * len(part.tokens) // batch_size, len(part.tokens) - 1)
        ids, known = part.tokens[row], part.known[row]
        if part.mask is not None and part.mask.shape == part.tokens.shape:
            ids, known = ids[part.mask[row]], known[part.mask[row]]
        if len(ids) == count:
            sorts = placeholders(part.module)
            pairs = zip(ids.tolist(), known.tolist(), strict=True)
            return _placed([Label(id) if is_known else Label(-1, sorts.get(id, POSITION)) for id, is_known in pairs])
    return _placed([Label(-1, POSITION)] * count)


def _of_picture(part: Part, count: int) -> list[Label]:
    """Class token, registers and a grid of patches, where the model has just as many; else mere positions."""
    config = getattr(part.module, "config", None)
    config = getattr(config, "vision_config", config)
    patch: Any = getattr(config, "patch_size", None)
    patch = tuple(patch) if isinstance(patch, list | tuple) else (patch, patch)
    if part.pixels is None or len(part.pixels) != 4 or not all(isinstance(size, int) and size > 0 for size in patch):
        return _placed([Label(-1, POSITION)] * count)
    height, width = (size // step for size, step in zip(part.pixels[-2:], patch, strict=True))
    before = before_patches(part.module)
    patches = [Label(-1, "image patch", f"({row}, {column})") for row in range(height) for column in range(width)]
    if before is not None and count == len(before) + len(patches):
        return [*before, *patches]
    return _placed([Label(-1, POSITION)] * count)


def before_patches(module: Any) -> list[Label] | None:
    """The class token and registers that a vision model puts before its patches; None for another order."""
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", config)
    names = {name.rpartition(".")[2] for name, _ in module.named_parameters()}
    before = [Label(-1, "class token")] * bool(names & {"cls_token", "class_embedding"})
    registers = getattr(config, "num_register_tokens", 0) or 0
    before += [Label(-1, "register", str(index)) for index in range(registers)]
    before += [Label(-1, "distillation token")] * ("distillation_token" in names)
    # a masked autoencoder shuffles its patches
    return None if names & {"detection_tokens"} or hasattr(config, "mask_ratio") else before


def _placed(labels: list[Label]) -> list[Label]:
    """With the place of each among those of its sort; of mere positions the position."""
    counts: dict[str, int] = {}
    found = []
    for position, label in enumerate(labels):
        if label.sort == TOKEN or label.place:
            found.append(label)
            continue
        place = position if label.sort == POSITION else counts.get(label.sort, 0)
        counts[label.sort] = place + 1
        found.append(label._replace(place=str(place)))
    return found


def ids_of(labels: Sequences[Label]) -> Int[Tensor, " position"]:
    """Their ids, −1 where they are no tokens."""
    return torch.tensor([label.id for label in labels], dtype=torch.int64)


def segments(ids: Int[Tensor, " position"], segmenter: str | Segmenter, tokenizer: Any) -> Int[Tensor, " position"]:
    """The segment that each token begins in. Raises RegardError where tokens are not known."""
    if len(ids) == 0:
        return torch.zeros(0, dtype=torch.int64)
    if int(ids.min()) < 0:
        raise RegardError("its tokens are not known, only embeddings, so that they make no segments; leave those out")
    text, spans = spell(ids.tolist(), tokenizer)
    starts = (SEGMENTERS[segmenter] if isinstance(segmenter, str) else segmenter)(text)
    # a token that begins with the space before a sentence is part of it, one of spaces alone is not
    spelt = [text[start:end] for start, end in spans]
    begins = [
        start + (len(each) - len(each.lstrip()) if each.strip() else 0)
        for (start, _), each in zip(spans, spelt, strict=True)
    ]
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


def sequence(labels: Sequences[Label], tokenizer: Any) -> Sequence:
    """A sequence as text: tokens are spelt where there is a tokenizer, everything else is named, a space between."""
    text, spans = "", []
    for is_text, group in groupby(labels, lambda label: label.sort == TOKEN and tokenizer is not None):
        stretch = list(group)
        if is_text:
            spelt, own = spell([label.id for label in stretch], tokenizer)
            text += " " * bool(text and not text.endswith(" ") and spans and not spelt.startswith(" "))
            spans += [(len(text) + start, len(text) + end) for start, end in own]
            text += spelt
        else:
            for label in stretch:
                name = str(label.id) if label.sort == TOKEN else label.name
                text += " " * bool(text)
                spans.append((len(text), len(text) + len(name)))
                text += name
    names = [text[start:end] for start, end in spans]
    return placed(
        text,
        [label.id for label in labels],
        names,
        spans,
        word_spans(text),
        sorts=[label.sort for label in labels],
        areas=[label.area for label in labels],
    )


def placed(
    text: str,
    ids: list[int],
    names: list[str],
    spans: list[tuple[int, int]],
    words: list[tuple[int, int]],
    *,
    sorts: list[str] | None = None,
    areas: Sequences[Area | None] | None = None,
) -> Sequence:
    """A sequence of tokens that stand at these characters of a text, of whose words these are."""
    starts, ends = [start for start, _ in words], [end for _, end in words]
    sorts, areas = sorts or [TOKEN] * len(ids), areas or [None] * len(ids)
    return Sequence(
        text=text,
        tokens=[
            Token(
                id=id,
                text=name,
                start=start,
                end=end,
                words=list(range(bisect_right(ends, start), bisect_left(starts, end))) if end > start else [],
                sort=sort,
                area=area,
            )
            for id, name, (start, end), sort, area in zip(ids, names, spans, sorts, areas, strict=True)
        ],
        words=[text[start:end] for start, end in words],
    )
