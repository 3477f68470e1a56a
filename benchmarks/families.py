"""Which model families are read exactly, on which backend: every architecture of the zoo, beside the witness.

`python -m benchmarks.families` writes docs/families.md. Rows may be off from float64 mathematics on the same query, key
and mask by twice the error of the plain implementation, and by the rounding of a float32 result.
"""

import argparse
import datetime
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import regard
from benchmarks import report, scenario_table, witness, written
from benchmarks.judging import FAILURES, Place, same, tensors
from benchmarks.scenarios import SCENARIOS, greedy
from benchmarks.truths import by_place, without_padding
from benchmarks.zoo import ARCHITECTURES, Architecture
from benchmarks.zoo.architecture import IMPLEMENTATIONS
from benchmarks.zoo.decoders import DECODERS
from benchmarks.zoo.sounds import SOUNDS
from benchmarks.zoo.translators import TRANSLATORS
from regard.models.pretrained.processors import takes
from regard.reading.reading import Reading

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
# of a weight, which is at most 1
FLOAT32_ROUNDING = 2.0**-24
# what a reason says of these inputs alone
COUNTS = re.compile(r"\b\d+(?= (?:queries|keys|windows|tokens|sequences|axes)\b)")


@dataclass
class Outcome:
    """What came of reading one model on one backend in one dtype, forward and, where it can, through generate."""

    read: set[Place] = field(default_factory=set)
    refused: dict[Place, str] = field(default_factory=dict)
    error: float = 0.0
    sequences: int = 0
    # transformers itself, unwatched
    generates: bool = True
    # what must never be: a weight that is wrong, a layer that nothing is said of, another output, a reader that fails
    faults: list[str] = field(default_factory=list)

    def compare(self, reading: Reading, truths: dict[Place, Tensor], bounds: dict[Place, float], how: str) -> None:
        self.sequences += 1
        self.refused |= reading.refused
        for place, weights in reading.maps.items():
            if not weights.size:
                # an encoder, of which no row writes a token
                continue
            self.read.add(place)
            truth = truths.get(place)
            if truth is None or weights.shape != truth.shape:
                self.faults.append(f"{how}: {place} has no rows {weights.shape} to be held against")
            else:
                error = float((torch.as_tensor(weights).double() - truth).abs().max())
                self.error = max(self.error, error)
                if not error <= bounds.get(place, max(bounds.values(), default=0.0)) + FLOAT32_ROUNDING:
                    self.faults.append(f"{how}: {place} is off by {error:.1e}")


def examine(architecture: Architecture, implementation: str, dtype: torch.dtype, bounds: dict[Place, float]) -> Outcome:
    """Read a model and hold every row against the witness."""
    outcome = Outcome()
    try:
        _forward(outcome, architecture, implementation, dtype, bounds)
        if architecture.generates:
            _generate(outcome, architecture, implementation, dtype, bounds)
    except (regard.RegardError, *FAILURES) as error:
        outcome.faults.append(f"{type(error).__name__}: {error}")
    told = outcome.read | outcome.refused.keys()
    for kind, layers in (architecture.layers | architecture.unread).items():
        outcome.faults += [f"nothing is said of {kind} layer {layer}" for layer in layers if (kind, layer) not in told]
    return outcome


def _forward(
    outcome: Outcome, architecture: Architecture, implementation: str, dtype: torch.dtype, bounds: dict[Place, float]
) -> None:
    model, inputs = architecture.build(implementation, dtype=dtype), architecture.inputs(dtype)

    def run() -> list[Tensor]:
        # Reformer hashes at random
        torch.manual_seed(0)
        return list(tensors(model(**inputs)))

    plain = run()
    with regard.watching(model, rows="all") as watch:
        watched = run()
    if not same(plain, watched):
        outcome.faults.append("forward: the output is not what it was")
    truths = by_place(_calls(architecture, model, run))
    for item in range(2):
        reading = watch.reading(item)
        own = {
            place: without_padding(architecture, inputs, place[0], truths[place], item)
            for place in reading.maps.keys() & truths.keys()
        }
        outcome.compare(reading, own, bounds, "forward")


