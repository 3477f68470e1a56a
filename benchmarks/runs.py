"""Trained models that benchmarks share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regard
from regard.training.recipe import load_recipe
from regard.view.progress import training_progress

RUNS = Path("runs")


def trained(recipe: str, folder: Path | None = None, changes: Mapping[str, Any] | None = None) -> regard.Translator:
    """The run in a folder, by default that of a recipe's name under runs/, trained now if it is not there.

    Raises RegardError if one is there that was trained otherwise.
    """
    folder = folder or RUNS / recipe
    wanted = load_recipe(recipe, changes)
    if not folder.exists():
        with training_progress(str(folder)) as reports:
            regard.train(recipe, out=folder, changes=changes, report=reports.report)
    translator = regard.load(folder)
    found = translator.run.recipe
    if (found.model, found.train, found.data.corpus) != (wanted.model, wanted.train, wanted.data.corpus):
        raise regard.RegardError(f"{folder} was trained with other settings than are asked for; move it away")
    return translator
