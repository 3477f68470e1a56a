"""Where the weight of a text's rows went: to the prompt, its parts and words, to the answer, to the first token."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.alignment import word_alignment
from regard.reading.reading import Reading
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Span, Token
from regard.reading.segments import SEGMENTERS
from regard.view.folds import Fold, folds, shown_text
from regard.view.pieces import NO_PART, QUESTION, Piece, folded, pieces_of
from regard.view.words import printable, shorten

LONGEST_NAME = 24


class Word(NamedTuple):
    text: str
    share: float


class Part(NamedTuple):
    """A sentence, paragraph, turn or document of the prompt, with its words from the strongest to the weakest."""

    text: str
    share: float
    words: list[Word]


class Answered(NamedTuple):
    """A written word, and the words of the prompt it looked at more than the rest of the answer did."""

    text: str
    words: list[Word]


@final
@dataclass(frozen=True)
class Shares:
    """Shares of all weight of the chosen rows, mean over layers, heads and rows.

    `prompt` (without the first token), `template` (the same, of a chat), `question`, `images`, `answer`, `first` and,
    in models that have sinks outside the text, `outside` sum to 1. `pieces` are those of the prompt, `written` those of
    the answer, whose last token was never looked at, without one that only ends it.
    """

    subject: str
    scope: str
    has_answer: bool
    prompt: float
    template: float
    question: float
    images: float
    answer: float
    first: float
    outside: float
    first_token: str
    pieces: list[Piece]
    written: list[Piece]
    parts: list[Part]
    by_word: list[Answered]
    # of every layer and head, to the first token and to the strongest part: [layer, head]
    layers: list[int]
    first_by_head: Float[np.ndarray, "layer head"]
    part_by_head: Float[np.ndarray, "layer head"]

    @property
    def strongest(self) -> list[int]:
        """The numbers of the parts, the strongest first."""
        return sorted(range(len(self.parts)), key=lambda part: -self.parts[part].share)


def shares(
    reading: Reading,
    *,
    token: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    segments: str = "sentences",
) -> Shares:
    """What the answer looked at: all of it or, with `token`, one place in it (0 is the first) or a text that it has.

    Of one layer and head or, by default, the mean of all. Raises RegardError if there is no such token, layer or head,
    or nothing was read.
    """
    kind = text_kind(reading)
    sequence, keys = reading.sequences[reading.sides[kind][1]], reading.keys(kind)
    count = reading.settings.get("prompt_tokens", 0)
    size = count or len(keys)
    rows, subject = chosen_rows(reading, kind, count, token)
    tables = [reading.weights(kind, number)[:, rows] for number in reading.layers(kind)]
    layers = reading.layers(kind)
    chosen = tables if layer is None else [reading.weights(kind, layer)[:, rows]]
    table = mean_head(chosen, layer, head)
    weights = table.mean(axis=0)

    prompt = keys[:size]
    turns = reading.settings.get("turns", [])
    turn_of = [_turn(turns, key) for key in prompt]
    spans = _parts(sequence.text, max((key.end for key in prompt), default=0), turns, segments)
    starts = [start for start, _ in spans]
    fold_of = _inside(folds(prompt), size)
    in_image = np.array([fold is not None for fold in fold_of])
    template = np.array([turn is None for turn in turn_of]) & ~in_image
    question = _asks(reading, prompt) & ~template & ~in_image
    part_of = [
        NO_PART if turn is None or is_image else QUESTION if asks else _part(sequence.text, starts, key)
        for key, turn, is_image, asks in zip(prompt, turn_of, in_image, question, strict=True)
    ]
    shaded = np.where(question, 0, weights[:size])
    pieces = list(folded(sequence.text, prompt, shaded, part_of, turn_of, turns, fold_of))
    shown = np.where(template | question | in_image | (np.arange(size) == 0), 0, table[:, :size])
    words = word_alignment(
        shown,
        target_words=[[row] for row in range(len(rows))],
        source_words=[key.words for key in prompt],
        shape=(len(rows), len(sequence.words)),
    )
    parts = []
    begins = list(_begins(sequence))
    for number, (start, stop) in enumerate(spans):
        inside = [index for index, begin in enumerate(begins) if start <= begin < stop]
        share = sum(piece.share for piece in pieces if piece.part == number)
        own = _ranked(sequence.words, words.mean(axis=0), inside)
        role = f"{turns[number]['role']}: " if turns and segments == "turns" else ""
        parts.append(Part(role + shown_text(sequence, start, stop), share, own))
    best = max(range(len(parts)), key=lambda number: parts[number].share)
    in_best = [index for index, part in enumerate(part_of) if part == best and index]
    answered = written_tokens(reading)
    # the last token was written and never fed back
    unseen = np.pad(weights[size:], (0, 1))[: len(answered)]
    return Shares(
        subject=subject,
        scope=scope_of(layers, tables, layer, head),
        has_answer=count > 0,
        prompt=float(shown.mean(axis=0).sum()),
        template=float(weights[1:size][template[1:]].sum()),
        question=float(weights[1:size][question[1:]].sum()),
        images=float(weights[:size][in_image].sum()),
        answer=float(weights[size:].sum()),
        first=0.0 if in_image[0] else float(weights[0]),
        outside=max(0.0, 1 - float(weights.sum())),
        first_token="" if in_image[0] else keys[0].text,
        pieces=pieces,
        written=pieces_of(sequence.text, answered, unseen, [NO_PART] * len(answered), has_first=False),
        parts=parts,
        by_word=_by_word(reading, kind, rows, words) if count else [],
        layers=layers,
        first_by_head=_by_head(tables, [0]),
        part_by_head=_by_head(tables, in_best),
    )


def _asks(reading: Reading, prompt: Sequence[Token]) -> np.ndarray:
    """Which tokens of the prompt ask, as far as sources that were sought have told."""
    asks = (reading.settings.get("sources") or {}).get("question")
    start, end = (asks["start"], asks["end"]) if asks else (0, 0)
    return np.array([key.start < end and start < key.end for key in prompt], dtype=bool)


def text_kind(reading: Reading) -> str:
    """The attention within one text that a reading has. Raises RegardError, saying why, if it has none."""
    for kind in ("decoder", "encoder"):
        if kind in reading.kinds:
            return kind
    why = next((f": {kind} layer {layer} was refused, {why}" for (kind, layer), why in reading.refused.items()), "")
    raise RegardError(f"{reading.model}: no attention within a text was read{why}")


def written_tokens(reading: Reading) -> list[Token]:
    """The tokens of the answer, without one that only ends it."""
    tokens = reading.sequences[reading.sides[text_kind(reading)][1]].tokens
    count = reading.settings.get("prompt_tokens", 0)
    return tokens[count : len(tokens) - reading.settings.get("end_tokens", 0)] if count else []


def chosen_rows(reading: Reading, kind: str, count: int, token: str | None) -> tuple[list[int], str]:
    """The kept rows to look at, and what to call them."""
    positions = reading.rows(kind)
    # of an encoder, which writes nothing, the tokens that look
    asked: list[Token | None] = [*(reading.written(kind) or reading.queries(kind))]
    rows = [row for row, position in enumerate(positions) if position >= count - 1] or list(range(len(positions)))
    if not rows:
        raise RegardError("no row was kept whole; name other rows, or all")
    if token is None:
        if len(rows) > 1:
            is_text = all(each is None or each.sort == "token" for each in asked)
            whole = f"{len(rows)} tokens of the text" if is_text else f"{len(rows)} positions"
            return rows, f"the whole answer ({len(rows)} tokens)" if count else whole
        last = asked[rows[0]]
        return rows, f"the token after {_quoted(reading.queries(kind)[rows[0]].text)}" if last is None else name_of(
            [last]
        )
    if re.fullmatch(r"-?\d+", token):
        if not -len(rows) <= int(token) < len(rows):
            raise RegardError(
                f"there is no token {token}: the rows that were read wrote tokens 0 to {len(rows) - 1}; a number that "
                f"was written is found in quotes: --token '\"{token}\"'"
            )
        row = rows[int(token)]
        return [row], name_of([asked[row]])
    return _rows_of_text(reading.sequences[reading.sides[kind][0]].text, asked, rows, token.strip('"'))


def _rows_of_text(text: str, asked: Sequence[Token | None], rows: list[int], wanted: str) -> tuple[list[int], str]:
    """The rows that wrote the first place where this text stands whole."""
    tokens = {row: found for row in rows if (found := asked[row]) is not None}
    for match in re.finditer(re.escape(wanted), text) if wanted.strip() else ():
        start, end = match.span()
        found = [row for row, token in tokens.items() if token.start < end and start < token.end]
        if found and tokens[found[0]].start <= start and end <= tokens[found[-1]].end:
            return found, name_of([tokens[row] for row in found])
    written = shorten(printable("".join(token.text for token in tokens.values()).strip()), 60)
    raise RegardError(f"{wanted!r} was not written; the rows that were read wrote {_quoted(written)}")


def name_of(tokens: Sequence[Token | None]) -> str:
    name = _quoted("".join(token.text for token in tokens if token is not None))
    return name if len(tokens) == 1 else f"{name} ({len(tokens)} tokens)"


def _quoted(text: str) -> str:
    return f"“{shorten(printable(text.strip() or text), LONGEST_NAME)}”"


def mean_head(tables: list[np.ndarray], layer: int | None, head: int | None) -> Float[np.ndarray, "row key"]:
    heads = len(tables[0])
    if head is not None and not 0 <= head < heads:
        where = "the model's layers have" if layer is None else f"layer {layer} has"
        raise RegardError(f"there is no head {head}; {where} heads 0 to {heads - 1}")
    if head is not None:
        return np.stack([table[head] for table in tables]).mean(axis=0, dtype=np.float64)
    # layers may have different numbers of heads, and every head counts alike
    return np.asarray(sum(table.sum(axis=0, dtype=np.float64) for table in tables)) / sum(map(len, tables))


def scope_of(layers: list[int], tables: list[np.ndarray], layer: int | None, head: int | None) -> str:
    heads = {len(table) for table in tables}
    how_many = f"{heads.pop()} heads each" if len(heads) == 1 else f"{sum(map(len, tables))} heads in all"
    if head is None:
        return f"mean of {len(layers)} layers, {how_many}" if layer is None else f"layer {layer}, mean of its heads"
    return f"head {head}, mean of {len(layers)} layers" if layer is None else f"layer {layer}, head {head}"


def _begins(sequence: Tokens) -> Iterator[int]:
    """Where each word begins in the text, −1 where a file has one that is not there."""
    end = 0
    for word in sequence.words:
        begin = sequence.text.find(word, end)
        end = begin + len(word) if begin >= 0 else end
        yield begin


def _parts(text: str, end: int, turns: Sequence[dict[str, Any]], segments: str) -> list[Span]:
    """The parts of a text up to `end`; of a chat those of its messages."""
    messages = [(turn["start"], turn["end"]) for turn in turns]
    if turns and segments == "turns":
        return messages
    # a picture has no sentences
    messages = [place for place, turn in zip(messages, turns, strict=True) if turn["role"] != "image"]
    found: list[Span] = []
    for start, stop in messages or [(0, end)]:
        starts = [start + place for place in SEGMENTERS[segments](text[start:stop])]
        found += zip(starts, [*starts[1:], stop], strict=True)
    return found


def _turn(turns: Sequence[dict[str, Any]], token: Token) -> int | None:
    """The message that a token has a part of: None of the template's, 0 of a text that is no chat."""
    if not turns:
        return 0
    number = bisect_right(turns, token.end - 1, key=lambda turn: turn["start"]) - 1
    return number if number >= 0 and token.start < turns[number]["end"] else None


