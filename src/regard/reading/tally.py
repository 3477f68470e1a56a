"""What an atlas keeps of prompts: counts and sums of whole numbers, the same in whatever order they are added.

Every value is rounded to a multiple of 2⁻²⁰, so that its sums are exact: any number of shards merged give, bit by bit,
what one pass over all prompts gives, and memory does not grow with their number.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from regard.errors import RegardError
from regard.reading.examples import EXAMPLES, KEYS, Example, example, merged
from regard.reading.measures import MEASURES, SHOWN, UNIT
from regard.reading.record import Span

# of a bootstrap over prompts
REPLICATES = 200
FINGERPRINTS = 1 << 53
# from this share on, what rounding leaves of 1, chance gives all
EVERYTHING = 1 - 1e-5
# numbers of prompts that a Poisson variable of mean 1 gives, and how likely each or fewer are
_POISSON = np.cumsum([np.exp(-1.0) / np.prod(np.arange(1.0, count + 1)) for count in range(12)])


class PromptRows(NamedTuple):
    """What was measured of one prompt: of each layer, by name, a number for each head and row; refused ones apart.

    `chance` is what a head that looks everywhere alike would have. `strongest` are the positions and weights of each
    row's strongest keys. `spans` are the characters of each token in `text`.
    """

    id: str
    place: int
    text: str
    spans: Sequence[Span]
    shapes: Mapping[int, int]
    values: Mapping[int, Mapping[str, Float[np.ndarray, "head query"]]]
    strongest: Mapping[int, tuple[Int[np.ndarray, "head query k"], Float[np.ndarray, "head query k"]]]
    chance: Mapping[str, Float[np.ndarray, " query"]]
    refused: Mapping[int, str]


@dataclass(eq=False)
class Tally:
    """Counts and sums over prompts; `layers` are the model's numbers of its layers, `heads` how many heads each has.

    `sums`, `chance` and `replicates` are in units of 2⁻²⁰. How often replicate r counts a prompt is a Poisson variable
    that the prompt's id and r determine (Hanley and MacGibbon 2006, "Creating non-parametric bootstrap samples
    using Poisson frequencies"), so that two atlases over the same prompts can be compared prompt by prompt.
    """

    layers: list[int]
    heads: list[int]
    prompts: int = 0
    tokens: int = 0
    cut: int = 0
    # of the prompts' ids, the same in any order
    fingerprint: int = 0
    rows: dict[str, Int[np.ndarray, " layer"]] = field(default_factory=dict)
    chance: dict[str, Int[np.ndarray, " layer"]] = field(default_factory=dict)
    sums: dict[str, Int[np.ndarray, "layer head"]] = field(default_factory=dict)
    bins: dict[str, Int[np.ndarray, "layer head bin"]] = field(default_factory=dict)
    replicate_rows: dict[str, Int[np.ndarray, "replicate layer"]] = field(default_factory=dict)
    replicates: dict[str, Int[np.ndarray, "replicate layer head"]] = field(default_factory=dict)
    refused: Counter[tuple[int, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, int, int], list[Example]] = field(default_factory=dict)
    # of the prompts of which they were asked, by their place: [layer, head], NaN where there is no such head
    effects: dict[int, Float[np.ndarray, "layer head"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.layers), max(self.heads, default=0)
        for name, measure in MEASURES.items():
            for tables, shape in (
                (self.rows, size[:1]),
                (self.chance, size[:1]),
                (self.sums, size),
                (self.bins, (*size, measure.bins)),
                (self.replicate_rows, (REPLICATES, *size[:1])),
                (self.replicates, (REPLICATES, *size)),
            ):
                tables.setdefault(name, np.zeros(shape, np.int64))
        # what an example must have more of to be kept, in units
        self._least = {name: np.zeros(size, np.int64) for name in MEASURES}

    def add(self, found: PromptRows) -> None:
        """Add what was measured of one prompt."""
        self.prompts += 1
        self.tokens += len(found.spans)
        self.fingerprint = (self.fingerprint + _seed(found.id)) % FINGERPRINTS
        self._measure(found)

    def add_probe(self, found: PromptRows) -> None:
        """Add what was measured of a text that is none of the prompts."""
        self._measure(found)

    def _measure(self, found: PromptRows) -> None:
        self.refused.update(found.refused.items())
        places = [place for place, layer in enumerate(self.layers) if layer in found.values]
        counts = poisson(found.id)
        for name, chance in found.chance.items():
            told = np.isfinite(chance) & (chance > 0)
            if MEASURES[name].unit == "share":
                told &= chance < EVERYTHING
            if not told.any() or not places:
                continue
            size = len(places), self.sums[name].shape[1]
            units = np.zeros((*size, int(told.sum())), np.int64)
            for number, place in enumerate(places):
                own = found.values[self.layers[place]][name][:, told]
                units[number, : len(own)] = np.rint(own * np.float64(UNIT))
            sums, rows = units.sum(-1), units.shape[-1]
            self.sums[name][places] += sums
            self.rows[name][places] += rows
            self.chance[name][places] += int(np.rint(chance[told] * np.float64(UNIT)).sum())
            self.replicates[name][:, places] += counts[:, None, None] * sums
            self.replicate_rows[name][:, places] += counts[:, None] * rows
            self._count(name, places, units)
            if name in SHOWN:
                self._show(name, places, units, np.flatnonzero(told), found)

    def _count(self, name: str, places: list[int], units: Int[np.ndarray, "layer head row"]) -> None:
        bins = MEASURES[name].bin_of(units.ravel() / UNIT)
        layers, heads, rows = units.shape
        bins += np.repeat(np.arange(layers * heads), rows) * MEASURES[name].bins
        found = np.bincount(bins, minlength=layers * heads * MEASURES[name].bins)
        self.bins[name][places] += found.reshape(layers, heads, -1)

    def _show(
        self, name: str, places: list[int], units: np.ndarray, rows: Int[np.ndarray, " row"], found: PromptRows
    ) -> None:
        """Keep the prompt's best row of each head where it is among the best."""
        best = units.argmax(-1)
        values = np.take_along_axis(units, best[..., None], -1)[..., 0]
        for number, head in zip(*np.nonzero(values > self._least[name][places]), strict=True):
            place, row = places[number], int(rows[best[number, head]])
            positions, weights = (table[head, row] for table in found.strongest[self.layers[place]])
            kept = self.examples.setdefault((name, place, int(head)), [])
            new = example(
                found.text,
                found.spans,
                row,
                zip(positions[:KEYS].tolist(), weights[:KEYS].tolist(), strict=True),
                value=int(values[number, head]) / UNIT,
                place=found.place,
                id=found.id,
            )
            kept[:] = merged(kept, [new])
            if len(kept) == EXAMPLES:
                self._least[name][place, head] = round(kept[-1].value * UNIT)

    def merge(self, other: "Tally") -> None:
        """Add what another has counted of other prompts. Raises RegardError where it is of another model."""
        if not other.prompts:
            return
        if (self.layers, self.heads) != (other.layers, other.heads):
            raise RegardError("atlases of models with other layers or heads cannot be merged")
        for name in TABLES:
            for of, table in getattr(other, name).items():
                getattr(self, name)[of] += table
        for name in ("prompts", "tokens", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.fingerprint = (self.fingerprint + other.fingerprint) % FINGERPRINTS
        self.refused.update(other.refused)
        self.effects |= other.effects
        for key, kept in other.examples.items():
            self.examples[key] = merged(self.examples.get(key, []), kept)


TABLES = ("rows", "chance", "sums", "bins", "replicate_rows", "replicates")


def poisson(id: str) -> Int[np.ndarray, " replicate"]:
    """How often each replicate of the bootstrap counts the prompt with this id: the same on every machine."""
    draws = np.random.Generator(np.random.Philox(key=_seed(id))).random(REPLICATES)
    return np.searchsorted(_POISSON, draws)


def _seed(id: str) -> int:
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:16])
