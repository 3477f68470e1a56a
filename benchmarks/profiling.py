"""Where an update's time goes: what torch's profiler sees in the first of two processes, by what operators do."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

import regard
from benchmarks import joeynmt, report
from benchmarks.training import CHANGES, RECIPES
from regard.training.loop import Progress
from regard.training.recipe import load_recipe

WARM_UP, UPDATES = 10, 30
DTYPES = ("float32", "bfloat16")
# the first kind of which a part is in the operator's name; what is left goes through numbers one by one
KINDS = {
    "matrix products": ("linear", "mm", "addmv", "mkldnn"),
    "attention's fused kernel": ("scaled_dot_product",),
    "loss": ("logsumexp", "exp_", "crossentropy", "scatter_add"),
    "normalisation": ("layer_norm",),
    "optimiser": ("adamw", "linalg_vector_norm"),
    "copies, zeros and joins": ("copy", "fill", "zero", "cat", "index_select", "embedding"),
    # what numpy does, as tanh, is in the time of the function that calls it
    "recurrent steps by themselves": ("gru", "tanh", "softmax"),
}
OTHERS = "other elementwise operators and sums"


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        joeynmt.write_data(load_recipe(next(iter(RECIPES.values())), CHANGES), Path(folder) / "data")
        figures = {
            f"{model}, {dtype}": _profile(recipe, dtype, Path(folder))
            for model, recipe in RECIPES.items()
            for dtype in DTYPES
        }
    rows = [
        [kind, *(f"{100 * figure['shares'].get(kind, 0):.0f} %" for figure in figures.values())]
        for kind in (*KINDS, OTHERS)
    ]
    rows.append(["operators recorded in an update", *(f"{figure['calls']:,.0f}" for figure in figures.values())])
    report.write(
        "profiling",
        "Where training's time goes in the first of two processes, Bible, English to French",
        ["", *figures],
        rows,
        figures,
        f"Shares of the time that torch's profiler gives to operators themselves, in {UPDATES} updates after "
        f"{WARM_UP}, forward and backward, with the sizes and batches of the training benchmark. The profiler itself "
        "makes small operators look dearer than they are.",
    )


def _profile(recipe: str, dtype: str, folder: Path) -> dict[str, Any]:
    profiler = profile(activities=[ProfilerActivity.CPU])

    def watch(progress: Progress) -> None:
        if progress.step == WARM_UP:
            profiler.start()
        elif progress.step == WARM_UP + UPDATES:
            profiler.stop()

    changes = {
        **CHANGES,
        **joeynmt.files(folder / "data"),
        "train.dtype": dtype,
        "train.steps": WARM_UP + UPDATES + 1,
    }
    regard.train(recipe, out=folder / f"{recipe}-{dtype}", changes=changes, report=watch)
    seconds: Counter[str] = Counter()
    calls = 0
    for event in profiler.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key.lower() for part in parts)), OTHERS)
        seconds[kind] += event.self_cpu_time_total
        calls += event.count
    return {
        "shares": {kind: time / seconds.total() for kind, time in seconds.items()},
        "calls": calls / UPDATES,
    }