def _generate(
    outcome: Outcome, architecture: Architecture, implementation: str, dtype: torch.dtype, bounds: dict[Place, float]
) -> None:
    model, prompt = architecture.build(implementation, dtype=dtype), architecture.prompt(dtype)
    outputs: list[Any] = []

    def run() -> None:
        outputs.append(model.generate(**prompt, **greedy(architecture)))

    try:
        run()
    except FAILURES:
        outcome.generates = False
        return
    with regard.watching(model, rows="generated") as watch:
        calls = _calls(architecture, model, run)
    plain, watched = (output.sequences for output in outputs)
    if not torch.equal(plain, watched):
        outcome.faults.append("generate: it wrote something else")
    last = [call for call in calls if call.forward == calls[-1].forward]
    is_cached = architecture.kinds != ("decoder",) or all(call.num_queries == 1 for call in last)
    rows = written.from_run(architecture, calls, watched) if is_cached else _of_last(architecture, last, watched)
    for item, truths in enumerate(rows):
        outcome.compare(watch.reading(item), truths, bounds, "generate")


def _of_last(architecture: Architecture, calls: list[witness.Call], sequences: Tensor) -> Iterator[dict[Place, Tensor]]:
    """The rows of written tokens where each step ran over the whole sequence: those of the last run."""
    mask = architecture.prompt()["attention_mask"].bool()
    start = mask.shape[1]
    for item, count in enumerate(written.num_written(architecture, sequences)):
        real = torch.cat([mask[item], mask.new_ones(count - 1)])
        yield {
            (call.kind, call.layer): witness.truth(call)[item, :, start - 1 : start - 1 + count, : start + count - 1][
                ..., real
            ]
            for call in calls
        }


def _bounds(architecture: Architecture, dtype: torch.dtype) -> dict[Place, float]:
    """Twice the error of the weights that the plain implementation computes, by kind and layer."""
    model, inputs, prompt = architecture.build(dtype=dtype), architecture.inputs(dtype), architecture.prompt(dtype)
    calls = _calls(architecture, model, lambda: model(**inputs))
    if architecture.generates:
        calls += _calls(architecture, model, lambda: model.generate(**prompt, **greedy(architecture)))
    return {place: 2 * error for place, error in witness.eager_errors(calls).items()}


def _calls(architecture: Architecture, model: Any, run: Callable[[], Any]) -> list[witness.Call]:
    return witness.capture(model, run, kinds=architecture.kinds)


def run_all(names: Iterable[str]) -> Iterator[tuple[str, str, torch.dtype, Outcome]]:
    """Every architecture, on every backend that transformers offers for it, in every dtype that it runs in."""
    for name in names:
        architecture = ARCHITECTURES[name]
        for dtype in architecture.dtypes:
            bounds = _bounds(architecture, dtype)
            for implementation in architecture.implementations:
                yield name, implementation, dtype, examine(architecture, implementation, dtype, bounds)


# the page


