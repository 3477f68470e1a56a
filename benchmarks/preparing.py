"""Preparing a large corpus: two million sentence pairs need at most a gigabyte of memory, and show progress at once.

`regard train` by the command line, of one step: it holds out dev and test, learns the tokenizer, turns all text into
token ids and looks at it. The peak is the process's own, as the kernel counts it.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks import report
from benchmarks.peers import environment_of

PAIRS = 2_000_000
VOCABULARY = 500_000
SENTENCE_WORDS = (5, 40)
PAIRS_AT_ONCE = 20_000
# what stands for each hexadecimal digit of a word's number
LETTERS = str.maketrans("0123456789abcdef", "aeiouéàsntrldmpk")
THREADS = 2
CHANGES = {
    "train.steps": 1,
    "train.warmup_steps": 0,
    "train.threads": THREADS,
    "model.model_dim": 64,
    "model.num_layers": 1,
    "model.feed_forward_dim": 64,
}
# the steps that lines of progress name, and the one from which on there are steps of the training
STEPS = ("reading pairs", "learning the tokenizer", "encoding train", "looking at pairs", "step 1 ")


def run() -> None:
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix, write in (("tsv", write_tsv), ("parquet", write_parquet)):
            path = folder / f"corpus.{suffix}"
            write(path)
            # the token ids are no one else's
            found = figures[suffix] = train(path, folder / suffix, {"REGARD_CACHE": str(folder / f"cache-{suffix}")})
            found["bytes"] = path.stat().st_size
            path.unlink()
            row = [suffix, f"{found['bytes'] / 1e6:,.0f} MB", f"{found['first_line']:.1f} s"]
            row += [f"{found['steps'][step]:,.0f} s" for step in STEPS]
            rows.append([*row, f"{found['seconds']:,.0f} s", f"{found['peak_bytes'] / 1e6:,.0f} MB"])
    load, _, _ = os.getloadavg()
    report.write(
        "preparing",
        f"Preparing {PAIRS:,} sentence pairs",
        ["format", "size", "first line", *(f"“{step.strip()}” at" for step in STEPS), "all", "peak memory"],
        rows,
        figures,
        f"`regard train` on {THREADS} threads; seconds from its start to its first line on stderr, and to the first "
        f"that names each step. Peak memory includes Python and torch. Random words, {VOCABULARY:,} of them by Zipf's "
        "law; dev and test are held out, the BPE tokenizer of 4,000 learns from every so many pairs. Load at the "
        f"end: {load:.1f}.",
    )


def train(corpus: Path, out: Path, variables: dict[str, str]) -> dict[str, Any]:
    """One training: when its lines came, and the most memory that it held."""
    changes = {**CHANGES, "data.train": corpus}
    command = [sys.executable, "-m", "regard", "train", "bible-transformer", "--out", str(out)]
    command += [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    started, lines, peak = time.perf_counter(), [], 0
    environment = {**environment_of(THREADS), **variables}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append((time.perf_counter() - started, line))
            # after its last line there is none left
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
                peak = max(peak, *(1024 * int(size) for size in re.findall(r"VmHWM:\s+(\d+) kB", status)), 0)
    if process.returncode:
        raise RuntimeError("".join(line for _, line in lines))
    steps = {step: next(at for at, line in lines if step in line) for step in STEPS}
    return {"first_line": lines[0][0], "steps": steps, "seconds": lines[-1][0], "peak_bytes": peak}


def write_tsv(path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{source}\t{target}\n" for source, target in pairs(seed=1))


def write_parquet(path: Path) -> None:
    """The same pairs, as pyarrow compresses them."""
    schema = pa.schema([("source", pa.string()), ("target", pa.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        found = pairs(seed=1)
        while chunk := list(islice(found, PAIRS_AT_ONCE)):
            writer.write_table(pa.table(list(zip(*chunk, strict=True)), schema=schema))


def pairs(*, seed: int) -> Iterator[tuple[str, str]]:
    """PAIRS pairs of random words."""
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(16**6)[:VOCABULARY]
    words = np.array([f"{number:x}".translate(LETTERS) for number in numbers], dtype=object)
    ends = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    for _ in range(PAIRS // PAIRS_AT_ONCE):
        counts = generator.integers(*SENTENCE_WORDS, size=2 * PAIRS_AT_ONCE)
        drawn = words[np.searchsorted(ends[:-1], ends[-1] * generator.random(counts.sum()))]
        sides = [" ".join(part) for part in np.split(drawn, np.cumsum(counts)[:-1])]
        yield from zip(sides[::2], sides[1::2], strict=True)
