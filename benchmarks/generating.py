"""Writing by a language model: SmolLM2-135M in Hugging Face's generate, in llama.cpp and in Regard, in turn.

All have the weights of one GGUF file of 4-bit numbers (Q4_1). A batch of one, always the likeliest token.
"""

import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import regard
from benchmarks import peers, report
from benchmarks.peers import Contender
from regard.data.corpora import get_corpus
from regard.data.download import cache_dir
from regard.data.text import Text
from regard.files import new_folder
from regard.models.pretrained.aliases import ALIASES, fetch_file

MODEL = "smollm2"
LLAMA = "0.3.36"
THREADS = 2
# the first turn warms up
TURNS = 4
# more for what reading costs, which is less than two turns differ
READING_TURNS = 12
NEW_TOKENS = (64, 256)
PROMPT_TOKENS, LONG_PROMPT_TOKENS = 32, 2000
# of the English Bible's test split
WINDOWS, WINDOW_TOKENS = 8, 512
DTYPES = ("int4", "int8", "bfloat16", "float32")
HUGGING_FACE, LLAMA_CPP = "HF generate, bfloat16", f"llama.cpp {LLAMA}, Q4_1"
OURS, READ = "Regard, int4, compiled", "Regard, int4, compiled, every step read"


def run() -> None:
    figures = measure()
    rows = [
        [
            side,
            *(report.spread(figure["speeds"][str(new)], "{:.1f}") for new in NEW_TOKENS),
            f"{figure['ratios'][HUGGING_FACE]:.2f}",
            f"{figure['ratios'][LLAMA_CPP]:.2f}",
            report.spread(figure["prefill"], "{:.2f}") if "prefill" in figure else "",
            f"{figure['perplexity']:.2f}" if "perplexity" in figure else "",
            f"{figure['bytes'] / 1e6:.0f}" if "bytes" in figure else "",
            f"{figure['bandwidth_share']:.0%}" if "bandwidth_share" in figure else "",
        ]
        for side, figure in figures["sides"].items()
    ]
    longest = NEW_TOKENS[-1]
    report.write(
        "generating",
        f"Writing by {MODEL}, one text at a time, {THREADS} threads",
        [
            *("", *(f"tokens/s, {new} new" for new in NEW_TOKENS)),
            *(f"ratio to HF, {longest} new", f"ratio to llama.cpp, {longest} new"),
            f"seconds for {LONG_PROMPT_TOKENS:,} tokens of prompt",
            *("perplexity", "MB of weights a token", "share of bandwidth"),
        ],
        rows,
        figures,
        f"After a prompt of {PROMPT_TOKENS} tokens, which counts; medians of {TURNS - 1} turns in alternation, their "
        "range in brackets; a ratio is the median of the turns' ratios. Regard chooses how many threads it uses by a "
        f"short probe. Perplexity is that of {WINDOWS} passages of {WINDOW_TOKENS} tokens of the English Bible's test "
        f"split, by the very tokens. The last column is weights read per second over the {figures['bandwidth']:.1f} "
        f"GB/s at which two threads sum a large tensor here: the physical limit of a batch of one. {READ}: what each "
        f"token looked at, in all layers and heads, costs {statistics.median(figures['reading']):.1%} more time ("
        f"median of {READING_TURNS} pairs of turns, {min(figures['reading']):.1%} to {max(figures['reading']):.1%}).",
    )


def measure() -> dict[str, Any]:
    model: Any = regard.load(MODEL)
    bible = get_corpus("bible-en")
    assert isinstance(bible, Text)
    text = " ".join(itertools.islice(bible.documents("test"), 8))
    ids, _ = model.encode(text)
    windows = [ids[start : start + WINDOW_TOKENS] for start in range(0, WINDOWS * WINDOW_TOKENS, WINDOW_TOKENS)]
    assert all(len(window) == WINDOW_TOKENS for window in windows)
    prompt, long_prompt = ids[:PROMPT_TOKENS], ids[:LONG_PROMPT_TOKENS]
    llama = peers.environment(f"llama-cpp-python-{LLAMA}", (f"llama-cpp-python=={LLAMA}",))
    commands = {
        HUGGING_FACE: (sys.executable, "in_generate", "transformers", "bfloat16", MODEL),
        LLAMA_CPP: (llama, "in_llama", str(_gguf()), THREADS),
        OURS: (sys.executable, "in_generate", "regard", "int4", MODEL, True),
        **{f"Regard, {dtype}": (sys.executable, "in_generate", "regard", dtype, MODEL) for dtype in DTYPES},
    }
    processes: dict[str, Contender] = {}
    perplexity: dict[str, float] = {}
    # one after the other: each finds out how many threads serve it while nobody else works
    for side, command in commands.items():
        processes[side] = Contender(*command, threads=THREADS)
        perplexity[side] = processes[side].turn(windows=windows)["perplexity"]
    sides = {**{side: (process, {}) for side, process in processes.items()}, READ: (processes[OURS], {"reads": True})}
    speeds: dict[str, dict[int, list[float]]] = {side: {new: [] for new in NEW_TOKENS} for side in sides}
    prefill: dict[str, list[float]] = {side: [] for side in processes}
    for _ in range(TURNS):
        for new in NEW_TOKENS:
            for side, (process, how) in sides.items():
                speeds[side][new].append(new / process.turn(prompt=prompt, new=new, how=how)["seconds"])
        for side, process in processes.items():
            prefill[side].append(process.turn(prompt=long_prompt, new=1, how={})["seconds"])
    longest = NEW_TOKENS[-1]
    reading = [
        [processes[OURS].turn(prompt=prompt, new=longest, how=sides[side][1])["seconds"] for side in (READ, OURS)]
        for _ in range(READING_TURNS)
    ]
    ends = {side: process.last() for side, process in processes.items()}
    for process_speeds in speeds.values():
        for values in process_speeds.values():
            del values[0]
    bandwidth = _bandwidth()
    figures: dict[str, Any] = {}
    for side in sides:
        figures[side] = {
            "speeds": {str(new): values for new, values in speeds[side].items()},
            "ratios": {
                peer: _ratio(speeds[side][longest], speeds[peer][longest]) for peer in (HUGGING_FACE, LLAMA_CPP)
            },
        }
        if side in processes:
            figures[side] |= {"prefill": prefill[side][1:], "perplexity": perplexity[side], **ends[side]}
        if size := ends.get(side, {}).get("bytes"):
            speed = statistics.median(speeds[side][longest])
            figures[side]["bandwidth_share"] = size * speed / (bandwidth * 1e9)
    return {
        "sides": figures,
        "bandwidth": bandwidth,
        "reading": [read / plain - 1 for read, plain in reading],
    }


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def _gguf() -> Path:
    """The file that Regard's model was made of, kept beside the peer."""
    alias = ALIASES[MODEL]
    folder = cache_dir() / "peers" / f"{MODEL}-gguf"
    if not (folder / alias.file).exists():
        with new_folder(folder) as temporary:
            fetch_file(alias, temporary)
    return folder / alias.file


def _bandwidth() -> float:
    """GB/s at which so many threads read memory, the best of a few times."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    numbers = torch.ones(1 << 28)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return numbers.nbytes / min(seconds) / 1e9