@dataclass
class Family:
    """All that came of one architecture, by backend and dtype."""

    name: str
    outcomes: dict[tuple[str, torch.dtype], Outcome] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.name]

    @property
    def group(self) -> str:
        kinds = self.architecture.kinds
        if self.name in TRANSLATORS:
            return "Encoder–decoders"
        if "vision" in kinds or "pixel_values" in self.architecture.make_inputs():
            return "Vision, alone and beside text"
        if self.name in SOUNDS:
            return "Sound beside text"
        if self.architecture.unread:
            return "Not softmax in every layer"
        return "Decoders" if self.name in DECODERS else "Encoders of text and sound"

    @property
    def faults(self) -> list[str]:
        return [
            f"{self.name}, {implementation}, {str(dtype).removeprefix('torch.')}: {fault}"
            for (implementation, dtype), outcome in self.outcomes.items()
            for fault in outcome.faults
        ]

    @property
    def verdict(self) -> str:
        read, refused = self._any("read"), self._any("refused")
        return "all" if not refused else "some" if read else "none"

    def _any(self, name: str) -> bool:
        return any(getattr(outcome, name) for outcome in self.outcomes.values())

    def error(self, implementation: str, dtype: torch.dtype) -> float:
        outcome = self.outcomes.get((implementation, dtype))
        return 0.0 if outcome is None else outcome.error

    def mark(self, implementation: str) -> str:
        """How it went on a backend, without the figure."""
        outcomes = [outcome for (name, _), outcome in self.outcomes.items() if name == implementation]
        if not outcomes:
            return "†" if implementation in self.architecture.refuses else "—"
        if any(outcome.faults for outcome in outcomes):
            return "✗"
        mark = "✓" if any(outcome.read for outcome in outcomes) else "refused"
        return mark + ("" if all(outcome.generates for outcome in outcomes) else "‡")

    @property
    def is_rounded(self) -> tuple[bool, bool]:
        """Whether weights err by more than a float32's rounding, and by that of a bfloat16."""
        error = max(outcome.error for outcome in self.outcomes.values())
        return error > FLOAT32_ROUNDING, error > 1e-5

    @property
    def read(self) -> set[Place]:
        return {place for outcome in self.outcomes.values() for place in outcome.read}

    @property
    def lost(self) -> list[str]:
        """Layers that attend by softmax over keys and were refused all the same."""
        refused = {place for outcome in self.outcomes.values() for place in outcome.refused}
        expected = {(kind, layer) for kind, layers in self.architecture.layers.items() for layer in layers}
        return [f"{self.name} {kind} {layer}" for kind, layer in sorted(refused & expected)]

    @property
    def refused(self) -> str:
        """Each reason once, with its layers and, where others read them, the runs."""
        layers: dict[tuple[str, str], set[int]] = {}
        runs: dict[tuple[str, str], dict[str, None]] = {}
        for (implementation, dtype), outcome in self.outcomes.items():
            for (kind, layer), why in outcome.refused.items():
                reason = (kind, COUNTS.sub("n", why))
                layers.setdefault(reason, set()).add(layer)
                runs.setdefault(reason, {})[f"{implementation} {str(dtype).removeprefix('torch.')}"] = None
        return "; ".join(
            f"{kind} {', '.join(map(str, sorted(layers[kind, why])))}: {why}"
            + (f" (in {', '.join(run)})" if len(run) < len(self.outcomes) else "")
            for (kind, why), run in runs.items()
        )


def page(families: list[Family], verdicts: scenario_table.Verdicts) -> str:
    """The whole document."""
    outcomes = [outcome for family in families for outcome in family.outcomes.values()]
    counts = Counter(family.verdict for family in families)
    faults = [fault for family in families for fault in family.faults]
    lost = [place for family in families for place in family.lost]
    lines = [
        "# Which models can be read",
        "",
        f"{len(families)} architectures of transformers {transformers.__version__}, tiny and with random weights, each "
        "on every backend that it offers on a CPU, in float32 and, where it runs, bfloat16: a forward pass over two "
        "sequences, one of them padded where it can be, and greedy `generate`.",
        "",
        f"- **{counts['all'] + counts['some']} are read**: {counts['all']} in every layer, {counts['some']} in those "
        "that attend by softmax over keys, the other layers refused by name.",
        f"- {counts['none']} attend so in no layer, and are refused whole.",
        f"- **{'None' if not faults else 'With the faults told below, otherwise none'} is silently wrong**: in "
        f"{len(outcomes)} runs, {sum(outcome.sequences for outcome in outcomes):,} sequences, every row that was read "
        "is exact, every layer that was not is refused, and what the model returns is bitwise what it was.",
        *([f"- Refused though they attend by softmax: {', '.join(lost)}."] if lost else []),
        "",
        "*Exact*: off from float64 mathematics, on the query, key and mask that a witness saw the kernel get, by at "
        "most twice the error of the plain implementation in the same dtype and the rounding of a float32 result. The "
        "witness (`benchmarks/witness.py`) shares no code with Regard.",
        "",
        "✓ read and exact, with the largest error of any weight, in both dtypes, or, where families compute weights in "
        "code of their own and its rounding is part of them, in float32 · in bfloat16. — transformers does not offer "
        "the backend; † it offers it and fails on these inputs; ‡ it fails in `generate`, so that the forward pass "
        "alone was read. Names are those of `benchmarks/zoo`, mostly transformers' own model types.",
        "",
        f"{datetime.date.today().isoformat()}, commit {report.commit()}, torch {torch.__version__}. Made by "
        "`python -m benchmarks.families`.",
    ]
    for group in dict.fromkeys(family.group for family in families):
        own = [family for family in families if family.group == group]
        lines += ["", f"## {group} ({len(own)})", "", *_table(own)]
    lines += ["", "## What they take, and where their attention lies", "", *_inputs(families)]
    readable = {family.name: family.read for family in families}
    lines += scenario_table.lines(verdicts, readable)
    if faults:
        lines += ["", "## Faults", "", *(f"- {fault}" for fault in faults)]
    return "\n".join(lines) + "\n"


