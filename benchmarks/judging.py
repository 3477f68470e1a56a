"""Judge one watched run of a model: not harmed, every row exact, every token id the one that was fed, or refused."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import regard
from regard.reading.reading import Reading
from regard.reading.watch import Watch

FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError)
Place = tuple[str, int]
# None where either the id or -1 is right
Ids = list[int | None]


@dataclass
class Truth:
    """What the reading of one sequence must hold: rows [head, row, key], row positions, ids of queries and keys."""

    weights: dict[Place, Tensor]
    queries: dict[str, Ids]
    keys: dict[str, Ids]
    positions: dict[str, list[int]] = field(default_factory=dict)
    written: dict[str, Ids] = field(default_factory=dict)


@dataclass
class Case:
    """One model in one way of running. `run` takes what `prepare` made before the watch was opened."""

    watched: Any
    run: Callable[[Any], Any]
    truths: Callable[[Any], list[Truth]]
    settings: dict[str, Any] = field(default_factory=lambda: {"rows": "generated"})
    prepare: Callable[[], Any] = lambda: None
    # readings that the run itself took, else one of each item
    readings: Callable[[], list[Reading]] | None = None
    enter: Callable[[Watch | None], None] = lambda _: None
    tolerance: float = 5e-5


@dataclass
class Verdict:
    """What came of a case."""

    # why it fails unwatched
    fails: str = ""
    harmed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: dict[Place, str] = field(default_factory=dict)
    # a reading that was refused as a whole
    whole: str = ""
    read: set[Place] = field(default_factory=set)
    lost: set[Place] = field(default_factory=set)

    @property
    def mark(self) -> str:
        if self.fails:
            return "‡"
        if self.harmed:
            return "✗ harmed"
        if self.wrong:
            return "✗ wrong"
        return "refused" if self.whole or not self.read else "partly" if self.lost else "✓"


def judge(case: Case) -> Verdict:
    """Run a case unwatched, then watched from the same seed, and hold what was read against its truths."""
    verdict = Verdict()
    try:
        plain = _run(case, None)
    except FAILURES as error:
        verdict.fails = f"{type(error).__name__}: {error}".partition("\n")[0]
        return verdict
    try:
        prepared = _prepared(case)
        with regard.watching(case.watched, **case.settings) as watch:
            case.enter(watch)
            watched = case.run(prepared)
    except (regard.RegardError, *FAILURES) as error:
        verdict.harmed.append(f"{type(error).__name__}: {error}".partition("\n")[0])
        return verdict
    finally:
        case.enter(None)
    if not same(list(tensors(plain)), list(tensors(watched))):
        if not same(list(tensors(plain)), list(tensors(_run(case, None)))):
            verdict.fails = "unwatched too it does not return the same twice"
            return verdict
        verdict.harmed.append("the output is not that of the plain run")
    truths = case.truths(plain)
    expected = {place for truth in truths for place in truth.weights}
    try:
        readings = case.readings() if case.readings else [watch.reading(item) for item in range(len(truths))]
    except regard.RegardError as error:
        verdict.whole, verdict.lost = str(error), expected
        return verdict
    except FAILURES as error:
        verdict.wrong.append(f"reading raises {type(error).__name__}: {error}")
        return verdict
    if len(readings) != len(truths):
        verdict.wrong.append(f"{len(readings)} readings, {len(truths)} sequences")
    for item, (reading, truth) in enumerate(zip(readings, truths, strict=False)):
        verdict.refused |= reading.refused
        verdict.wrong += [f"item {item}: {fault}" for fault in _faults(reading, truth, case.tolerance)]
        verdict.read |= {place for place, weights in reading.maps.items() if weights.size}
        told = reading.maps.keys() | reading.refused.keys()
        verdict.wrong += [f"item {item}: nothing is said of {place}" for place in truth.weights if place not in told]
    verdict.lost = {place for place in expected if place in verdict.refused}
    return verdict


def _prepared(case: Case) -> Any:
    torch.manual_seed(0)
    prepared = case.prepare()
    torch.manual_seed(0)
    return prepared


def _run(case: Case, watch: Watch | None) -> Any:
    prepared = _prepared(case)
    case.enter(watch)
    return case.run(prepared)


def _faults(reading: Reading, truth: Truth, tolerance: float) -> Iterator[str]:
    kinds = dict.fromkeys(kind for kind, _ in truth.weights)
    for place, weights in reading.maps.items():
        if weights.size and place not in truth.weights:
            yield f"{place} was read, and the witness saw no such layer"
    for place, expected in truth.weights.items():
        weights = reading.maps.get(place)
        if weights is None:
            continue
        if weights.shape != expected.shape:
            yield f"{place} has rows {tuple(weights.shape)}, not {tuple(expected.shape)}"
        elif (error := float((torch.as_tensor(weights).double() - expected).abs().max())) > tolerance:
            yield f"{place} is off by {error:.1e}"
    for kind in kinds:
        if kind not in reading.kinds:
            continue
        sides = [("queries", truth.queries, reading.queries(kind)), ("keys", truth.keys, reading.keys(kind))]
        if kind in truth.written:
            sides.append(("written tokens", truth.written, reading.written(kind)))
        for name, ids, found in sides:
            given = [None if token is None else token.id for token in found or []]
            if kind in ids and not _named(given, ids[kind]):
                yield f"{kind} {name} are called {given}, not {ids[kind]}"
        if kind in truth.positions and reading.rows(kind) != truth.positions[kind]:
            yield f"{kind} rows are at {reading.rows(kind)}, not {truth.positions[kind]}"


def _named(given: Ids, expected: Ids) -> bool:
    return len(given) == len(expected) and all(
        wanted is None or found == wanted for found, wanted in zip(given, expected, strict=True)
    )


def tensors(output: Any) -> Iterator[Tensor]:
    """All tensors that a model returned."""
    if isinstance(output, Tensor):
        yield output
    for part in output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ():
        yield from tensors(part)


def same(plain: list[Tensor], watched: list[Tensor]) -> bool:
    """Whether two outputs are bitwise equal."""
    return len(plain) == len(watched) and all(
        torch.equal(before.nan_to_num(), after.nan_to_num()) for before, after in zip(plain, watched, strict=True)
    )
