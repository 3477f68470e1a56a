"""Which parts of a picture an answer rests on: ranked from one run and its gradient, confirmed by hiding them.

A patch cannot be taken out of a picture as a sentence is out of a page. It is hidden: in every layer of the text model
no other position looks at it any more, and all other weights keep their proportions. The estimate is what the gradient
by each context says of how that changes. What the vision model spread over other patches stays in sight.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.answer_run import FOREIGN
from regard.reading.call import AttentionCall, Visibility, contexts, exact_weights
from regard.reading.capture import patches, session
from regard.reading.compute.rows import unflattened
from regard.reading.compute.tiles import Text, rows_of, tiles
from regard.reading.compute.verify import SAMPLE, check_rows, complaint
from regard.reading.layouts import Layout
from regard.reading.media import ImageArea
from regard.reading.probe import Probe
from regard.reading.record import Sequence as Tokens
from regard.reading.source_record import Verdict, numbered
from regard.reading.sources import CONFIRMED, RESTS, confirm_strongest

# regions of a picture along each side, at most
MOST_REGIONS = 8


@final
@dataclass(frozen=True)
class Region:
    """A part of picture number `image`: the pixels from `left`, `top` to `right`, `bottom`, and what it did.

    `estimate` and `effect` are changes of the answer's log-probability in nats where it is hidden, by the gradient and
    in truth; `effect` is None where that was not tried. `share` is its part of what all regions that made the answer
    likelier did. `positions` are its patches among the model's tokens.
    """

    image: int
    left: float
    top: float
    right: float
    bottom: float
    estimate: float
    effect: float | None
    share: float
    positions: tuple[int, ...]

    @property
    def strength(self) -> float:
        """The effect where it is known, else the estimate."""
        return self.estimate if self.effect is None else self.effect

    @property
    def text(self) -> str:
        """What it is called."""
        left, top, right, bottom = (round(each) for each in (self.left, self.top, self.right, self.bottom))
        return f"image {self.image + 1}, x {left}–{right}, y {top}–{bottom}"


@final
@dataclass(frozen=True, eq=False)
class MediaSources(Sequence[Region]):
    """The regions of the pictures that a model was given, strongest first, with the verdict on its answer.

    `log_probability` is the answer's; `together` is what hiding the confirmed regions at once does, None where one of
    them alone is enough. `passes` is the cost in runs over prompt and answer, a backward pass counted as two.
    """

    answer: str
    sources: tuple[Region, ...]
    log_probability: float
    together: float | None
    verdict: Verdict
    passes: float
    method: str = "gradient"

    def __repr__(self) -> str:
        return f"<MediaSources of {self.answer!r}: {self.verdict}>"

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: Any) -> Any:
        return self.sources[index]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        names = ("image", "left", "top", "right", "bottom", "estimate", "effect", "share")
        verdict = {"text": self.verdict.text, "on": list(self.verdict.on), "either": self.verdict.either}
        return {
            "answer": self.answer,
            "verdict": verdict,
            "log_probability": self.log_probability,
            "together": self.together,
            "passes": round(self.passes, 2),
            "sources": [{name: getattr(region, name) for name in names} for region in self.sources],
        }


@dataclass(frozen=True, eq=False)
class AskedMedia:
    """A model, the tokens of a prompt with pictures and of its answer, and the arguments of a run over token ids.

    `fed` are the ids of prompt and answer, `prompt` counts the prompt's, `ends` those that only end the answer.
    """

    module: Any
    tokens: Tokens
    fed: list[int]
    prompt: int
    inputs: Callable[[Tensor], Mapping[str, Any]]
    ends: int = 0

    @property
    def answer(self) -> list[int]:
        return self.fed[self.prompt : len(self.fed) - self.ends]

    @property
    def text(self) -> str:
        """The answer's, without what only ends it."""
        own = self.tokens.tokens[self.prompt : self.prompt + len(self.answer)]
        return self.tokens.text[own[0].start : own[-1].end].strip()

    @property
    def length(self) -> int:
        """How many tokens a run is fed: nothing is asked of the answer's last."""
        return self.prompt + len(self.answer) - 1

    @property
    def attends(self) -> nn.Module:
        """The part of the model that runs over the tokens; the vision model is no part of it."""
        find = getattr(self.module, "get_decoder", None)
        found = None if find is None else find()
        return found if isinstance(found, nn.Module) else self.module

    def run(self) -> Float[Tensor, " answer"]:
        """log p of each token of the answer."""
        fed, count = self.fed[: self.length], len(self.answer)
        device = next(self.module.parameters()).device
        arguments = self.inputs(torch.tensor([fed], device=device))
        try:
            logits = self.module(**{**arguments, "use_cache": False}).logits
        except FOREIGN as error:
            name = type(self.module).__name__
            raise RegardError(f"{name} does not run on these inputs: {type(error).__name__}: {error}") from error
        found = logits[0, -count:].double().log_softmax(-1)
        found = found.gather(1, torch.tensor(self.answer, device=device)[:, None])[:, 0]
        if not found.isfinite().all():
            raise RegardError(f"{type(self.module).__name__} gives no finite probability of the answer")
        return found


