"""How long SmolLM2 takes to open: the first time, when it is fetched and converted, and again. Without our imports."""

import sys
import tempfile

from benchmarks import report
from benchmarks.peers import Contender

MODEL = "smollm2"
THREADS, ROUNDS = 2, 7


def run() -> None:
    figures: dict[str, list[float]] = {"the first time": [], "again": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as cache:
            for seconds in figures.values():
                seconds.append(_open(cache))
    report.write(
        "opening",
        f"Opening {MODEL}",
        ["", "seconds"],
        [[name, report.spread(seconds, "{:.2f}")] for name, seconds in figures.items()],
        figures,
        f"Medians of {ROUNDS} rounds, each with an empty cache, their range in brackets. The first time counts the "
        "download of the file and the process that converts it, with that process's imports.",
    )


def _open(cache: str) -> float:
    variables = {"REGARD_CACHE": cache}
    contender = Contender(sys.executable, "in_transformers", "opening", MODEL, threads=THREADS, variables=variables)
    seconds = contender.turn()["seconds"]
    contender.last()
    return seconds
