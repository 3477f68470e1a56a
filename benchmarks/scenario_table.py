"""The scenarios of every architecture, run by two processes, and their part of docs/families.md."""

import importlib.util
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set

import torch
import transformers

from benchmarks.judging import FAILURES, Place, Verdict, judge
from benchmarks.scenarios import NEEDS, SCENARIOS
from benchmarks.zoo import ARCHITECTURES

# by architecture and scenario; None where the scenario is none of the architecture
Verdicts = dict[tuple[str, str], Verdict | None]
WORKERS = 2


def run_all(names: Iterable[str], scenarios: list[str]) -> Verdicts:
    """Every scenario of every architecture in float32, on the fused kernel where there is one."""
    verdicts: Verdicts = {}
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        for name, own in pool.imap(_of_architecture, [(name, scenarios) for name in names]):
            for scenario, verdict in own.items():
                verdicts[name, scenario] = verdict
                for fault in () if verdict is None else (*verdict.harmed, *verdict.wrong):
                    print(f"{name:20} {scenario:18} {verdict.mark if verdict else ''} {fault}", flush=True)
    return verdicts


def _of_architecture(task: tuple[str, list[str]]) -> tuple[str, dict[str, Verdict | None]]:
    name, scenarios = task
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        return name, {scenario: verdict_of(name, scenario) for scenario in scenarios}


def verdict_of(name: str, scenario: str) -> Verdict | None:
    """What comes of one architecture in one scenario; None where it is no way of running this model."""
    architecture = ARCHITECTURES[name]
    if scenario in NEEDS and importlib.util.find_spec(NEEDS[scenario]) is None:
        return Verdict(fails=f"{NEEDS[scenario]} is not installed")
    try:
        case = SCENARIOS[scenario](architecture, "sdpa" if "sdpa" in architecture.implementations else "eager")
    except FAILURES as error:
        # what cannot even be set up fails unwatched
        return Verdict(fails=f"{type(error).__name__}: {error}".partition("\n")[0])
    try:
        return None if case is None else judge(case)
    except FAILURES as error:
        return Verdict(wrong=[f"no witness: {type(error).__name__}: {error}".partition("\n")[0]])


def lines(verdicts: Verdicts, readable: Mapping[str, Set[Place]] | None = None) -> Iterator[str]:
    """The part of the page: counts, a table of families that fare alike, and the exceptions.

    `readable` has what a plain forward pass of each architecture gives: only such layers can be missed.
    """
    found = {place: verdict for place, verdict in verdicts.items() if verdict is not None}
    ran = {place: verdict for place, verdict in found.items() if not verdict.fails}
    if not ran:
        return
    counts = Counter(verdict.mark for verdict in ran.values())
    scenarios = list(dict.fromkeys(scenario for _, scenario in verdicts))
    yield from ("", "## Ways of running", "")
    missed = {place: verdict for place, verdict in ran.items() if _misses(verdict, readable, place[0])}
    yield (
        f"{len(ran):,} pairs of an architecture and a way of running it that runs unwatched, in float32, on the fused "
        f"kernel where there is one. In **{len(ran) - len(missed):,}** all that a plain forward pass gives is read and "
        f"right; in {len(missed)} ({len(missed) / len(ran):.1%}) something of it is refused, "
        f"{counts['✗ wrong']} are wrong, {counts['✗ harmed']} harmed. ✓ every row and every token id is right and the "
        "output bitwise that of the plain run; partly, refused: layers are refused, here or in a plain forward pass "
        "too; ‡ it fails unwatched; — it is no way of running this model, or one whose truth cannot be known from "
        "outside: guidance and proposals of `generate` where transformers computes something else step by step."
    )
    yield from ("", f"| families | {' | '.join(scenarios)} |", "|---" * (len(scenarios) + 1) + "|")
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for name, _ in verdicts):
        own = (verdicts.get((name, scenario)) for scenario in scenarios)
        alike.setdefault(tuple("—" if each is None else each.mark for each in own), []).append(name)
    for marks, names in sorted(alike.items(), key=lambda each: -len(each[1])):
        yield f"| {', '.join(names)} | {' | '.join(marks)} |"
    reasons: dict[tuple[str, str], list[str]] = {}
    for (name, scenario), verdict in missed.items():
        refused = dict.fromkeys(verdict.refused[place] for place in verdict.lost if place in verdict.refused)
        why = "; ".join([*verdict.harmed, *verdict.wrong[:1], *filter(None, [verdict.whole]), *refused])
        reasons.setdefault((scenario, why), []).append(name)
    if reasons:
        yield from ("", "Exceptions:", "")
        for (scenario, why), names in reasons.items():
            yield f"- {scenario}, {', '.join(names)}: {why}"


def _misses(verdict: Verdict, readable: Mapping[str, Set[Place]] | None, name: str) -> bool:
    """Whether a verdict falls short of what a plain forward pass gives."""
    lost = verdict.lost if readable is None else verdict.lost & readable[name]
    return bool(verdict.harmed or verdict.wrong or lost)
