"""Which parts of pictures or sounds an answer rests on: ranked from one run and its gradient, confirmed by hiding them.

They are ranked by how far hiding a part moves each context of the text, times the length of the answer's gradient by
that context: what hiding it can do at most, to first order. Where a position looks at one part alone, hiding that is a
large step, over which the gradient still says how much hangs on the context, but not which way it goes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.media import Area, ImageArea, SoundSpan
from regard.reading.media_asked import AskedMedia
from regard.reading.media_hiding import MediaHiding
from regard.reading.probe import Probe
from regard.reading.record import Token
from regard.reading.source_record import Verdict, numbered
from regard.reading.sources import RESTS, SourceOptions, chosen_tokens, confirm_strongest

# regions of a picture along each side, at most
MOST_REGIONS = 8
# seconds of a part of a sound, and parts of a sound at least and at most
SECONDS, LEAST_SPANS, MOST_SPANS = 0.5, 4, 64


@final
@dataclass(frozen=True)
class MediaSource:
    """A region of a picture or a span of a sound, and what it did to the answer's log-probability, in nats.

    The `area` of a region is the box around its patches, by the row and column of the region. `effect` is what hiding
    it does in truth, None where that was not tried; `bound`, never above 0, is the most that it takes, to first order.
    `share` is its part of what all that were tried, and made the answer likelier, did. `positions` are those of
    its patches or frames among the keys.
    """

    area: Area
    bound: float
    effect: float | None
    share: float
    positions: tuple[int, ...]

    @property
    def strength(self) -> float:
        """The effect where it is known, else the bound."""
        return self.bound if self.effect is None else self.effect

    @property
    def text(self) -> str:
        """What it is called."""
        if isinstance(self.area, SoundSpan):
            return f"sound {self.area.sound + 1}, {self.area.start:.2f}–{self.area.end:.2f} s"
        left, top, right, bottom = map(round, self.area[3:])
        return f"image {self.area.image + 1}, x {left}–{right}, y {top}–{bottom}"


@final
@dataclass(frozen=True, eq=False)
class MediaSources(Sequence[MediaSource]):
    """The parts of the pictures or sounds that a model was given, strongest first, with the verdict on its answer.

    `log_probability` is the answer's; `together` is what hiding the confirmed parts at once does, None where one of
    them alone is enough. `passes` is the cost in runs over prompt and answer, a backward pass counted as two.
    """

    answer: str
    sources: tuple[MediaSource, ...]
    log_probability: float
    together: float | None
    verdict: Verdict
    passes: float

    def __repr__(self) -> str:
        return f"<MediaSources of {self.answer!r}: {self.verdict}>"

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: Any) -> Any:
        return self.sources[index]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        verdict = {"text": self.verdict.text, "on": list(self.verdict.on), "either": self.verdict.either}
        return {
            "answer": self.answer,
            "verdict": verdict,
            "log_probability": self.log_probability,
            "together": self.together,
            "passes": round(self.passes, 2),
            "sources": [
                {**each.area._asdict(), **{name: getattr(each, name) for name in ("text", "bound", "effect", "share")}}
                for each in self.sources
            ],
        }


def find_media_sources(
    asked: AskedMedia,
    options: SourceOptions | None = None,
    *,
    progress: Callable[[int], None] = lambda steps: None,
) -> MediaSources:
    """The parts of its pictures or sounds that an answer rests on; of the options `of` and `confirm` alone.

    Regions are at most an eighth of a picture's width and height. Spans of a sound are half a second; a quarter of one
    under 2 seconds, a 64th of one over 32. Those of the largest bounds, `confirm` of them, are hidden to see their
    true effect: fewer where the next could not be named, more while the answer rests on each. `progress` is called with
    1 after each step.
    Raises RegardError for other options, where no patch or frame has a known place, and where the model gives no
    gradient.
    """
    options = options or SourceOptions()
    usual = vars(SourceOptions(of=options.of, confirm=options.confirm))
    if others := [name for name, value in vars(options).items() if value != usual[name]]:
        raise RegardError(f"parts of a picture or sound are sought without {' and '.join(others)}; leave that out")
    if asked.module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    if not asked.answer:
        raise RegardError("the answer is empty; there is nothing that could rest on a picture or sound")
    areas, positions = _parts(asked.keys)
    chosen = chosen_tokens(asked.tokens, asked.answer_tokens, options.of)
    with torch.inference_mode(False):
        judged, bounds, cost = _bounded(asked, positions, chosen)
    progress(1)
    runs, across = 0, None if asked.across is None else len(asked.across.tokens)

    @torch.inference_mode()
    def hidden(numbers: Sequence[int]) -> tuple[float, np.ndarray]:
        nonlocal runs
        gone = [place for number in numbers for place in positions[number]]
        hide = MediaHiding(asked.attends, gone, asked.length, across=across)
        with hide.watched():
            change = asked.run()[chosen].cpu().numpy() - judged
        hide.check()
        runs += 1
        progress(1)
        return float(change.sum()), change

    def together(numbers: Sequence[int]) -> tuple[float, np.ndarray] | None:
        """What hiding several at once does; None where nothing would be left to look at."""
        return hidden(numbers) if sum(len(positions[number]) for number in numbers) < len(asked.keys) else None

    found = confirm_strongest(
        bounds, lambda number: hidden([number]), together, lambda _: cost + runs + 1, options.confirm
    )
    effects = {number: change for number, (change, _) in found.effects.items()}
    total = sum(max(0.0, -change) for change in effects.values()) or 1.0
    order = sorted(effects, key=lambda number: effects[number])
    order += sorted(set(range(len(areas))) - set(order), key=lambda number: bounds[number])
    parts = tuple(
        MediaSource(
            areas[number],
            bound=bounds[number],
            effect=effects.get(number),
            share=max(0.0, -effects.get(number, 0.0)) / total,
            positions=positions[number],
        )
        for number in order
    )
    whole = found.together and found.together[0]
    verdict = _verdict(parts, whole, found.tried)
    return MediaSources(asked.text, parts, float(judged.sum()), whole, verdict, cost + runs)


def _verdict(parts: Sequence[MediaSource], together: float | None, tried: int) -> Verdict:
    verb, medium = ("was heard", "sound") if isinstance(parts[0].area, SoundSpan) else ("was seen", "picture")
    on = tuple(number for number, each in enumerate(parts) if each.effect is not None and each.effect <= -RESTS)
    if on:
        return Verdict(on, False, f"{verb} in {' and '.join(map(numbered, on))}")
    if together is not None and together <= -RESTS * tried:
        return Verdict((0, 1), True, f"{verb} in {numbered(0)} or {numbered(1)}")
    return Verdict((), False, f"rests on no part of a {medium}: on the text, or on what the model knows")


def _parts(keys: Sequence[Token]) -> tuple[list[Area], list[tuple[int, ...]]]:
    """The regions of pictures, or else the spans of sounds, and the positions of their patches or frames."""
    images: dict[int, dict[int, ImageArea]] = {}
    sounds: dict[int, dict[int, SoundSpan]] = {}
    for position, token in enumerate(keys):
        if isinstance(token.area, ImageArea):
            images.setdefault(token.area.image, {})[position] = token.area
        elif isinstance(token.area, SoundSpan):
            sounds.setdefault(token.area.sound, {})[position] = token.area
    found = [part for own in images.values() for part in _regions(own)] or [
        part for own in sounds.values() for part in _spans(own)
    ]
    if not found:
        raise RegardError(
            "none of the model's keys is an image patch or audio frame whose place is known; sources need one"
        )
    return [area for area, _ in found], [positions for _, positions in found]


def _regions(areas: dict[int, ImageArea]) -> list[tuple[Area, tuple[int, ...]]]:
    """Those of one picture."""
    left, top = min(area.left for area in areas.values()), min(area.top for area in areas.values())
    width, height = max(area.right for area in areas.values()) - left, max(area.bottom for area in areas.values()) - top
    # edges that differ by rounding are one edge
    columns = min(MOST_REGIONS, len({(round(area.left, 2), round(area.right, 2)) for area in areas.values()}))
    rows = min(MOST_REGIONS, len({(round(area.top, 2), round(area.bottom, 2)) for area in areas.values()}))
    found: dict[tuple[int, int], list[int]] = {}
    for position, area in areas.items():
        column = int(((area.left + area.right) / 2 - left) / width * columns)
        row = int(((area.top + area.bottom) / 2 - top) / height * rows)
        found.setdefault((row, column), []).append(position)
    return [(_box(place, [areas[position] for position in own]), tuple(own)) for place, own in found.items()]


def _box(place: tuple[int, int], areas: Sequence[ImageArea]) -> ImageArea:
    edges = [min(area.left for area in areas), min(area.top for area in areas)]
    edges += [max(area.right for area in areas), max(area.bottom for area in areas)]
    return ImageArea(areas[0].image, *place, *edges)


def _spans(areas: dict[int, SoundSpan]) -> list[tuple[Area, tuple[int, ...]]]:
    """Those of one sound."""
    seconds = max(area.end for area in areas.values())
    length = min(max(SECONDS, seconds / MOST_SPANS), seconds / LEAST_SPANS)
    found: dict[int, list[int]] = {}
    for position, area in areas.items():
        found.setdefault(math.floor((area.start + area.end) / 2 / length), []).append(position)
    return [
        (SoundSpan(areas[own[0]].sound, areas[own[0]].start, areas[own[-1]].end), tuple(own)) for own in found.values()
    ]


def _bounded(
    asked: AskedMedia, positions: Sequence[tuple[int, ...]], chosen: slice
) -> tuple[Float[np.ndarray, " judged"], list[float], float]:
    """log p of the judged tokens, each part's bound, and the cost in runs."""
    length, across = (asked.length, None) if asked.across is None else (len(asked.across.tokens), asked.length)
    numbers = torch.full((length,), -1)
    for number, own in enumerate(positions):
        numbers[list(own)] = number
    probe = Probe(asked.attends, numbers, [asked.prompt - 1], bounds=True, across=across)
    with probe.open():
        found = asked.run()[chosen]
        torch.autograd.backward(found.sum())
    refused = [f"{path}: {why}" for path, why in probe.refused.items()]
    if refused or not probe.effects.isfinite().all() or not probe.rows:
        why = refused[0] if refused else "its gradients are no numbers, or it attends in no way that is known here"
        raise RegardError(f"sources of a picture or sound need gradients of the model's attention: {why}")
    return found.detach().cpu().numpy(), (-probe.effects).tolist(), 3.0 + probe.recomputes
