"""The passages that an answer rests on, for a terminal."""

import math
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from regard.errors import RegardError
from regard.reading.answer_run import FOREIGN
from regard.reading.media import Sound
from regard.reading.media_sources import MediaSource, MediaSources
from regard.reading.reading import Reading
from regard.reading.source_record import Sentence, Source, Sources, numbered
from regard.reading.sources import CONFIRMED
from regard.view.pictures import has_pictures
from regard.view.progress import counting
from regard.view.terminal import QUIET_STYLE, SHADE_STYLE, STRONGEST_STYLE, bar
from regard.view.words import printable, shorten

# passages that are listed, and columns of a bar
MOST, BAR = 6, 8
# sources whose loss is told in words
MOST_NAMED = 3
SEEKING = "what the answer rests on"


class SourcesView:
    """The verdict, and the strongest passages with what removing each does."""

    def __init__(self, found: Sources) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found, width = self.found, options.max_width
        line = Text(f"\nThis answer {found.verdict}", "bold")
        if found.verdict.on:
            line.append(f"\n{_told(found)}", f"not bold {QUIET_STYLE}")
        yield line
        if found.sentences:
            yield Text("\nEach sentence of the answer, by its own tokens", QUIET_STYLE)
        yield from map(_sentence, found.sentences)
        yield Text(
            "\nWhat the answer loses without each, in nats of its log-probability; ≈ marks an estimate", QUIET_STYLE
        )
        most = max((-each.strength for each in found), default=0.0)
        listed = [*enumerate(found.sources[: max(MOST, 1 + max(found.verdict.on, default=0))])]
        for number, source in listed:
            yield _line(numbered(number), source, most, width, is_named=number in found.verdict.on)
        if left := len(found) - len(listed):
            others = found.sources[len(listed) :]
            is_known = all(each.effect is not None for each in others)
            strength = -sum(each.strength for each in others)
            yield Text(f"  {_figure(strength, '' if is_known else '≈')} {' ' * BAR} the other {left:,}", QUIET_STYLE)
        if found.question is not None:
            yield _line("?", found.question, most, width, is_named=False)
        if found.method == "heads":
            yield Text(f"Estimates are from heads that copy: {found.why}", QUIET_STYLE)


class MediaSourcesView:
    """The verdict on an answer about pictures or sounds, and their strongest parts with what hiding each does."""

    def __init__(self, found: MediaSources) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found, width = self.found, options.max_width
        line = Text(f"\nThis answer {found.verdict}", "bold")
        if found.verdict.on:
            line.append(f"\n{_told(found)}", f"not bold {QUIET_STYLE}")
        yield line
        yield Text(
            "\nWhat the answer loses where each is hidden, in nats; ≤ marks the most, by its gradient", QUIET_STYLE
        )
        most = max(-each.effect for each in found if each.effect is not None)
        for number, part in enumerate(found.sources[: max(MOST, 1 + max(found.verdict.on, default=0))]):
            yield _line(numbered(number), part, most, width, is_named=number in found.verdict.on)


def sources_view(found: Sources | MediaSources) -> RenderableType:
    """What a terminal shows of sources."""
    return MediaSourcesView(found) if isinstance(found, MediaSources) else SourcesView(found)


def with_sources(reading: Reading) -> tuple[Reading, list[RenderableType]]:
    """A reading with the sources of its answer in its settings, and what a terminal shows of them.

    Where that cannot be found out, why; nothing of a reading without an answer.
    """
    if not reading.settings.get("prompt_tokens") or "text" not in reading.sequences:
        return reading, []
    if has_pictures(reading):
        # it would take several runs more
        hint = "`regard sources` with the same image finds the regions that this answer rests on"
        return reading, [Text(f"\n{hint}", QUIET_STYLE)]
    if any(isinstance(each, Sound) for each in reading.media):
        hint = "`regard sources` with the same audio finds the seconds that this answer rests on"
        return reading, [Text(f"\n{hint}", QUIET_STYLE)]
    try:
        with counting(SEEKING, CONFIRMED + 1) as progress:
            found = reading.sources(progress=progress)
    # the reading is there, whatever the model does without a part of its prompt
    except (RegardError, *FOREIGN) as error:
        return reading, [Text(f"\nWhat this answer rests on is not known: {error}", QUIET_STYLE)]
    return replace(reading, settings={**reading.settings, "sources": found.to_json()}), [sources_view(found)]


def _told(found: Sources | MediaSources) -> str:
    if found.verdict.either:
        assert found.together is not None
        return f"either is enough; without all that were tried it is {_times(-found.together)}"
    on = found.verdict.on
    named = [f"without {numbered(number)} it is {_times(-found[number].strength)}" for number in on[:MOST_NAMED]]
    # the others stand in the list
    return "; ".join([*named, "…"] if len(on) > MOST_NAMED else named)


def _sentence(sentence: Sentence) -> Text:
    names = "".join(numbered(number) for number in sentence.verdict.on) or "–"
    line = Text(f"{names} ", STRONGEST_STYLE if sentence.verdict.on else QUIET_STYLE)
    return line.append(printable(" ".join(sentence.text.split())), "not bold")


def _times(nats: float) -> str:
    """exp(nats) in words."""
    return (
        f"{math.exp(nats):,.0f} times less likely" if nats < 14 else f"10^{nats / math.log(10):.0f} times less likely"
    )


def _line(name: str, source: Source | MediaSource, most: float, width: int, *, is_named: bool) -> Text:
    is_known = source.effect is not None
    line = Text(f"{name} ", STRONGEST_STYLE if is_named else QUIET_STYLE, no_wrap=True)
    is_bound = isinstance(source, MediaSource) and not is_known
    figure = _figure(-source.strength, "" if is_known else "≤" if is_bound else "≈")
    line.append(figure, "not bold" if is_known else f"not bold {QUIET_STYLE}")
    share = 0.0 if is_bound or most <= 0 else max(0.0, -source.strength) / most
    line.append(f" {bar(min(1.0, share), BAR)} ", f"not bold {SHADE_STYLE}")
    text = shorten(printable(" ".join(source.text.split())), max(4, width - line.cell_len))
    return line.append(text, "bold" if is_named else "not bold")


def _figure(loss: float, mark: str) -> str:
    # what rounds to 0 has no sign
    return f"{mark}{round(loss, 2) + 0.0:.2f}".rjust(8)
