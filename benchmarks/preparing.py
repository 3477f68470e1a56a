"""Preparing a large corpus: a gigabyte of parallel text must need less than a gigabyte of memory.

`regard train` up to its first step, in a process of its own: it holds out dev and test, learns the tokenizer and
turns all text into token ids. The peak is the process's own, as the kernel counts it.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.peers import Contender

SIZE = 10**9
VOCABULARY = 500_000
SENTENCE_WORDS = (5, 40)
PAIRS_AT_ONCE = 20_000
# what stands for each hexadecimal digit of a word's number
LETTERS = str.maketrans("0123456789abcdef", "aeiouéàsntrldmpk")
CHANGES = {
    "train.steps": 1,
    "train.threads": 2,
    "model.model_dim": 64,
    "model.num_layers": 1,
    "model.feed_forward_dim": 64,
}


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, out = folder / "corpus.tsv", folder / "run"
        pairs, size = write_corpus(corpus, SIZE, seed=1), corpus.stat().st_size
        changes = CHANGES | {"data.train": str(corpus)}
        process = Contender(
            *(sys.executable, "in_regard", "prepare", "bible-transformer", changes, str(out)),
            threads=2,
            # the token ids are no one else's
            variables={"REGARD_CACHE": str(folder / "cache")},
        )
        heard = process.turn()
        process.last()
        tokenized = max(path.stat().st_mtime for path in (folder / "cache").rglob("*.npy"))
        clock = [heard["started"], (out / "tokenizer.json").stat().st_mtime, tokenized, heard["ended"]]
    steps = ("splits and tokenizer", "token ids", "the first step", "all")
    seconds = dict(zip(steps, [*np.diff(clock).tolist(), clock[-1] - clock[0]], strict=True))
    figures = {"bytes": size, "pairs": pairs, "peak_bytes": heard["peak"], "seconds": seconds}
    report.write(
        "preparing",
        f"Preparing {size / 1e9:.2f} GB of parallel text",
        ["step", "time", "MB/s"],
        [[step, f"{spent:,.0f} s", f"{size / spent / 1e6:,.1f}"] for step, spent in seconds.items()],
        figures,
        f"Peak memory {heard['peak'] / 1e6:,.0f} MB, Python and torch included. {pairs:,} pairs of random words, "
        f"{VOCABULARY:,} of them by Zipf's law, in one TSV file; dev and test are held out of it, the BPE tokenizer of "
        "4,000 learns from every so many pairs.",
    )


def write_corpus(path: Path, size: int, *, seed: int) -> int:
    """A TSV file of at least `size` bytes; returns how many pairs it holds."""
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(16**6)[:VOCABULARY]
    words = np.array([f"{number:x}".translate(LETTERS) for number in numbers], dtype=object)
    ends = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    pairs = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            counts = generator.integers(*SENTENCE_WORDS, size=2 * PAIRS_AT_ONCE)
            drawn = words[np.searchsorted(ends[:-1], ends[-1] * generator.random(counts.sum()))]
            sides = [" ".join(part) for part in np.split(drawn, np.cumsum(counts)[:-1])]
            file.writelines(f"{source}\t{target}\n" for source, target in zip(sides[::2], sides[1::2], strict=True))
            pairs += PAIRS_AT_ONCE
    return pairs
