"""Training in several processes on one machine: its rate, beside that of processes that shared memory, and its memory.

The rate is taken in turns, so that all have the same machine. The text is made up: what it says costs no time.
"""

import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.peers import Contender, environment_of
from regard.config import to_toml

# the last commit at which the processes of a training shared their weights in memory
BEFORE = "bb8da93"
ROOT = Path(__file__).parent.parent
THREADS = 2
TURNS, UPDATES = 7, 12
PAIRS, WORDS = 20_000, 4000
# words of a source and of a target, as in the Bible
LENGTHS = (8, 44)
TRANSFORMER = {"type": "transformer", "model_dim": 256, "num_heads": 4, "num_layers": 3, "feed_forward_dim": 1024}
RNN = {"type": "rnn", "attention": "additive", "embedding_dim": 256, "hidden_dim": 256}
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "Transformer, AdamW": {"model": TRANSFORMER, "train": {"optimizer": "adamw"}},
    "Transformer, Muon": {"model": TRANSFORMER, "train": {"optimizer": "muon"}},
    "RNN + attention, AdamW": {"model": RNN, "train": {"optimizer": "adamw"}},
}
# weights and all that goes with them outweigh the activations of so short a batch
LARGE = {"type": "gpt", "model_dim": 1024, "num_heads": 16, "num_layers": 12, "feed_forward_dim": 4096}
CONTEXT, STEPS = 64, 3
COPIES, SHARDED = "copies", "sharded"


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = folder / "pairs.tsv"
        write_pairs(pairs)
        before = unpacked(BEFORE, folder / "before")
        rates = {model: measure_rates(model, pairs, folder, before) for model in MODELS}
        memory = {side: measure_memory(folder, shard=side == SHARDED) for side in (COPIES, SHARDED)}
    rows = [
        [model, side, report.spread(figure["updates_per_second"], "{:.3f}"), report.spread(figure["ratios"], "{:.3f}")]
        for model, sides in rates.items()
        for side, figure in sides.items()
    ]
    share = max(memory[SHARDED]["peaks"]) / max(memory[COPIES]["peaks"])
    load, _, _ = os.getloadavg()
    report.write(
        "scale",
        f"Training in two processes on {THREADS} cores",
        ["model", "", "updates/s", f"ratio to commit {BEFORE}"],
        rows,
        {"rates": rates, "memory": memory, "share": share, "load": load},
        f"Batches of 2,048 tokens; medians of {TURNS - 1} turns of {UPDATES} updates, and of the turns' ratios, their "
        f"range in brackets. At commit {BEFORE} two processes shared weights in memory, and one summed gradients and "
        "stepped for both; now each has its own, and torch.distributed sums gradients by gloo over loopback. "
        f"A GPT of {memory[COPIES]['parameters']:,} parameters in two processes, AdamW, batches of {2 * CONTEXT} "
        f"tokens: with a copy of all in each, the ranks' peaks are {_peaks(memory[COPIES])}, with `train.shard` "
        f"{_peaks(memory[SHARDED])}, {share:.2f} of that, in the whole training with validation and checkpoints; its "
        f"loss is {memory[COPIES]['loss']:.6f} and {memory[SHARDED]['loss']:.6f} after {STEPS} steps. "
        f"Load at the end: {load:.1f}.",
    )


def _peaks(figure: dict[str, Any]) -> str:
    return " and ".join(f"{peak / 1e6:,.0f} MB" for peak in figure["peaks"])


def write_pairs(path: Path) -> None:
    generator = random.Random(1)

    def sentence() -> str:
        return " ".join(f"w{generator.randrange(WORDS)}" for _ in range(generator.randint(*LENGTHS)))

    path.write_text("".join(f"{sentence()}\t{sentence()}\n" for _ in range(PAIRS)), encoding="utf-8")


def unpacked(commit: str, folder: Path) -> Path:
    """The sources of a commit."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "src"], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as opened:
        opened.extractall(folder, filter="data")
    return folder / "src"


def measure_rates(model: str, pairs: Path, folder: Path, before: Path) -> dict[str, dict[str, list[float]]]:
    """Updates a second of one process and of two, and of two before, turn by turn."""
    sizes = MODELS[model]
    sections = {
        "data": {"train": str(pairs), "tokenizer": "word", "vocab_size": WORDS},
        "model": {"dropout": 0.1, "max_length": 128, **sizes["model"]},
        "train": {"steps": TURNS * UPDATES, "validate_every": 100_000, "device": "cpu", **sizes["train"]},
    }
    recipe = folder / "recipe.toml"
    recipe.write_text(to_toml(sections), encoding="utf-8")
    now = ROOT / "src"
    sides = {f"2 processes, {BEFORE}": (before, 2), "2 processes": (now, 2), "1 process, 1 thread": (now, 1)}
    contenders = {
        side: Contender(
            *(sys.executable, "in_regard", "train", str(recipe), {"train.threads": threads}),
            *(str(folder / f"{model} {side}"), UPDATES),
            threads=threads,
            variables={"PYTHONPATH": str(source), "REGARD_CACHE": str(folder / f"cache-{side}")},
        )
        for side, (source, threads) in sides.items()
    }
    turns = [{side: contender.turn()["seconds"] for side, contender in contenders.items()} for _ in range(TURNS)]
    for contender in contenders.values():
        contender.last()
    # the first turn warms up, and begins with the preparing
    base, *_ = sides
    return {
        side: {
            "updates_per_second": [UPDATES / turn[side] for turn in turns[1:]],
            "ratios": [turn[base] / turn[side] for turn in turns[1:]],
        }
        for side in sides
    }


def measure_memory(folder: Path, *, shard: bool) -> dict[str, Any]:
    """The peaks of two processes that train a large model, and its loss on dev in the end."""
    generator = random.Random(1)
    text = folder / "text.txt"
    words = [f"w{generator.randrange(1000)}" for _ in range(20_000)]
    text.write_text("\n\n".join(" ".join(words[i : i + 200]) for i in range(0, len(words), 200)), encoding="utf-8")
    recipe, out = folder / f"large-{shard}.toml", folder / f"large-{shard}"
    sections = {
        "data": {"train": str(text), "vocab_size": 1000, "context_length": CONTEXT},
        "model": LARGE,
        "train": {
            "batch_tokens": 2 * CONTEXT,
            # so small that rounding does not grow
            "learning_rate": 1e-5,
            "warmup_steps": 0,
            "steps": STEPS,
            "validate_every": STEPS - 1,
            "threads": THREADS,
            "device": "cpu",
            "shard": shard,
        },
    }
    recipe.write_text(to_toml(sections), encoding="utf-8")
    program = str(Path(__file__).parent / "inside" / "in_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", program, str(recipe), str(out)]
    variables = {**environment_of(1), "PYTHONPATH": str(ROOT / "src"), "REGARD_CACHE": str(folder / "cache")}
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=variables, check=True).stdout
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    peaks = [json.loads(line)["peak"] for line in told.splitlines()]
    return {"peaks": peaks, "parameters": facts["parameters"], "loss": facts["dev_loss"]}