def _table(families: list[Family]) -> Iterator[str]:
    """Families that fared alike in one line."""
    yield f"| families | {' | '.join(IMPLEMENTATIONS)} | refused |"
    yield "|---|---|---|---|---|"
    alike: dict[tuple[Any, ...], list[Family]] = {}
    for family in families:
        marks = tuple(family.mark(implementation) for implementation in IMPLEMENTATIONS)
        alike.setdefault((family.is_rounded, marks, family.refused), []).append(family)
    for (_, marks, refused), group in sorted(alike.items(), key=lambda each: -len(each[1])):
        cells = [", ".join(family.name for family in group)]
        for implementation, mark in zip(IMPLEMENTATIONS, marks, strict=True):
            errors = [
                f"{max(family.error(implementation, dtype) for family in group):.0e}"
                for dtype in (torch.float32, torch.bfloat16)
                if any((implementation, dtype) in family.outcomes for family in group)
            ]
            cells.append(f"{mark} {' · '.join(dict.fromkeys(errors))}" if mark.startswith("✓") else mark)
        yield f"| {' | '.join((*cells, refused))} |"


def _inputs(families: list[Family]) -> Iterator[str]:
    """Families that take the same and attend in the same places in one line."""
    yield "| takes | attention in | families |"
    yield "|---|---|---|"
    alike: dict[tuple[str, str], list[str]] = {}
    for family in families:
        found = takes(family.architecture.build())
        taken = " and ".join(sort for sort in ("text", "images", "audio") if sort in found)
        kinds = dict.fromkeys(kind for kind in family.architecture.kinds if kind in {kind for kind, _ in family.read})
        alike.setdefault((taken, ", ".join(kinds) or "none that is read"), []).append(family.name)
    for (taken, kinds), names in sorted(alike.items()):
        yield f"| {taken} | {kinds} | {', '.join(names)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures, only printed; by default all")
    parser.add_argument("--scenario", action="append", metavar="NAME", help="only these ways of running, only printed")
    settings = parser.parse_args()
    names, scenarios = settings.names, settings.scenario or list(SCENARIOS)
    if unknown := set(names) - ARCHITECTURES.keys():
        parser.error(f"the zoo has no {', '.join(sorted(unknown))}")
    if unknown := set(scenarios) - SCENARIOS.keys():
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    transformers.logging.set_verbosity_error()
    # FlexAttention warns that it is not compiled
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    families: dict[str, Family] = {}
    with ThreadPoolExecutor(1) as beside, torch.compiler.set_stance("force_eager"), torch.no_grad():
        pending = beside.submit(scenario_table.run_all, names or ARCHITECTURES, scenarios)
        for name, implementation, dtype, outcome in () if settings.scenario else run_all(names or ARCHITECTURES):
            families.setdefault(name, Family(name)).outcomes[implementation, dtype] = outcome
            print(f"{name:20} {implementation:15} {dtype!s:15} {outcome.error:.0e}", *outcome.faults, flush=True)
        verdicts = pending.result()
    if settings.scenario:
        print("\n".join(scenario_table.lines(verdicts)))
    elif names:
        print(page(list(families.values()), verdicts))
    else:
        PAGE.write_text(page(list(families.values()), verdicts), encoding="utf-8")


if __name__ == "__main__":
    main()