def find_media_sources(
    asked: AskedMedia, *, confirm: int = CONFIRMED, progress: Callable[[int], None] = lambda steps: None
) -> MediaSources:
    """The regions of its pictures that an answer rests on, each at most an eighth of a picture's width and height.

    `confirm` regions, those of the largest estimates of either sign, are hidden to see their true effect: fewer where
    the next could not be named, more while the answer rests on each. `progress` is called with 1 after each step.
    Raises RegardError where no patch has a known place, and where the model gives no gradient.
    """
    if asked.module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    if not asked.answer:
        raise RegardError("the answer is empty; there is nothing that could rest on a picture")
    boxes, positions = _regions(asked.tokens, asked.prompt)
    with torch.inference_mode(False):
        first, estimates, cost = _estimated(asked, positions)
    progress(1)
    judged, runs = first.numpy(), 0

    @torch.inference_mode()
    def hidden(*numbers: int) -> tuple[float, np.ndarray]:
        nonlocal runs
        hide = RegionHiding(asked.attends, [place for number in numbers for place in positions[number]], asked.length)
        with hide.watched():
            change = asked.run().cpu().numpy() - judged
        hide.check()
        runs += 1
        progress(1)
        return float(change.sum()), change

    # where a position looks at one patch alone the gradient knows how much it matters, but not always its sign
    sizes = [-abs(estimate) for estimate in estimates]
    found = confirm_strongest(sizes, hidden, lambda numbers: hidden(*numbers), lambda _: cost + runs + 1, confirm)
    effects = found.effects
    strengths = [effects[number][0] if number in effects else estimate for number, estimate in enumerate(estimates)]
    total = sum(max(0.0, -each) for each in strengths) or 1.0
    order = sorted(range(len(boxes)), key=lambda number: (number not in effects, strengths[number]))
    regions = tuple(
        Region(
            *boxes[number],
            estimate=estimates[number],
            effect=effects[number][0] if number in effects else None,
            share=max(0.0, -strengths[number]) / total,
            positions=positions[number],
        )
        for number in order
    )
    whole = found.together and found.together[0]
    verdict = _verdict(regions, whole, found.tried)
    return MediaSources(asked.text, regions, float(judged.sum()), whole, verdict, cost + runs)


def _verdict(regions: Sequence[Region], together: float | None, tried: int) -> Verdict:
    on = tuple(number for number, each in enumerate(regions) if each.effect is not None and each.effect <= -RESTS)
    if on:
        return Verdict(on, False, f"seen in {' and '.join(map(numbered, on))}")
    if together is not None and together <= -RESTS * tried:
        return Verdict((0, 1), True, f"seen in {numbered(0)} or {numbered(1)}")
    return Verdict((), False, "rests on no part of a picture: on the text, or on what the model knows")


def _regions(tokens: Tokens, prompt: int) -> tuple[list[tuple[int, float, float, float, float]], list[tuple[int, ...]]]:
    """Regions of pictures, as the box around their patches, and the positions of these."""
    areas = {
        position: token.area
        for position, token in enumerate(tokens.tokens[:prompt])
        if isinstance(token.area, ImageArea)
    }
    if not areas:
        raise RegardError("no position of the text holds an image patch whose place is known; sources need one")
    found: dict[tuple[int, int, int], list[int]] = {}
    for image in sorted({area.image for area in areas.values()}):
        own = {position: area for position, area in areas.items() if area.image == image}
        left, top = min(area.left for area in own.values()), min(area.top for area in own.values())
        width, height = (max(area[side] for area in own.values()) - edge for side, edge in ((5, left), (6, top)))
        # edges that differ by rounding are one edge
        columns = min(MOST_REGIONS, len({(round(area.left, 2), round(area.right, 2)) for area in own.values()}))
        rows = min(MOST_REGIONS, len({(round(area.top, 2), round(area.bottom, 2)) for area in own.values()}))
        for position, area in own.items():
            column = int(((area.left + area.right) / 2 - left) / width * columns)
            row = int(((area.top + area.bottom) / 2 - top) / height * rows)
            found.setdefault((image, row, column), []).append(position)
    boxes = []
    for (image, _, _), own in found.items():
        parts = [areas[position] for position in own]
        left, top = min(each.left for each in parts), min(each.top for each in parts)
        boxes.append((image, left, top, max(each.right for each in parts), max(each.bottom for each in parts)))
    return boxes, [tuple(each) for each in found.values()]


