"""Training a small GPT: nanoGPT's setting for a CPU, Hugging Face's Trainer and Regard in turn, two threads.

All learn Jane Austen's novels by characters: 4 layers, 4 heads, 128 wide, context 64, 12 windows an update, no dropout.
nanoGPT is rebuilt in plain torch, with its own optimiser and schedule; Trainer is given the same. Regard's are its
recipe's: once with as many updates as the others, and once with so few that it ends about where they do. What three
minutes give stands last.
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
# of Regard's short trainings: how soon is it where the others end?
FEWER = {"adamw": 1200, "muon": 600}
MINUTES = 3
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
            report.spread(figure["tokens_per_second"], "{:,.0f}") if "tokens_per_second" in figure else "",
            f"{figure['updates']:,}",
            f"{figure['seconds']:.0f}",
            *(f"{figure['ratios'][peer]:.2f}" if "ratios" in figure else "" for peer in PEERS),
            f"{figure['dev_loss']:.3f}",
            f"{figure['bits_per_byte']:.3f}",
        ]
        for side, figure in figures.items()
    ]
    report.write(
        "gpt-training",
        f"Training a character-level GPT from scratch on {THREADS} threads, Jane Austen's novels",
        [
            *("", "parameters", "tokens/s", "updates", "seconds for them"),
            *(f"times as fast as {peer}" for peer in PEERS),
            *("loss on dev", "bits per byte"),
        ],
        rows,
        figures,
        f"In turns of {UPDATES} updates of {BATCH_TOKENS} tokens; medians of {TURNS - 1} turns, the first warms up, "
        "their range in brackets; the seconds are those of all updates at the median rate. How many times as fast a "
        "training is at its end is the median of the turns' ratios, times the ratio of the updates. Each schedule ends "
        f"with its last update. Trainer is that of transformers {transformers.__version__} with accelerate "
        f"{ACCELERATE}. The last row is the recipe as it stands, with Muon, larger updates and a longer context, given "
        f"{MINUTES} minutes.",
    )


def _measure(folder: Path) -> dict[str, Any]:
    text, vocab_size = _write_ids(folder)
    versions = (f"torch=={torch.__version__.partition('+')[0]}", f"transformers=={transformers.__version__}")
    trainer = peers.environment(f"accelerate-{ACCELERATE}", (*versions, f"accelerate=={ACCELERATE}"))

    def peer(interpreter: Path | str, program: str) -> Contender:
        return Contender(interpreter, program, str(folder), vocab_size, UPDATES, TOTAL, threads=THREADS)

    def regard(optimizer: str, *, steps: int = TOTAL) -> Contender:
        changes = {**CHANGES, "train.optimizer": optimizer, "train.steps": steps}
        return _regard(folder / f"{optimizer}-{steps}", changes, UPDATES)

    contenders = {
        PEERS[0]: peer(sys.executable, "in_nanogpt"),
        PEERS[1]: peer(trainer, "in_trainer"),
        "Regard": regard("adamw"),
        "Regard, Muon": regard("muon"),
        (soon := "Regard, fewer updates"): regard("adamw", steps=FEWER["adamw"]),
        (soon_by_muon := "Regard, Muon, fewer updates"): regard("muon", steps=FEWER["muon"]),
    }
    updates = {**dict.fromkeys(contenders, TOTAL), soon: FEWER["adamw"], soon_by_muon: FEWER["muon"]}
    turns = [
        {side: contender.turn()["seconds"] for side, contender in contenders.items() if turn * UPDATES < updates[side]}
        for turn in range(TURNS)
    ]
    ends = {side: contender.last() for side, contender in contenders.items()}
    figures: dict[str, dict[str, Any]] = {}
    for side, end in ends.items():
        known = [turn for turn in turns[1:] if side in turn]
        rates = [UPDATES * BATCH_TOKENS / turn[side] for turn in known]
        figures[side] = {
            "tokens_per_second": rates,
            "updates": updates[side],
            "seconds": updates[side] * BATCH_TOKENS / statistics.median(rates),
            "ratios": {
                other: statistics.median(turn[other] / turn[side] for turn in known) * TOTAL / updates[side]
                for other in PEERS
            },
            **_end(end, text),
        }
    changes = {"train.threads": THREADS, "train.minutes": MINUTES, "train.validate_every": 10 * TOTAL}
    end = _regard(folder / "minutes", changes, sys.maxsize).last()
    last = {"updates": end["updates"], "seconds": 60 * MINUTES, **_end(end, text)}
    return {**figures, f"Regard's recipe, {MINUTES} minutes": last}


def _regard(out: Path, changes: dict[str, Any], updates: int) -> Contender:
    return Contender(sys.executable, "in_regard", "train", RECIPE, changes, str(out), updates, threads=THREADS)


def _end(end: dict[str, Any], text: PackedText) -> dict[str, Any]:
    loss = end["dev_loss"]
    return {
        "parameters": end["parameters"],
        "dev_loss": loss,
        "bits_per_byte": bits_per_byte(loss, len(text), text.facts),
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
