"""Readings with pictures, made by hand: a drawn PNG, patches with known pixels, text, and weights that are known."""

import dataclasses
import io
import itertools

import numpy as np

from regard.data.words import word_spans
from regard.reading.media import ImageArea, Picture
from regard.reading.reading import Reading
from regard.reading.record import Check, Sequence, Token


def drawn(width=120, height=80, *, name="drawn.png", form="PNG"):
    """A red disc at the upper left and a blue square at the lower right on a pale ground that darkens downwards."""
    from PIL import Image

    y, x = np.mgrid[:height, :width]
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:] = (235 - 90 * y / height).astype(np.uint8)[:, :, None]
    radius = min(width, height) / 5
    image[(x - width / 4) ** 2 + (y - height / 3.4) ** 2 < radius**2] = (200, 40, 40)
    image[(abs(x - 0.75 * width) < radius) & (abs(y - 0.7 * height) < radius)] = (40, 70, 200)
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return Picture(name, f"image/{form.lower()}", file.getvalue(), width, height)


def grid(image, rows, columns, box):
    """The areas of a grid of equal patches over a box of left, top, right, bottom."""
    left, top, right, bottom = box
    wide, tall = (right - left) / columns, (bottom - top) / rows
    return [
        ImageArea(image, row, column, x, y, x + wide, y + tall)
        for row, column in itertools.product(range(rows), range(columns))
        for x, y in [(left + column * wide, top + row * tall)]
    ]


def sequence(pieces):
    """Of texts, areas, and names of sorts in brackets, such as `[class token]`, a sequence of tokens."""
    names, sorts, areas, text, spans = [], [], [], "", []
    for piece in pieces:
        if isinstance(piece, ImageArea):
            area, name, sort = piece, f"image patch ({piece.row}, {piece.column})", "image patch"
        elif piece.startswith("["):
            area, name = None, piece.strip("[]")
            sort = name.rstrip(" 0123456789")
        else:
            area, name, sort = None, piece, "token"
        text += " " if sort != "token" and text else ""
        spans.append((len(text), len(text) + len(name)))
        text += name
        names.append(name)
        areas.append(area)
        sorts.append(sort)
    words = word_spans(text)
    tokens = [
        Token(
            id=place if sort == "token" else -1,
            text=name,
            start=start,
            end=end,
            words=[number for number, (begin, stop) in enumerate(words) if begin < end and start < stop],
            sort=sort,
            area=area,
        )
        for place, (name, sort, area, (start, end)) in enumerate(zip(names, sorts, areas, spans, strict=True))
    ]
    return Sequence(text, tokens, [text[start:end] for start, end in words])


def reading(kind, sides, sequences, tables, rows, media, **settings):
    maps = {(kind, layer): np.asarray(table, dtype=np.float32) for layer, table in enumerate(tables)}
    return Reading(
        model="by hand",
        sequences=sequences,
        maps=maps,
        checks={place: Check(1e-7, 2e-7, len(rows)) for place in maps},
        settings=settings,
        sides={kind: sides},
        kept={kind: rows},
        media=media,
    )


ANSWER = [" The", " red", " disc", " is", " upper", " left", "."]


def asked(*, layers=2, heads=2, areas=None, media=None, before=("<s>", "See"), answer=ANSWER, seed=7):
    """A language model that was given pictures inside its prompt; `red` and `disc` look at the disc's patch."""
    media = [drawn()] if media is None else media
    areas = grid(0, 4, 6, (0, 0, 120, 80)) if areas is None else areas
    pieces = [*before, *areas, " What", " is", " red", "?", *answer]
    prompt = len(pieces) - len(answer)
    keys = len(pieces) - 1
    rows = list(range(prompt - 1, keys))
    tables = np.random.default_rng(seed).dirichlet(np.full(keys, 0.3), size=(layers, heads, len(rows)))
    first = len(before)
    for row in (1, 2):
        # “ red” and “ disc” look at row 1, column 1
        tables[:, :, row] *= 0.4
        tables[:, :, row, first + min(7, len(areas) - 1)] += 0.6
    own = sequence(pieces)
    return reading("decoder", ("text", "text"), {"text": own}, tables, rows, media, prompt_tokens=prompt)


def tiled(**how):
    """One picture as a thumbnail of 2×2 over all of it and four tiles of 3×3, and a second, taller one."""
    box = (0, 0, 120, 80)
    quarters = [(0, 0, 60, 40), (60, 0, 120, 40), (0, 40, 60, 80), (60, 40, 120, 80)]
    tiles = [area for quarter in quarters for area in grid(0, 3, 3, quarter)]
    areas = [*tiles, *grid(0, 2, 2, box), " and", *grid(1, 5, 3, (0, 0, 60, 100))]
    return asked(areas=areas, media=[drawn(), drawn(60, 100, name="second.png")], **how)


def seen(*, layers=2, heads=2, seed=3):
    """A vision model: class token, two registers and 5×5 patches of the middle of a picture, every row kept."""
    pieces = ["[class token]", "[register 0]", "[register 1]", *grid(0, 5, 5, (20, 0, 100, 80))]
    count = len(pieces)
    tables = np.random.default_rng(seed).dirichlet(np.full(count, 0.3), size=(layers, heads, count))
    own = sequence(pieces)
    return reading("vision", ("image", "image"), {"image": own}, tables, list(range(count)), [drawn()])


def crossed(*, layers=2, heads=2, seed=4):
    """A language model whose text looks at a picture of 4×4 patches and a class token beside it."""
    text = sequence(["<s>", "What", " is", " red", "?", *ANSWER])
    source = sequence(["[class token]", *grid(0, 4, 4, (0, 0, 120, 80))])
    rows = list(range(4, len(text.tokens) - 1))
    tables = np.random.default_rng(seed).dirichlet(np.full(17, 0.3), size=(layers, heads, len(rows)))
    sequences = {"text": text, "source": source}
    return reading("cross", ("text", "source"), sequences, tables, rows, [drawn()], prompt_tokens=5)


def chatted(*, has_turns=True):
    """A chat whose one message has two pictures before its text; each may be a turn of its own."""
    pictures = [grid(0, 2, 3, (0, 0, 120, 80)), grid(1, 3, 2, (0, 0, 60, 100))]
    pieces = [
        "user",
        ":",
        *pictures[0],
        "\n",
        *pictures[1],
        "\n",
        "What",
        " is",
        " red",
        "?",
        "<end>",
        "assistant",
        ":",
    ]
    tokens = sequence(pieces).tokens
    turns = [("image", 2, 8), ("image", 9, 15), ("user", 16, 20)]
    text = sequence([*pieces, *ANSWER])
    count = len(pieces)
    keys = len(text.tokens) - 1
    tables = np.random.default_rng(9).dirichlet(np.full(keys, 0.3), size=(2, 2, keys - count + 1))
    settings = {
        "prompt_tokens": count,
        "turns": [
            {"role": role, "start": tokens[first].start, "end": tokens[last - 1].end}
            for role, first, last in turns
            if has_turns or role != "image"
        ],
    }
    rows = list(range(count - 1, keys))
    return reading("decoder", ("text", "text"), {"text": text}, tables, rows, [drawn(), drawn(60, 100)], **settings)


def both():
    """`asked` with the attention of its image encoder, `seen`, of which every patch is another of the same picture."""
    own, encoder = asked(), seen()
    return dataclasses.replace(
        own,
        sequences=own.sequences | encoder.sequences,
        maps=own.maps | encoder.maps,
        checks=own.checks | encoder.checks,
        sides=own.sides | encoder.sides,
        kept=own.kept | encoder.kept,
    )
