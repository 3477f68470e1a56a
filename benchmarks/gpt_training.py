"""Training a small GPT: nanoGPT's setting for a CPU, Hugging Face's Trainer and Regard in turn, two threads.

All learn Jane Austen's novels by characters: 4 layers, 4 heads, 128 wide, context 64, 12 windows an update, no dropout.
nanoGPT is rebuilt in plain torch, with its own optimiser and schedule; Trainer is given the same. Regard's are its
recipe's. In the end all have done as many updates, and their losses on dev are compared.
"""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import peers, report
from benchmarks.peers import Contender
from regard.data.packed import PackedText, pack
from regard.data.tokenizer import Tokenizer
from regard.evaluation.text import bits_per_byte
from regard.training.recipe import load_recipe

THREADS = 2
TURNS = 10
UPDATES = 200
TOTAL = TURNS * UPDATES
ACCELERATE = "1.15.0"
RECIPE = "gpt-austen"
CONTEXT, BATCH_TOKENS = 64, 768
PEERS = ("nanoGPT, rebuilt", "HF Trainer")
CHANGES = {
    "train.steps": TOTAL,
    "train.threads": THREADS,
    "train.batch_tokens": BATCH_TOKENS,
    "model.max_length": CONTEXT,
    # at the end alone
    "train.validate_every": 10 * TOTAL,
}


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(Path(folder))
    rows = [
        [
            side,
            f"{figure['parameters']:,}",
            report.spread(figure["tokens_per_second"], "{:,.0f}"),
            *(f"{figure['ratios'][peer]:.2f}" for peer in PEERS),
            f"{figure['dev_loss']:.3f}",
            f"{figure['bits_per_byte']:.3f}",
        ]
        for side, figure in figures.items()
    ]
    report.write(
        "gpt-training",
        f"Training a character-level GPT from scratch on {THREADS} threads, Jane Austen's novels",
        [
            *("", "parameters", "tokens/s", *(f"ratio to {peer}" for peer in PEERS)),
            *(f"loss on dev after {TOTAL:,} updates", "bits per byte"),
        ],
        rows,
        figures,
        f"In turns of {UPDATES} updates of {BATCH_TOKENS} tokens; medians of {TURNS - 1} turns, the first warms up, "
        "their range in brackets; a ratio is the median of the turns' ratios. Trainer is that of transformers "
        f"{transformers.__version__} with accelerate {ACCELERATE}.",
    )


def _measure(folder: Path) -> dict[str, Any]:
    text, vocab_size = _write_ids(folder)
    versions = (f"torch=={torch.__version__.partition('+')[0]}", f"transformers=={transformers.__version__}")
    trainer = peers.environment(f"accelerate-{ACCELERATE}", (*versions, f"accelerate=={ACCELERATE}"))

    def peer(interpreter: Path | str, program: str) -> Contender:
        return Contender(interpreter, program, str(folder), vocab_size, UPDATES, TOTAL, threads=THREADS)

    def regard(optimizer: str) -> Contender:
        changes = {**CHANGES, "train.optimizer": optimizer}
        out = str(folder / optimizer)
        return Contender(sys.executable, "in_regard", "train", RECIPE, changes, out, UPDATES, threads=THREADS)

    contenders = {
        PEERS[0]: peer(sys.executable, "in_nanogpt"),
        PEERS[1]: peer(trainer, "in_trainer"),
        "Regard": regard("adamw"),
        "Regard, Muon": regard("muon"),
    }
    turns = [{side: contender.turn()["seconds"] for side, contender in contenders.items()} for _ in range(TURNS)]
    ends = {side: contender.last() for side, contender in contenders.items()}
    return {
        side: {
            "parameters": end["parameters"],
            "dev_loss": end["dev_loss"],
            "bits_per_byte": bits_per_byte(end["dev_loss"], len(text), text.facts),
            "tokens_per_second": [UPDATES * BATCH_TOKENS / turn[side] for turn in turns[1:]],
            "ratios": {other: statistics.median(turn[other] / turn[side] for turn in turns[1:]) for other in PEERS},
        }
        for side, end in ends.items()
    }


def _write_ids(folder: Path) -> tuple[PackedText, int]:
    """The ids that Regard's run has, as train.npy and dev.npy for the peers; dev, and the size of the vocabulary."""
    recipe = load_recipe(RECIPE)
    corpus = recipe.corpus()
    tokenizer = Tokenizer.train(corpus.documents("train"), kind="character", vocab_size=recipe.data.vocab_size)
    for split in ("train", "dev"):
        pack(corpus.passages(split), tokenizer, folder / split)
        shutil.copy(folder / split / "ids.npy", folder / f"{split}.npy")
    return PackedText.open(folder / "dev", context=CONTEXT), len(tokenizer)
