"""Training speed: JoeyNMT and Regard in turn, models of equal size on the same tokens, two threads.

Each turn is so many updates; a turn's target tokens are real ones, the end of sentence counted, padding not.
The first turn warms up. In the end both have done as many updates, and their losses on dev are compared.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import joeynmt, report
from benchmarks.peers import Contender
from regard.data.bucketing import batches
from regard.data.prepare import TokenizedCorpus
from regard.kernels.memory import LARGEST
from regard.models.transformer import TransformerConfig
from regard.training.recipe import Recipe, load_recipe

THREADS = 2
TURNS = 8
# updates in a turn, by a batch's tokens: Regard's recipes have the first size, JoeyNMT's own of a Transformer of these
# dimensions the second (configs/iwslt14_deen_bpe.yaml)
UPDATES = {2048: 32, 4096: 16}
RECIPES = {"RNN + attention": "bible-bahdanau", "Transformer": "bible-transformer"}
CHANGES = {"train.threads": THREADS, "train.learning_rate": 5e-4, **joeynmt.COMMON}
# what Regard does by itself: the C library keeps large blocks that are freed
KEEPS_MEMORY = {f"MALLOC_{name}_THRESHOLD_": str(LARGEST) for name in ("MMAP", "TRIM")}
PEERS: dict[str, dict[str, str]] = {"JoeyNMT": {}, "JoeyNMT, freed memory kept": KEEPS_MEMORY}
# JoeyNMT's batches, of sentences of any length, are a third padding; so many of a batch's tokens hold as many real ones
SMALLER = 0.67
SIDES: dict[str, Callable[[int], dict[str, Any]]] = {
    "Regard": lambda tokens: {"train.batch_tokens": tokens},
    "Regard, bfloat16": lambda tokens: {"train.batch_tokens": tokens, "train.dtype": "bfloat16"},
    "Regard, smaller batches": lambda tokens: {"train.batch_tokens": round(SMALLER * tokens)},
}


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            f"{model}, batches of {tokens:,} tokens": _measure(name, tokens, Path(folder))
            for model, name in RECIPES.items()
            for tokens in UPDATES
        }
    rows = [
        [
            model,
            side,
            f"{figure['parameters']:,}",
            f"{figure['tokens_per_update']:,.0f}",
            report.spread(figure["tokens_per_second"], "{:,.0f}"),
            report.spread(figure["ratios"], "{:.2f}"),
            f"{figure['dev_loss']:.3f}",
            f"{figure['share']:.0%}" if "share" in figure else "",
        ]
        for model, sides in figures.items()
        for side, figure in sides.items()
    ]
    report.write(
        "training",
        f"Training on {THREADS} threads, Bible, English to French",
        [
            *("model", "", "parameters", "target tokens per update", "target tokens/s", "ratio to JoeyNMT"),
            *("loss on dev in the end", "share of the matrix-product rate"),
        ],
        rows,
        figures,
        f"JoeyNMT {joeynmt.VERSION} and Regard on the same pairs, tokens and vocabulary, in turns of {_updates()}; "
        f"medians of {TURNS - 1} turns, and of the turns' ratios, their range in brackets. Regard's threads are "
        "processes that each do a part of every batch. Tokens are real ones, the end of sentence counted. Batches "
        "hold at most (JoeyNMT: at least) the tokens named, with padding, of which Regard's, of sentences of like "
        "length, have less; the smaller batches hold about as many real tokens as JoeyNMT's. JoeyNMT's own recipe "
        "for a Transformer of these dimensions, iwslt14_deen_bpe, has 4,096 tokens. Where freed memory is kept, "
        "JoeyNMT runs with the settings of the C library that Regard makes for itself: without them the system "
        "zeroes large tensors each time they are made. JoeyNMT's RNN has an output matrix apart from its "
        "embeddings, and feeds what it found into its next step, as Regard's does. The loss is per token, without "
        f"label smoothing, after {TURNS} turns. The rate is the better of torch's and of Regard's own at products "
        f"of float32 matrices, 2048³, in the same turns ({_rates(figures)}); only the model's work on real tokens "
        "counts.",
    )


def _updates() -> str:
    return " and ".join(f"{updates} updates of {tokens:,} tokens" for tokens, updates in UPDATES.items())


def _rates(figures: dict[str, Any]) -> str:
    sides = [side for sides in figures.values() for side in sides.values()]
    products = [turn for side in sides for turn in side.get("products", [])]
    rates = {name: statistics.median(turn[name] for turn in products) / 1e9 for name in products[0]}
    return " and ".join(f"{name} {rate:.0f}" for name, rate in rates.items()) + " GFLOP/s"


def _measure(name: str, batch_tokens: int, folder: Path) -> dict[str, Any]:
    updates = UPDATES[batch_tokens]
    common = CHANGES | {"train.steps": TURNS * updates}
    changes = {side: common | of(batch_tokens) for side, of in SIDES.items()}
    recipes = {side: load_recipe(name, theirs) for side, theirs in changes.items()}
    recipe = recipes["Regard"]
    data, runs = folder / "data", folder / f"{name}-{batch_tokens}"
    joeynmt.write_data(recipe, data)

    def peer(side: str) -> Contender:
        settings = joeynmt.write_settings(recipe, data, runs / side, log_every=updates)
        arguments = (joeynmt.interpreter(), "in_joeynmt", "train", str(settings))
        return Contender(*arguments, threads=THREADS, variables=PEERS[side])

    def regard(side: str) -> Contender:
        arguments = (name, changes[side] | joeynmt.files(data), str(runs / side), updates)
        return Contender(sys.executable, "in_regard", "train", *arguments, threads=THREADS)

    contenders = {
        **{side: peer(side) for side in PEERS},
        **{side: regard(side) for side in SIDES},
        "product": Contender(sys.executable, "in_regard", "matrix_product", threads=THREADS),
    }
    turns = [{side: contender.turn() for side, contender in contenders.items()} for _ in range(TURNS)]
    ends = {side: contender.last() for side, contender in contenders.items()}
    dev = TokenizedCorpus.open(data / "dev-ids")
    assert ends["JoeyNMT"]["dev_tokens"] == (dev.target_lengths - 1).sum()
    train = TokenizedCorpus.open(data / "train-ids")
    for side in SIDES:
        for turn, (tokens, work) in zip(turns, _work(recipes[side], train, updates), strict=True):
            turn[side] |= {"tokens": tokens, "flops": work}
    # the first turn warms up
    return {side: _figures(side, turns[1:], ends[side], recipe, updates) for side in (*PEERS, *SIDES)}


def _figures(
    side: str, turns: list[dict[str, Any]], end: dict[str, Any], recipe: Recipe, updates: int
) -> dict[str, Any]:
    speeds = {name: [turn[name]["tokens"] / turn[name]["seconds"] for turn in turns] for name in ("JoeyNMT", side)}
    ratios = [ours / theirs for ours, theirs in zip(speeds[side], speeds["JoeyNMT"], strict=True)]
    figures = {
        "parameters": end["parameters"],
        "dev_loss": end["dev_loss"],
        "tokens_per_second": speeds[side],
        "tokens_per_update": statistics.mean(turn[side]["tokens"] for turn in turns) / updates,
        "ratios": ratios,
    }
    if side == "Regard" and isinstance(recipe.model, TransformerConfig):
        rates = [max(turn["product"].values()) for turn in turns]
        shares = [turn[side]["flops"] / turn[side]["seconds"] / rate for turn, rate in zip(turns, rates, strict=True)]
        figures |= {
            "share": statistics.median(shares),
            "shares": shares,
            "products": [turn["product"] for turn in turns],
        }
    return figures


def _work(recipe: Recipe, train: TokenizedCorpus, updates: int) -> list[tuple[int, float]]:
    """Real target tokens of every turn of Regard's, and, of a Transformer, the floating-point operations for them."""
    sources, targets = train.source_lengths, train.target_lengths - 1
    order = batches(
        train.source_lengths,
        train.target_lengths,
        batch_tokens=recipe.train.batch_tokens,
        seed=recipe.train.seed,
        epoch=0,
    )
    assert len(order) >= TURNS * updates
    turns = [np.concatenate(order[turn * updates : (turn + 1) * updates]) for turn in range(TURNS)]
    tokens = [int(targets[rows].sum()) for rows in turns]
    if not isinstance(recipe.model, TransformerConfig):
        return [(count, 0.0) for count in tokens]
    work = [float(flops(recipe.model, recipe.data.vocab_size, sources[rows], targets[rows])) for rows in turns]
    return list(zip(tokens, work, strict=True))


def flops(model: TransformerConfig, vocab_size: int, sources: np.ndarray, targets: np.ndarray) -> float:
    """Floating-point operations of matrix products, forward and backward, over sentences of these lengths."""
    dim, inner = model.model_dim, 2 * model.model_dim * model.feed_forward_dim
    # multiplications per token: query, key, value and output projections, then scores and contexts
    encoder = sources * (4 * dim**2 + inner) + 2 * dim * sources**2
    decoder = (
        targets * (6 * dim**2 + inner)
        + sources * 2 * dim**2
        + 2 * dim * (targets * (targets + 1) // 2 + targets * sources)
    )
    forward = 2 * (model.num_layers * (encoder + decoder) + targets * dim * vocab_size)
    return 3 * forward.sum()
