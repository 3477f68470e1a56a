"""Trained models that benchmarks share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regard
from regard.view.progress import training_progress

RUNS = Path("runs")


def trained(recipe: str, folder: Path | None = None, changes: Mapping[str, Any] | None = None) -> regard.Translator:
    """The run in a folder, by default that of a recipe's name under runs/, trained now if it is not there."""
    folder = folder or RUNS / recipe
    if not folder.exists():
        with training_progress(str(folder)) as progress:
            regard.train(recipe, out=folder, changes=changes, report=progress)
    return regard.load(folder)
