"""A sound in a terminal: its loudness in blocks over a time axis, and below it where each written word looked."""

from collections.abc import Iterator

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from regard.reading.reading import Reading
from regard.view.answer import heading
from regard.view.proof import proof
from regard.view.speech import Heard, heard, loudness, over
from regard.view.terminal import QUIET_STYLE, SHADE_STYLE, STRONGEST_STYLE, bar
from regard.view.words import percent, printable, shorten

BLOCKS = " ▁▂▃▄▅▆▇█"
BAR, WIDEST, NARROWEST, MOST_LINES = 12, 100, 8, 120
# columns from one number of the time axis to the next, at least
TICK_EVERY = 10
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


class SpeechView:
    """`Heard` for a terminal of any width; without colour nothing is lost."""

    def __init__(self, found: Heard) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found, width = self.found, options.max_width
        yield heading(f"What {found.subject} looked at in the sound", found.scope, width)
        names = [printable(line.text) for line in found.lines]
        side = min(max(map(cell_len, names), default=0), max(width // 4, 4))
        times = [f"{line.time.start:.2f}–{line.time.end:.2f}" if line.time else "" for line in found.lines]
        beside = max(map(len, times), default=0) if width >= 60 else 0
        lead = side + beside + 2 if found.lines else 1
        columns = max(NARROWEST, min(WIDEST, width - lead))
        sound = found.sound
        yield Text(shorten(f"{printable(sound.name)} · {sound.seconds:.2f} s", width), QUIET_STYLE)
        yield Text(" " * lead + blocks(loudness(sound, columns)), QUIET_STYLE, no_wrap=True)
        yield Text(" " * lead + axis(sound.seconds, columns), QUIET_STYLE, no_wrap=True)
        if not found.lines:
            yield Text(" " * lead + blocks(_scaled(over(found, found.whole, columns))), SHADE_STYLE, no_wrap=True)
        for name, time, line in zip(names[:MOST_LINES], times, found.lines, strict=False):
            short = shorten(name, side)
            row = Text(" " * (side - cell_len(short)) + short + " ", no_wrap=True)
            if beside:
                row.append(f"{time:>{beside}} ", QUIET_STYLE)
            shown = _scaled(over(found, line.weights, columns))
            strongest = int(shown.argmax())
            spoken = (line.time.start, line.time.end) if line.time else (0.0, 0.0)
            for place, letter in enumerate(blocks(shown)):
                second = (place + 0.5) / columns * sound.seconds
                style = STRONGEST_STYLE if place == strongest else SHADE_STYLE
                row.append(letter, f"{style} underline" if spoken[0] <= second < spoken[1] else style)
            yield row
        if len(found.lines) > MOST_LINES:
            left = len(found.lines) - MOST_LINES
            yield Text(f" … and {left:,} more; --token shows any one", QUIET_STYLE)
        if found.lines:
            yield Text(
                f"blocks: weight over time, each line to its own largest; {found.note}".rstrip("; "), QUIET_STYLE
            )
        yield Text()
        names_of_shares = max(cell_len(name) for name, _ in found.shares)
        for name, share in found.shares:
            line = Text(f" {name}{' ' * (names_of_shares - cell_len(name))} ", no_wrap=True)
            line.append(f"{percent(share):>7}  ", "bold").append(bar(share, BAR), SHADE_STYLE)
            line.truncate(width, overflow="ellipsis")
            yield line


def speech_view(
    reading: Reading, *, layer: int | None = None, head: int | None = None, token: str | None = None
) -> list[RenderableType]:
    """What was written of a sound, where each word looked in it, and what proves it. Raises as `heard`."""
    found = heard(reading, layer=layer, head=head, token=token)
    # what cannot be shown is told before anything is
    loudness(found.sound, 1)
    written = reading.sequences.get("target")
    text = [Text(printable(written.text) or "(nothing was written)")] if written is not None else []
    return [*text, SpeechView(found), Text(f"\n{proof(reading)}", QUIET_STYLE)]


def blocks(values: np.ndarray) -> str:
    """Values from 0 to 1 as blocks of eight heights; what is above 0 is seen."""
    heights = np.ceil(np.clip(values, 0, 1) * (len(BLOCKS) - 1) - 1e-9).astype(int)
    return "".join(BLOCKS[height] for height in np.where(values > 0.02, heights, 0))


def axis(seconds: float, columns: int) -> str:
    """Marks of a time axis, each where its first digit stands."""
    most = max(1, columns // TICK_EVERY)
    step = next((step for step in STEPS if seconds / step <= most), STEPS[-1])
    line = [" "] * columns
    for number in range(int(seconds / step) + 1):
        told = f"{number * step:g}" + (" s" if number == 0 else "")
        place = int(number * step / seconds * columns)
        if place + len(told) <= columns:
            line[place : place + len(told)] = told
    return "".join(line)


def _scaled(values: np.ndarray) -> np.ndarray:
    return values / (values.max() or 1.0)
