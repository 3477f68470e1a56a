"""Regard at work in a process of its own: in_regard.py '"train"' '"RECIPE"' '{"train.steps": 500}' '"RUN"' 50."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import turns

import regard
from regard.kernels.linear import product
from regard.training.loop import Progress
from regard.training.run import Run

# of the matrix product by which the processor is measured
SIZE = 2048
REPEATS = 4


def train(recipe: str, changes: dict[str, Any], out: str, updates: int) -> None:
    """Turns of `updates` updates; in the end the loss on dev."""
    turns.wait()
    started = time.perf_counter()

    def report(progress: Progress) -> None:
        nonlocal started
        if progress.step % updates == 0:
            turns.tell(seconds=time.perf_counter() - started)
            turns.wait()
            started = time.perf_counter()

    regard.train(recipe, out=out, changes=changes, report=report)
    facts = Run.open(out).facts
    told = {name: facts[name] for name in ("dev_loss", "parameters", "trained_parameters")}
    turns.tell(**told, updates=facts["steps"])


def matrix_product() -> None:
    """Turns of some products of two float32 matrices, SIZE × SIZE, by torch's usual kernel and by Regard's."""
    left, right = torch.rand(2, SIZE, SIZE)
    kernels = {"torch": torch.matmul, "regard": product}
    while turns.wait() is not None:
        rates = {}
        for name, kernel in kernels.items():
            started = time.perf_counter()
            for _ in range(REPEATS):
                kernel(left, right)
            rates[name] = REPEATS * 2 * SIZE**3 / (time.perf_counter() - started)
        turns.tell(**rates)
    turns.tell()


def translate(run: str, sentences: str, dtype: str) -> None:
    """Each turn translates every so many lines of text, by the batch and the beam that it is told."""
    translator = regard.load(run, dtype=dtype)
    lines = Path(sentences).read_text(encoding="utf-8").split("\n")[:-1]
    while (request := turns.wait()) is not None:
        chosen = lines[:: request.pop("every")]
        started = time.perf_counter()
        translations = translator.translate(chosen, **request)
        turns.tell(seconds=time.perf_counter() - started, outputs=[written.text for written in translations])
    turns.tell()


if __name__ == "__main__":
    name, *arguments = map(json.loads, sys.argv[1:])
    works = {"train": train, "matrix_product": matrix_product, "translate": translate}
    works[name](*arguments)
