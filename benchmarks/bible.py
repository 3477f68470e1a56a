"""Quality by source length on real sentences: bible-en-fr, ten minutes of training a rung on two threads.

Runs that already stand under runs/ are measured as they are.
"""

import os
from typing import Any

# before torch: waiting threads that spin on take the other core from whoever else has it
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from benchmarks import report
from benchmarks.runs import trained
from regard.view.plots import plot_length_curve

RECIPES = {"RNN": "bible-rnn", "RNN + attention": "bible-bahdanau", "Transformer": "bible-transformer"}
NUM_BEAMS = 4


def run() -> None:
    models = {name: _measure(recipe) for name, recipe in RECIPES.items()}
    bins = [(part["from"], part["to"], part["count"]) for part in next(iter(models.values()))["by_length"]]
    rows = [
        [
            f"{low}–{high}",
            f"{count:,}",
            *(_told(part) for model in models.values() for part in model["by_length"] if part["from"] == low),
        ]
        for low, high, count in bins
    ]
    rows.append(["all", f"{sum(count for *_, count in bins):,}", *(_told(model) for model in models.values())])
    facts = "; ".join(
        f"{name}: {model['parameters']:,} parameters, {model['steps']:,} steps, {model['epochs']:.1f} epochs, "
        f"{model['tokens_per_second']:,.0f} target tokens/s, BLEU {model['bleu']:.1f}, "
        f"perplexity {model['perplexity']:.1f} per token"
        for name, model in models.items()
    )
    report.write(
        "bible",
        "chrF by source length, Bible, English to French, ten minutes of training a rung on two threads",
        ["words", "sentences", *models],
        rows,
        models,
        f"Beam {NUM_BEAMS}; in brackets bootstrap 95 % intervals. {facts}.",
    )
    curves = {name: model["by_length"] for name, model in models.items()}
    for suffix in ("png", "svg"):
        title = "Bible, English to French"
        plot_length_curve(curves, report.RESULTS / f"bible.{suffix}", metric="chrf", title=title)


def _measure(recipe: str) -> dict[str, Any]:
    translator = trained(recipe)
    facts = translator.run.facts
    told = ("parameters", "steps", "epochs", "seconds", "tokens_per_second", "threads")
    return {**translator.evaluate("test", num_beams=NUM_BEAMS).to_json(), **{name: facts[name] for name in told}}


def _told(scores: dict[str, Any]) -> str:
    return f"{scores['chrf']:.1f} ({scores['chrf_low']:.1f}–{scores['chrf_high']:.1f})"