def _part(text: str, starts: list[int], token: Token) -> int:
    # a token that begins with the space before a sentence is part of it, one of spaces alone is not
    begin = token.end - (len(text[token.start : token.end].lstrip()) or token.end - token.start)
    return max(0, bisect_right(starts, begin) - 1)


def _inside(found: Sequence[Fold], size: int) -> list[Fold | None]:
    """Of each position the picture that it stands for."""
    inside: list[Fold | None] = [None] * size
    for fold in found:
        inside[fold.first : fold.last] = [fold] * (fold.last - fold.first)
    return inside


def _ranked(words: Sequence[str], weights: Any, inside: Sequence[int]) -> list[Word]:
    order = sorted(inside, key=lambda index: -weights[index])
    return [Word(words[index], float(weights[index])) for index in order if weights[index] > 0]


def _by_word(reading: Reading, kind: str, rows: list[int], words: Float[np.ndarray, "row word"]) -> list[Answered]:
    """For each word of the answer, what its rows looked at, ordered by how far that is above the mean of all rows."""
    sequence, written = reading.sequences[reading.sides[kind][0]], reading.written(kind)
    assert written is not None
    rows_of: dict[int, list[int]] = {}
    shown = {word for token in written_tokens(reading) for word in token.words}
    for place, row in enumerate(rows):
        for word in getattr(written[row], "words", []):
            if word in shown:
                rows_of.setdefault(word, []).append(place)
    found = []
    for word, places in rows_of.items():
        own = words[places].mean(axis=0)
        above = own - words.mean(axis=0) if len(rows) > 1 else own
        order = np.argsort(-above, kind="stable")
        looked = [Word(sequence.words[index], float(own[index])) for index in order if own[index] > 0]
        found.append(Answered(sequence.words[word], looked))
    return found


def _by_head(tables: list[np.ndarray], keys: list[int]) -> Float[np.ndarray, "layer head"]:
    """The mean share of these keys; NaN where a layer has fewer heads than another."""
    result = np.full((len(tables), max(map(len, tables))), np.nan)
    for row, table in enumerate(tables):
        result[row, : len(table)] = table[:, :, keys].sum(axis=2).mean(axis=1)
    return result