def _estimated(
    asked: AskedMedia, positions: Sequence[tuple[int, ...]]
) -> tuple[Float[Tensor, " answer"], list[float], float]:
    """log p of the answer's tokens, each region's estimate, and the cost in runs."""
    parts = torch.full((asked.length,), -1)
    for number, own in enumerate(positions):
        parts[list(own)] = number
    probe = Probe(asked.attends, parts, [asked.prompt - 1], whole=True)
    with probe.open():
        found = asked.run()
        torch.autograd.backward(found.sum())
    refused = [f"{path}: {why}" for path, why in probe.refused.items()]
    if refused or not probe.effects.isfinite().all() or not probe.rows:
        why = refused[0] if refused else "its gradients are no numbers, or it attends in no way that is known here"
        raise RegardError(f"sources of a picture need gradients of the model's attention: {why}")
    estimates = [float(probe.effects[list(own)].sum()) for own in positions]
    return found.detach().cpu(), estimates, 3.0 + probe.recomputes


@final
class RegionHiding(session.CallWatch):
    """A watch on one run over `total` tokens that hides the keys at these positions from all other positions."""

    def __init__(self, module: nn.Module, positions: Sequence[int], total: int) -> None:
        super().__init__(module)
        self._positions = torch.tensor(sorted(positions))
        self._total = total
        self._calls = 0
        self._why: str | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, runs of the model in this thread hide them."""
        with patches.opened(self, [self.module]), session.only(self):
            yield

    def check(self) -> None:
        """Raises RegardError where they could not be hidden."""
        why = self._why or ("" if self._calls else "it attends in no way that is known here")
        if why:
            raise RegardError(f"a part of a picture cannot be hidden from the model: {why}")

    # what capture asks of a watch

    def failed(self, path: str, error: Exception) -> None:
        self._why = self._why or f"{path}: {type(error).__name__}: {error}"

    def saw(self, call: AttentionCall) -> None:
        self._calls += 1
        if self._why is None and (why := self._hide(call)) is not None:
            self._why = f"{call.path}: {why}"

    def _hide(self, call: AttentionCall) -> str | None:
        """Write the context without the hidden keys over the call's own; why that cannot be done."""
        if call.refused is not None:
            return call.refused
        if call.flat:
            call = unflattened(call, 1)
        size = call.num_keys
        if len(call.context) != 1 or call.num_queries != size or size != self._total:
            return f"its {call.num_queries} queries and {size} keys are not the tokens"
        proved = _proved(call)
        if isinstance(proved, str):
            return proved
        gone = torch.zeros(size, dtype=torch.bool, device=call.value.device)
        gone[self._positions.to(gone.device)] = True
        found = _contexts(call, proved, gone)
        if found is None:
            return "the hidden part is all that some position sees"
        # positions of the region itself still see it
        call.context[0][:, ~gone] = found[:, ~gone].to(call.context.dtype)
        return None


def _proved(call: AttentionCall) -> Visibility | str:
    """The mask that reproduces the call's context, on a sample of its rows."""
    queries = torch.arange(0, call.num_queries, max(1, call.num_queries // SAMPLE), device=call.value.device)
    why = ""
    for visibility in call.visibilities:
        weights, outside = exact_weights(call, visibility, item=0, queries=queries)
        keys = slice(0, call.num_keys)
        check = check_rows(call, visibility, weights, outside, item=0, queries=queries, keys=keys)
        if (complained := complaint(check, call.value.dtype)) is None:
            return visibility
        why = why or complained
    return why


def _contexts(
    call: AttentionCall, visibility: Visibility, gone: Bool[Tensor, " key"]
) -> Float[Tensor, "head query value_dim"] | None:
    """The context of every row over the keys that are left; None where a row that saw keys has none left."""
    size, everything, none = call.num_keys, slice(0, call.num_keys), torch.zeros(0, dtype=torch.int64)
    layout, text = Layout(0, everything, everything, 0, 0), Text(none, none, none, none, 0)
    softmax = rows_of(call, visibility, layout, k=0)
    group = call.num_heads // len(call.value[0])
    dtype = torch.promote_types(call.value.dtype, torch.float32)
    found = torch.zeros(call.num_heads, size, call.value.shape[-1], dtype=dtype, device=call.value.device)
    for tile in tiles(call, visibility, layout, softmax, item=0, text=text):
        hidden = gone[tile.columns]
        lost = (tile.numerators * hidden).sum(-1)
        left = tile.totals - lost if tile.has_sinks else (tile.numerators * ~hidden).sum(-1)
        if (left[:, ~gone[tile.rows]] <= 0).any():
            return None
        weights = (tile.numerators * ~hidden) / left.clamp(min=1e-30)[..., None]
        keys = slice(tile.heads.start // group, (tile.heads.stop - 1) // group + 1)
        found[tile.heads, tile.rows] = contexts(weights.to(dtype), call.value[0][keys, tile.columns])
    return found
