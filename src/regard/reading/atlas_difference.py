"""Two atlases compared: before and after fine-tuning, or two models of one shape, head by head."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from regard.errors import RegardError
from regard.reading.atlas import LEVEL, Atlas, Table
from regard.reading.measures import MEASURES

if TYPE_CHECKING:
    import pandas


class Change(NamedTuple):
    """How much more of a measure a head has in the second atlas, and where that is with a probability of 95 %."""

    layer: int
    head: int
    measure: str
    before: float
    after: float
    low: float
    high: float


@final
@dataclass(frozen=True, eq=False)
class AtlasDifference:
    """What of `before` is otherwise in `after`.

    Where both are over the same prompts they are compared prompt by prompt (a paired bootstrap), else as two samples.
    """

    before: Atlas
    after: Atlas

    @property
    def is_paired(self) -> bool:
        """Whether both are over prompts with the same ids."""
        one, other = self.before.tally, self.after.tally
        return (one.prompts, one.fingerprint) == (other.prompts, other.fingerprint)

    @property
    def has_same_shape(self) -> bool:
        """Whether both have the same layers and heads; else only their roles can be compared."""
        one, other = self.before.tally, self.after.tally
        return (one.layers, one.heads) == (other.layers, other.heads)

    def roles(self) -> dict[str, tuple[int, int]]:
        """By measure, how many heads are named by it before and after."""
        return {
            name: (len(self.before.heads(name)), len(self.after.heads(name)))
            for name, measure in MEASURES.items()
            if measure.role
        }

    def change(self, measure: str) -> Table:
        """The mean after less the mean before. Raises RegardError where the models have other layers or heads."""
        self._check_shape()
        return self.after.mean(measure) - self.before.mean(measure)

    def interval(self, measure: str, level: float = LEVEL) -> tuple[Table, Table]:
        """Where the change is with this probability."""
        self._check_shape()
        before = self.before.replicates(measure)
        # of the same prompts each replicate counts the same ones in both
        found = self.after.replicates(measure) - (before if self.is_paired else np.roll(before, 1, axis=0))
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high

    def strongest(self, count: int = 10, measure: str | None = None) -> list[Change]:
        """The largest changes whose interval does not hold 0, of one measure or of all by which heads are named."""
        found = []
        for name in [measure] if measure else [name for name, each in MEASURES.items() if each.role]:
            change, (low, high) = self.change(name), self.interval(name)
            before, after = self.before.mean(name), self.after.mean(name)
            for place in zip(*np.nonzero((low > 0) | (high < 0)), strict=True):
                layer, head = self.before.layers[place[0]], int(place[1])
                figures = (float(table[place]) for table in (before, after, low, high))
                found.append((-abs(float(change[place])), Change(layer, head, name, *figures)))
        return [change for _, change in sorted(found)[:count]]

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each change that `strongest` knows. Raises RegardError without pandas (`regard[frames]`)."""
        from regard.reading.frames import library

        changes = self.strongest(count=len(MEASURES) * int(np.prod(self.before.tally.sums["induction"].shape)))
        return library("pandas", "to_frame").DataFrame(changes, columns=Change._fields)

    def _check_shape(self) -> None:
        if not self.has_same_shape:
            raise RegardError(
                f"{self.before.model} and {self.after.model} have other layers or heads, so that no head of one is a "
                "head of the other; `roles` compares them"
            )
