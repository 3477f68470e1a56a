"""Training speed: JoeyNMT and Regard in turn, models of equal size on the same tokens, two threads.

Each turn is so many updates; a turn's target tokens are real ones, the end of sentence counted, padding not.
The first turn warms up. In the end both have done as many updates, and their losses on dev are compared.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import joeynmt, report
from benchmarks.peers import Contender
from regard.data.bucketing import batches
from regard.data.prepare import TokenizedCorpus
from regard.models.transformer import TransformerConfig
from regard.training.recipe import Recipe, load_recipe

THREADS = 2
TURNS = 8
UPDATES = 40
RECIPES = {"RNN + attention": "bible-bahdanau", "Transformer": "bible-transformer"}
CHANGES = {
    "train.threads": THREADS,
    "train.steps": TURNS * UPDATES,
    "train.learning_rate": 5e-4,
    **joeynmt.COMMON,
}
SIDES: dict[str, dict[str, Any]] = {
    "Regard": {},
    "Regard, bfloat16": {"train.dtype": "bfloat16"},
    # JoeyNMT's batches, of sentences of any length, are a third padding; so many tokens hold as many real ones
    "Regard, smaller batches": {"train.batch_tokens": 1371},
}


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = {model: _measure(name, Path(folder)) for model, name in RECIPES.items()}
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
            *(f"loss on dev after {TURNS * UPDATES} updates", "share of the matrix-product rate"),
        ],
        rows,
        figures,
        f"JoeyNMT {joeynmt.VERSION} and Regard on the same pairs, tokens and vocabulary, in turns of {UPDATES} "
        f"updates; medians of {TURNS - 1} turns, and of the turns' ratios, their range in brackets. Regard's threads "
        "are processes that each do a part of every batch. Tokens are real ones, the end of sentence counted. Batches "
        "hold at most (JoeyNMT: at least) 2,048 with padding, of which "
        "Regard's, of sentences of like length, have less; the smaller batches hold about as many real tokens as "
        "JoeyNMT's. JoeyNMT's RNN has an output matrix apart from its embeddings, and feeds what it found into its "
        "next step, as Regard's does. The loss is per token, without label smoothing. The rate is the better of "
        "torch's and of Regard's own at products of float32 matrices, 2048³, in the same turns "
        f"({_rates(figures)}); only the model's work on real tokens counts.",
    )


def _rates(figures: dict[str, Any]) -> str:
    (products,) = (side["products"] for sides in figures.values() for side in sides.values() if "products" in side)
    rates = {name: statistics.median(turn[name] for turn in products) / 1e9 for name in products[0]}
    return " and ".join(f"{name} {rate:.0f}" for name, rate in rates.items()) + " GFLOP/s"


def _measure(name: str, folder: Path) -> dict[str, Any]:
    recipes = {side: load_recipe(name, CHANGES | changes) for side, changes in SIDES.items()}
    recipe = recipes["Regard"]
    data = folder / "data"
    joeynmt.write_data(recipe, data)
    settings = joeynmt.write_settings(recipe, data, folder / f"joeynmt-{name}", log_every=UPDATES)

    def regard(side: str) -> Contender:
        changes = CHANGES | joeynmt.files(data) | SIDES[side]
        out = str(folder / f"{name}-{side}")
        return Contender(sys.executable, "in_regard", "train", name, changes, out, UPDATES, threads=THREADS)

    contenders = {
        "JoeyNMT": Contender(joeynmt.interpreter(), "in_joeynmt", "train", str(settings), threads=THREADS),
        **{side: regard(side) for side in SIDES},
        "product": Contender(sys.executable, "in_regard", "matrix_product", threads=THREADS),
    }
    turns = [{side: contender.turn() for side, contender in contenders.items()} for _ in range(TURNS)]
    ends = {side: contender.last() for side, contender in contenders.items()}
    dev = TokenizedCorpus.open(data / "dev-ids")
    assert ends["JoeyNMT"]["dev_tokens"] == (dev.target_lengths - 1).sum()
    train = TokenizedCorpus.open(data / "train-ids")
    for side in SIDES:
        for turn, (tokens, work) in zip(turns, _work(recipes[side], train), strict=True):
            turn[side] |= {"tokens": tokens, "flops": work}
    # the first turn warms up
    return {side: _figures(side, turns[1:], ends[side], recipe) for side in ("JoeyNMT", *SIDES)}


def _figures(side: str, turns: list[dict[str, Any]], end: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    speeds = {name: [turn[name]["tokens"] / turn[name]["seconds"] for turn in turns] for name in ("JoeyNMT", side)}
    ratios = [ours / theirs for ours, theirs in zip(speeds[side], speeds["JoeyNMT"], strict=True)]
    figures = {
        "parameters": end["parameters"],
        "dev_loss": end["dev_loss"],
        "tokens_per_second": speeds[side],
        "tokens_per_update": statistics.mean(turn[side]["tokens"] for turn in turns) / UPDATES,
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


def _work(recipe: Recipe, train: TokenizedCorpus) -> list[tuple[int, float]]:
    """Real target tokens of every turn of Regard's, and, of a Transformer, the floating-point operations for them."""
    sources, targets = train.source_lengths, train.target_lengths - 1
    order = batches(
        train.source_lengths,
        train.target_lengths,
        batch_tokens=recipe.train.batch_tokens,
        seed=recipe.train.seed,
        epoch=0,
    )
    assert len(order) >= TURNS * UPDATES
    turns = [np.concatenate(order[turn * UPDATES : (turn + 1) * UPDATES]) for turn in range(TURNS)]
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
