"""A reading of a language model in the terminal: the prompt shaded by weight, and its strongest parts."""

import itertools
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from regard.reading.reading import Reading
from regard.view.pieces import QUESTION, Piece
from regard.view.proof import proof
from regard.view.shares import Answered, Shares, Word, shares, text_kind, written_tokens
from regard.view.terminal import QUIET_STYLE, SHADE_STYLE, STRONGEST_STYLE, bar
from regard.view.words import percent, printable, shorten

# alike in lightness, so that on a dark terminal as on a light one the strongest stands out by its colour
SHADES = tuple(Style(color="#000000", bgcolor=colour) for colour in ("#a8a39a", "#cdb078", "#f0ab3f", "#ff7f2a"))
FIRST, ASKS = Style(dim=True, underline=True), Style(italic=True)
# parts that are listed, and words of the answer
MOST_PARTS, MOST_WORDS, WORDS_EACH = 5, 16, 3
# a prompt of more characters is shown around its strongest tokens alone: so many pieces to each side
LONGEST_PROMPT, AROUND = 2400, 40
BAR, WIDE = 12, 60
PUNCTUATION = ".,;:!?…·()[]{}«»„“”‘’\"'。，、；：！？「」『』（）"


class AnswerView:
    """`Shares` for a terminal of any width; where it has no colour, the prompt itself is left out."""

    def __init__(self, found: Shares, *, segments: str = "sentences") -> None:
        self.found = found
        self.segments = segments

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found, width = self.found, options.max_width
        whole = "prompt" if found.has_answer else "text"
        yield heading(f"What {found.subject} looked at", found.scope, width)
        if console.color_system is not None and not console.no_color:
            yield Padding(shaded_text(found.pieces, found.strongest[:MOST_PARTS], scale=scale(found)), (0, 1))
            yield Text()
            yield Padding(legend(scale(found)), (0, 1))
            yield Text()
        yield from balance(found, whole=whole, width=width)
        if not any(part.share for part in found.parts):
            yield Text(f"\nNothing to rank: no weight is on the {whole} beyond its first token.")
        elif len(found.parts) > 1:
            yield heading(f"Strongest {self.segments} of the {whole}", "", width)
        else:
            yield heading(f"Strongest words of the {whole}", "", width)
        yield from part_lines(found, width=width)
        if len(found.by_word) > 1:
            yield heading("Word by word", "prompt words it looked at more than the other rows", width)
            yield from word_lines(found.by_word, width=width)


def scale(found: Shares) -> list[float]:
    """The least share of each shade, the weakest first: each is half of the next."""
    top = max((piece.share for piece in found.pieces), default=0.0)
    return [top / 2**step for step in range(len(SHADES), 0, -1)]


def shaded_text(pieces: Sequence[Piece], strongest: Sequence[int], *, scale: Sequence[float]) -> Text:
    """The pieces as text; of a long one windows around the strongest token of each of these parts."""
    text = Text()
    for is_shown, group in itertools.groupby(
        zip(pieces, _windows(pieces, strongest), strict=True), lambda each: each[1]
    ):
        run = [piece for piece, _ in group]
        if not is_shown:
            count, share = sum(piece.tokens for piece in run), sum(piece.share for piece in run)
            text.append("\n" if text else "").append(f"⋯ {count:,} tokens with {percent(share)}\n", QUIET_STYLE)
            continue
        for piece in run:
            shade = sum(piece.share >= least > 0 for least in scale)
            style = SHADES[shade - 1] if shade else ""
            style = ASKS if piece.part == QUESTION else style
            style = QUIET_STYLE if piece.is_folded else FIRST if piece.is_first else style
            for number, line in enumerate(piece.text.replace("\t", "    ").split("\n")):
                if number:
                    text.append("\n")
                # the space before a word is part of its token and would only make the shade look shifted
                bare = line.lstrip(" ")
                text.append(" " * (len(line) - len(bare))).append(printable(bare), style)
    text.rstrip()
    return text


def _windows(pieces: Sequence[Piece], strongest: Sequence[int]) -> list[bool]:
    if sum(len(piece.text) for piece in pieces) <= LONGEST_PROMPT:
        return [True] * len(pieces)
    shown = [False] * len(pieces)
    for part in strongest:
        inside = [index for index, piece in enumerate(pieces) if piece.part == part]
        if not inside:
            continue
        centre = max(inside, key=lambda index: pieces[index].share)
        # a short part is shown whole and with what stands around it
        for index in range(max(0, centre - AROUND), min(len(pieces), centre + AROUND + 1)):
            shown[index] = True
    return shown


def legend(scale: Sequence[float]) -> Text:
    text = Text("weight of a token at least", QUIET_STYLE)
    for style, least in zip(SHADES, scale, strict=True):
        text.append("  ").append(f" {percent(least)} ", Style.combine([Style(dim=False), style]))
    return text


