"""A reading as a still: shaded tokens in plain HTML, which a notebook keeps and shows where no script runs."""

import html
from collections.abc import Iterator, Sequence

import numpy as np

from regard.errors import RegardError
from regard.reading.reading import Reading
from regard.reading.record import Token
from regard.view.heat import data_url, heated
from regard.view.pictures import has_pictures, looks
from regard.view.pieces import Piece
from regard.view.proof import proof
from regard.view.shares import shares
from regard.view.words import percent, printable

# pieces to each side of the strongest, where the whole text would be too long
LONGEST, AROUND, MOST = 600, 60, 3
MOST_PICTURES, LONGEST_SIDE = 4, 320
ACCENT = "229,112,42"
STYLE = "max-width:46em;line-height:1.9;font-family:Charter,Georgia,'Noto Serif CJK SC',serif;font-size:15px"
QUIET = "font:12px system-ui,sans-serif;opacity:.7"


def frame(reading: Reading) -> str | None:
    """Where the weight of all written tokens went, on average, in text and pictures; None where it is not known."""
    seen = _pictures(reading) if has_pictures(reading) else ""
    has_text = any(reading.rows(kind) for kind in reading.kinds if kind in ("decoder", "encoder"))
    if not seen and not any(reading.rows(kind) for kind in reading.kinds if kind != "vision"):
        return None
    if seen and ("target" in reading.sequences or not has_text):
        # what is looked at is the pictures
        pieces, told = [], reading.sequences["target"].text if "target" in reading.sequences else ""
        heading = "what was looked at, mean of all layers and heads"
    elif "cross" in reading.kinds and "target" in reading.sequences:
        pieces, told = _source(reading), reading.sequences["target"].text
        heading = "what the translation looked at, mean of all layers and heads"
    else:
        found = shares(reading)
        pieces, told = found.pieces, "".join(piece.text for piece in found.written)
        heading = f"what {found.subject} looked at, {found.scope}"
        heading += f"; first token apart, {percent(found.first)}" if found.first_token else ""
        heading += f"; images, {percent(found.images)}" if found.images else ""
        heading += f", and the template, {percent(found.template)}" if found.template else ""
        heading += f", and the question, {percent(found.question)}" if found.question else ""
    written = f"<div>→ {html.escape(printable(told))}</div>" if told else ""
    heading = html.escape(f"{printable(reading.model)}: {heading}")
    return (
        f'<div style="{STYLE}"><div style="{QUIET}">{heading}</div>{seen}'
        f'<div>{"".join(_shaded(pieces))}</div>{written}<div style="{QUIET}">{html.escape(proof(reading))}</div></div>'
    )


def _pictures(reading: Reading) -> str:
    """The pictures with their heat, or why there is none."""
    try:
        heats = looks(reading).heats
        images = [(heat, data_url(heated(heat, LONGEST_SIDE))) for heat in heats[:MOST_PICTURES]]
    except RegardError as error:
        return f'<div style="{QUIET}">{html.escape(str(error))}</div>'
    return "".join(
        f'<figure style="display:inline-block;margin:6px 12px 6px 0"><img src="{image}" alt="image {heat.number + 1}" '
        f'style="{"width" if heat.picture.width > heat.picture.height else "height"}:{LONGEST_SIDE}px">'
        f'<figcaption style="{QUIET}">image {heat.number + 1}, {percent(heat.share)}; {heat.scale} up to '
        f"{percent(float(heat.density.max()))}</figcaption></figure>"
        for heat, image in images
    ) + (f'<div style="{QUIET}">and {len(heats) - len(images)} more images</div>' if heats[MOST_PICTURES:] else "")


def _source(reading: Reading) -> list[Piece]:
    tables = [reading.weights("cross", layer) for layer in reading.layers("cross")]
    weights = np.concatenate(tables).mean(axis=(0, 1), dtype=np.float64)
    text, pieces, at = reading.sequences["source"].text, [], 0
    for key, weight in zip(reading.keys("cross"), weights.tolist(), strict=True):
        pieces.append(Piece(_text(text, at, key), weight, 1, 0, False))
        at = max(at, key.end)
    return pieces


def _text(text: str, at: int, key: Token) -> str:
    return key.text if key.start == key.end else text[at : key.end]


def _shaded(pieces: Sequence[Piece]) -> Iterator[str]:
    top = max((piece.share for piece in pieces), default=0.0) or 1.0
    shown = _shown(pieces)
    left_out = 0
    for place, piece in enumerate(pieces):
        if place not in shown:
            left_out += piece.tokens
            continue
        if left_out:
            yield f'<span style="{QUIET}"> ⋯ {left_out:,} tokens ⋯ </span>'
            left_out = 0
        text = "<br>".join(html.escape(printable(line)) for line in piece.text.split("\n"))
        strength = 0.85 * (piece.share / top) ** 0.75
        if piece.is_folded:
            yield f'<span style="{QUIET}">{text}</span>'
        elif strength < 0.02:
            yield text
        else:
            colour = f"background:rgba({ACCENT},{strength:.2f});border-radius:3px"
            yield f'<span style="{colour}" title="{percent(piece.share)}">{text}</span>'
    if left_out:
        yield f'<span style="{QUIET}"> ⋯ {left_out:,} tokens</span>'


def _shown(pieces: Sequence[Piece]) -> set[int]:
    if len(pieces) <= LONGEST:
        return set(range(len(pieces)))
    strongest = sorted(range(len(pieces)), key=lambda place: -pieces[place].share)[:MOST]
    return {place for centre in strongest for place in range(max(0, centre - AROUND), centre + AROUND + 1)}
