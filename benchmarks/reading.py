"""What reading costs: SmolLM2-135M as it runs, read while it runs, switched to eager, and read by attnread.

Every length has a process of its own for each way, that works in turns with the others; memory is the highest of each.
"""

import statistics
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks import peers, report
from benchmarks.peers import Contender
from regard.models.pretrained.find import find_model

MODEL = "smollm2"
THREADS = 2
# the first turn warms up
TURNS = {512: 8, 1024: 8, 2048: 6, 4096: 5, 8192: 3}
# of the last queries so many rows are kept whole
ROWS = 64
# beyond these the tables of all pairs, or the time, run away
EAGER_UP_TO, ATTNREAD_UP_TO = 1024, 512
ATTNREAD = "0.1.2"
# it takes as long for each layer: so many of them are timed, and the time of all is said
LAYERS, ATTNREAD_LAYERS = 30, 3
# it asks for another torch and would bring gigabytes; the one that runs here serves as well
PACKAGES = ("torch==2.13.0", "transformers==5.19.0", "nnsight==0.7.0")
# of a pass over all rows
ALL_ROWS = ("products of queries and keys", "exponentials, sums, strongest keys", "statistics")
WAYS = {
    "plain": "sdpa, not read",
    "all": f"{ROWS} rows, top 8, received, entropy",
    "rows": f"{ROWS} rows",
    "eager": "eager, output_attentions",
    "attnread": f"attnread {ATTNREAD}",
}


def run() -> None:
    _, folder = find_model(MODEL)
    _write([_measure(str(folder), length) for length in TURNS])


def _write(figures: list[dict[str, Any]]) -> None:
    rows = [
        [
            f"{figure['tokens']:,}",
            WAYS[way],
            report.spread(figure[way]["seconds"], "{:.2f}"),
            f"{figure[way]['ratio']:.2f}" if way != "plain" else "",
            f"{figure[way]['peak'] / 1e6:,.0f}",
            f"{(figure[way]['peak'] - figure['plain']['peak']) / 1e6:,.0f}" if way != "plain" else "",
            f"{figure[way].get('size', 0) / 1e6:,.0f}" if "size" in figure[way] else "",
        ]
        for figure in figures
        for way in WAYS
        if way in figure
    ]
    report.write(
        "reading",
        f"Reading {MODEL}, all 30 layers, {THREADS} threads",
        ["tokens", "", "seconds", "ratio", "peak, MB", "above the plain forward, MB", "the reading itself, MB"],
        rows,
        figures,
        "One forward pass with logits, float32, medians of two to seven turns in alternation, range in brackets; "
        "the ratio is the median of the turns' ratios to the plain forward. The reading is in hand: assembled, as "
        f"float32. attnread's time is that of {ATTNREAD_LAYERS} layers times {LAYERS // ATTNREAD_LAYERS}. "
        "The least that exact sums over all queries take is one more product of queries and keys and one more "
        "exponential of each score: half of the arithmetic of the attention itself, whose share of a forward pass "
        "grows with the length.\n\n" + "\n".join(_profile(figures)),
    )


def _profile(figures: list[dict[str, Any]]) -> Iterator[str]:
    """Where the time of reading goes, as a table."""
    parts = ["kept rows and their proof", "all rows", *ALL_ROWS]
    yield "Where the time goes, in shares of the plain forward pass; the last three are parts of all rows."
    yield "Rows are kept in double precision.\n"
    yield f"| tokens | {' | '.join(parts)} |"
    yield f"|---{'|---' * len(parts)}|"
    for figure in figures:
        plain = statistics.median(figure["plain"]["seconds"])
        shares = [f"{figure['parts'][part] / plain:.0%}" for part in parts]
        yield f"| {figure['tokens']:,} | {' | '.join(shares)} |"


def _measure(folder: str, length: int) -> dict[str, Any]:
    contenders = {
        way: Contender(sys.executable, "in_transformers", "forward", folder, way, length, ROWS, threads=THREADS)
        for way in ("plain", "all", "rows", *(["eager"] if length <= EAGER_UP_TO else []))
    }
    turns = [{way: contender.turn() for way, contender in contenders.items()} for _ in range(TURNS[length])]
    ends = {way: contender.last() for way, contender in contenders.items()}
    figure: dict[str, Any] = {"tokens": length}
    for way in contenders:
        seconds = [turn[way]["seconds"] for turn in turns[1:]]
        ratios = [turn[way]["seconds"] / turn["plain"]["seconds"] for turn in turns[1:]]
        figure[way] = {"seconds": seconds, "ratio": statistics.median(ratios), "ratios": ratios, **ends[way]}
    parts = Contender(sys.executable, "in_transformers", "parts", folder, length, ROWS, threads=THREADS)
    figure["parts"] = parts.turn()["seconds"]
    parts.last()
    if length <= ATTNREAD_UP_TO:
        interpreter = peers.environment(f"attnread-{ATTNREAD}", PACKAGES, alone=(f"attnread=={ATTNREAD}",))
        peer = Contender(interpreter, "in_attnread", "forward", folder, length, ATTNREAD_LAYERS, threads=THREADS)
        seconds = [peer.turn()["seconds"] * LAYERS / ATTNREAD_LAYERS]
        ratio = seconds[0] / statistics.median(figure["plain"]["seconds"])
        figure["attnread"] = {"seconds": seconds, "ratio": ratio, **peer.last()}
    return figure