def balance(found: Shares, *, whole: str, width: int) -> Iterator[Text]:
    """Where all the weight went, line by line; the lines sum to 100 %."""
    name = shorten(printable(found.first_token.strip() or found.first_token), 16)
    rows = [(f"the {whole}", found.prompt, "")]
    if found.template:
        rows.append(("the template", found.template, "what a chat adds to the messages"))
    if found.question:
        rows.append(("the question", found.question, "left out of shades and parts"))
    if found.images:
        rows.append(("images", found.images, "left out of shades and parts"))
    if found.has_answer:
        rows.append(("the answer itself", found.answer, ""))
    if name:
        rows.append((f"first token {name}", found.first, "left out of shades and parts"))
    if found.outside > 0.005:
        rows.append(("outside the text", found.outside, "the model's own sinks"))
    side = max(cell_len(label) for label, _, _ in rows)
    for label, share, note in rows:
        line = Text(f" {label}{' ' * (side - cell_len(label))} ", no_wrap=True)
        line.append(f"{percent(share):>7}  ", "bold").append(
            bar(share, BAR if width >= WIDE else BAR // 4), SHADE_STYLE
        )
        is_beside = line.cell_len + 2 + cell_len(note) <= width
        if note and is_beside:
            line.append(f"  {note}", QUIET_STYLE)
        line.truncate(width, overflow="ellipsis")
        yield line
        if note and not is_beside:
            yield Text(shorten(f"   {note}", width), QUIET_STYLE)


def part_lines(found: Shares, *, width: int) -> Iterator[Text]:
    """The strongest parts with their share of all weight, and below each its strongest words with theirs."""
    order = found.strongest[:MOST_PARTS]
    top = found.parts[order[0]].share or 1.0
    for part in (found.parts[number] for number in order):
        if part.share == 0:
            continue
        if len(found.parts) > 1:
            line = Text(f"{percent(part.share):>7} ", "bold", no_wrap=True)
            drawn = bar(part.share / top, BAR // 2)
            line.append(f"{drawn} ", f"not bold {SHADE_STYLE}")
            line.append(shorten(printable(part.text), width - line.cell_len), "not bold")
            yield line
        yield _words(part.words, Text(" " * (8 + BAR // 2 + 1), no_wrap=True), width=width, style=QUIET_STYLE)
    # the question, where it stands apart, has no share
    others = [found.parts[number].share for number in found.strongest[MOST_PARTS:] if found.parts[number].share]
    if left := len(others):
        share = sum(others)
        yield Text(f"{percent(share):>7} in the other {left:,}", QUIET_STYLE)


def word_lines(answered: Sequence[Answered], *, width: int) -> Iterator[Text]:
    shown = answered[:MOST_WORDS]
    names = [printable(each.text) for each in shown]
    side = min(max(map(cell_len, names)), max(width // 4, 4))
    for name, each in zip(names, shown, strict=True):
        short = shorten(name, side)
        line = Text(" " * (side - cell_len(short) + 1) + short + " ← ", no_wrap=True)
        yield _words(each.words[:WORDS_EACH], line, width=width, style=SHADE_STYLE, first=STRONGEST_STYLE)
    if left := len(answered) - len(shown):
        yield Text(f" … and {left:,} more; --token shows any one", QUIET_STYLE)


def heading(title: str, note: str, width: int) -> Text:
    """A title and, where there is room for it, a note at the right."""
    text = Text(f"\n{title}", "bold")
    gap = width - cell_len(title) - cell_len(note)
    if note:
        text.append(" " * gap if gap >= 2 else "\n").append(note, f"not bold {QUIET_STYLE}")
    return text


def _words(words: Sequence[Word], line: Text, *, width: int, style: str, first: str | None = None) -> Text:
    for rank, word in enumerate(words):
        name = shorten(printable(word.text.strip(PUNCTUATION) or word.text), max(width // 4, 4))
        piece = f"{'   ' if rank else ''}{name} {percent(word.share).removesuffix(' %')}"
        if line.cell_len + cell_len(piece) > width:
            break
        line.append(piece, first if first and not rank else style)
    return line


def answer_view(
    reading: Reading, *, layer: int | None = None, head: int | None = None, token: str | None = None, segments: str
) -> list[RenderableType]:
    """The answer, what it looked at, and what proves it. The settings, and what is raised, are those of `shares`."""
    found = shares(reading, token=token, layer=layer, head=head, segments=segments)
    answer = written_text(reading)
    return [
        *([Text(answer)] if answer else []),
        AnswerView(found, segments=segments),
        Text(f"\n{proof(reading)}", QUIET_STYLE),
    ]


def written_text(reading: Reading) -> str:
    """What a language model wrote; nothing where it only read."""
    sequence, written = reading.sequences[reading.sides[text_kind(reading)][1]], written_tokens(reading)
    text = sequence.text[written[0].start : written[-1].end].strip() if written else ""
    return "\n".join(map(printable, text.split("\n")))
