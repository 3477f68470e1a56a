"""What pictures and tables of quality by source length have in common: which bins there are, and what is measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regard.config import suggest
from regard.errors import RegardError

Curves = Mapping[str, Sequence[dict]]


@dataclass(frozen=True)
class Metric:
    """A key of a length bin, what it is called, and what takes it to a scale from 0 to 100."""

    key: str
    name: str
    scale: float

    def interval(self, part: dict) -> tuple[float, float, float]:
        """Value, low end and high end, 0 to 100; NaN where they are undefined."""
        figures = (part[key] for key in (self.key, f"{self.key}_low", f"{self.key}_high"))
        value, low, high = (math.nan if figure is None else self.scale * figure for figure in figures)
        return value, low, high


METRICS = {
    "exact": Metric("exact", "Exact match (%)", 100.0),
    "chrf": Metric("chrf", "chrF", 1.0),
    "bleu": Metric("bleu", "BLEU", 1.0),
}


def metric_called(name: str) -> Metric:
    """Raises RegardError if there is no such metric."""
    if name not in METRICS:
        raise RegardError(f"there is no metric {name!r}{suggest(name, METRICS)}")
    return METRICS[name]


def all_bins(curves: Curves) -> list[tuple[int, int]]:
    """The ends of every length bin that any model has, from short to long.

    Raises RegardError if there is none.
    """
    bins = sorted({(part["from"], part["to"]) for parts in curves.values() for part in parts})
    if not bins:
        raise RegardError("there is no quality by source length to show; evaluate a model first")
    return bins


def label(ends: tuple[int, int]) -> str:
    low, high = ends
    return str(low) if low == high else f"{low}–{high}"


def counts(curves: Curves) -> list[str]:
    """How many sentences each bin holds; two numbers where models were tested on different sets."""
    told = []
    for ends in all_bins(curves):
        found = {part["count"] for parts in curves.values() for part in parts if (part["from"], part["to"]) == ends}
        told.append("–".join(f"{count:,}" for count in sorted({min(found), max(found)})))
    return told
