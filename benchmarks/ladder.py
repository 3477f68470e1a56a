"""Why attention was needed: exact match by source length after one minute of training on one thread each."""

import os
import tempfile
from pathlib import Path
from typing import Any

# before torch: waiting threads that spin on take the other core from whoever else has it
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import regard
from benchmarks import report
from regard.data.words import count_words
from regard.evaluation.quality import evaluate_translations

RECIPES = ("numbers-rnn", "numbers-bahdanau", "numbers-transformer")
SEEDS = (1, 2)
GROUPS = {"under 10 words": range(1, 10), "10 to 19": range(10, 20), "20 and more": range(20, 1000)}


def run() -> None:
    figures = [_measure(recipe, seed) for seed in SEEDS for recipe in RECIPES]
    rows = [
        [
            f"`{figure['recipe']}`",
            str(figure["seed"]),
            f"{figure['parameters']:,}",
            f"{figure['steps']:,}",
            f"{figure['tokens_per_second']:,.0f}",
            *(f"{exact:.3f} ({low:.3f}–{high:.3f})" for exact, low, high in figure["exact"].values()),
        ]
        for figure in figures
    ]
    report.write(
        "ladder",
        "Exact match by source length, number words, one minute of training on one thread",
        ["recipe", "seed", "parameters", "steps", "target tokens/s", *GROUPS],
        rows,
        figures,
        "1,500 test sentences that no model saw; in brackets bootstrap 95 % intervals.",
    )


def _measure(recipe: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        translator = regard.train(recipe, out=Path(folder) / recipe, changes={"train.seed": seed})
        pairs = list(translator.run.corpus().pairs("test"))
        translations = translator.translate([pair.source for pair in pairs])
    exact = {}
    for name, lengths in GROUPS.items():
        chosen = [index for index, pair in enumerate(pairs) if count_words(pair.source) in lengths]
        quality = evaluate_translations(
            [pairs[index].source for index in chosen],
            [translations[index].text for index in chosen],
            [pairs[index].target for index in chosen],
        )
        exact[name] = (quality.exact, quality.exact_low, quality.exact_high)
    facts = translator.run.facts
    figure = {"recipe": recipe, "seed": seed, "exact": exact}
    return figure | {name: facts[name] for name in ("parameters", "steps", "seconds", "tokens_per_second", "threads")}
