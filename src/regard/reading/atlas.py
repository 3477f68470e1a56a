"""An atlas: what every head of a model does, over many prompts, by stated measures and with intervals."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from jaxtyping import Float

from regard.config import suggest
from regard.errors import RegardError
from regard.reading.examples import Example
from regard.reading.head_effects import LOG_PROBABILITY, HeadEffects
from regard.reading.interventions import Head
from regard.reading.measures import MEASURES, UNIT
from regard.reading.tally import Tally
from regard.reading.tally_files import read_tally, save_tally
from regard.reading.views import view

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

# of all that is above chance, what a head must have, also at the lower end of its interval, to be named by a measure
NAMED = 0.25
LEVEL = 0.95
NAMES = [name for name, measure in MEASURES.items() if measure.role]
Table = Float[np.ndarray, "layer head"]


@final
class Atlas:
    """What the heads of a model do, over many prompts. `Atlas.load` and `save` keep it.

    `model` is its name, `kind` that of its attention, `settings` how it was made, `tally` the counts. Tables are
    [layer, head], where `layers` numbers the layers, and NaN where a layer has no such head or was refused.
    """

    def __init__(self, model: str, kind: str, tally: Tally, settings: dict[str, Any]) -> None:
        self.model, self.kind, self.tally, self.settings = model, kind, tally, settings

    def __repr__(self) -> str:
        layers, heads = len(self.layers), max(self.tally.heads)
        return f"<Atlas of {self.model}: {self.prompts:,} prompts, {layers} layers × {heads} heads>"

    @property
    def layers(self) -> list[int]:
        """The model's numbers of the layers."""
        return self.tally.layers

    @property
    def prompts(self) -> int:
        """How many prompts it is over."""
        return self.tally.prompts

    @property
    def refused(self) -> dict[int, str]:
        """Layers that could not be measured in some prompts, with the reason and in how many."""
        found: dict[int, str] = {}
        for (layer, why), count in sorted(self.tally.refused.items()):
            found.setdefault(layer, f"{why} (in {count:,} of {self.prompts:,} prompts)")
        return found

    def mean(self, measure: str) -> Table:
        """The mean of a measure over all rows of all prompts on which it can tell heads apart."""
        check_measure(measure)
        return self._masked(_ratio(self.tally.sums[measure] / UNIT, self.tally.rows[measure][:, None]))

    def interval(self, measure: str, level: float = LEVEL) -> tuple[Table, Table]:
        """Where the mean is with this probability, by a bootstrap over prompts: its lower and its upper end."""
        low, high = np.quantile(self.replicates(measure), [(1 - level) / 2, (1 + level) / 2], axis=0)
        return self._masked(low), self._masked(high)

    def replicates(self, measure: str) -> Float[np.ndarray, "replicate layer head"]:
        """The mean in each replicate of the bootstrap, which counts each prompt as often as chance and its id say."""
        check_measure(measure)
        found = _ratio(self.tally.replicates[measure] / UNIT, self.tally.replicate_rows[measure][..., None])
        # where chance took no prompt that has such rows the mean itself is all that is known
        return np.where(np.isnan(found), self.mean(measure), found)

    def quantile(self, measure: str, q: float) -> Table:
        """The value that a share q of the rows are at or below, exact to the width of a bin of `MEASURES`.

        The upper edge of the bin that holds it.
        """
        check_measure(measure)
        if not 0 <= q <= 1:
            raise RegardError(f"a quantile is between 0 and 1, not {q!r}")
        counts = self.tally.bins[measure].cumsum(-1)
        wanted = np.maximum(1, np.ceil(q * counts[..., -1:]))
        place = (counts < wanted).sum(-1).clip(max=counts.shape[-1] - 1)
        return self._masked(np.where(counts[..., -1] > 0, MEASURES[measure].edges[1:][place], np.nan))

    def chance(self, measure: str) -> Float[np.ndarray, " layer"]:
        """The mean that a head has that gives every key it sees as much."""
        check_measure(measure)
        return _ratio(self.tally.chance[measure] / UNIT, self.tally.rows[measure])

    def above_chance(self, measure: str) -> Table:
        """How far the mean is from chance towards 1: 0 is chance, 1 all of a row's weight. Below 0 it is less."""
        return self._above(measure, self.mean(measure))

    def roles(self) -> list[list[list[str]]]:
        """What each head, [layer][head], is called: measures in the order of `MEASURES`, what few heads do first.

        A head is named by a measure whose interval lies wholly above a quarter of what is possible above chance.
        """
        named = {name: self._above(name, self.interval(name)[0]) >= NAMED for name in NAMES}
        return [
            [[name for name in NAMES if named[name][layer, head]] for head in range(count)]
            for layer, count in enumerate(self.tally.heads)
        ]

    def heads(self, measure: str, count: int | None = None) -> list[Head]:
        """The heads that are named by a measure, `(layer, head)` each, the one first that has most of it."""
        check_measure(measure)
        if not MEASURES[measure].role:
            raise RegardError(f"no head is named by {measure}; heads are named by {', '.join(NAMES)}")
        means, roles = self.mean(measure), self.roles()
        found = [(layer, head) for layer, row in enumerate(roles) for head, named in enumerate(row) if measure in named]
        found.sort(key=lambda place: (-means[place], place))
        return [(self.layers[layer], head) for layer, head in found[:count]]

    def examples(self, layer: int, head: int, measure: str | None = None) -> list[Example]:
        """The rows that have most of a measure, each of another prompt; by default of `nearest`."""
        place = self._place(layer, head)
        measure = measure or self.nearest(layer, head)[0]
        check_measure(measure)
        return self.tally.examples.get((MEASURES[measure].shown_by or measure, place, head), [])

    def nearest(self, layer: int, head: int) -> list[str]:
        """The measures by which heads are named: those of this head, then those of which it has most above chance."""
        place = self._place(layer, head)
        own = self.roles()[place][head]
        values = {name: np.nan_to_num(self.above_chance(name)[place, head], nan=-np.inf) for name in NAMES}
        return [*own, *sorted(set(NAMES) - set(own), key=lambda name: (-values[name], name))]

    @property
    def effects(self) -> HeadEffects | None:
        """What ablating each head does to the log-probability of some of the prompts; None where it was not asked."""
        if not self.tally.effects:
            return None
        values = np.stack([table for _, table in sorted(self.tally.effects.items())])
        return HeadEffects(values, self.layers, LOG_PROBABILITY)

    def facts(self) -> dict[str, Any]:
        """What it is of, as JSON holds it."""
        tally = self.tally
        counts = {"prompts": tally.prompts, "tokens": tally.tokens, "cut": tally.cut}
        return {"model": self.model, "kind": self.kind, **counts, **self.settings, "refused": self.refused}

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each layer and head: its role, means, intervals, medians, chance and effect.

        Raises RegardError without pandas (`regard[frames]`).
        """
        from regard.reading.frames import library

        return library("pandas", "to_frame").DataFrame(self.columns())

    def columns(self) -> dict[str, list[Any]]:
        """The same by the name of a column: `induction`, `induction_low`, `induction_high`, `induction_median`, ….

        `role` is the first of `roles`, by its own name, "" where a head has none.
        """
        places = [(layer, head) for layer, count in enumerate(self.tally.heads) for head in range(count)]
        roles = self.roles()
        found: dict[str, list[Any]] = {
            "layer": [self.layers[layer] for layer, _ in places],
            "head": [head for _, head in places],
            "role": [MEASURES[named[0]].role if (named := roles[layer][head]) else "" for layer, head in places],
        }
        for name in MEASURES:
            low, high = self.interval(name)
            tables = {"": self.mean(name), "_low": low, "_high": high, "_median": self.quantile(name, 0.5)}
            for end, table in tables.items():
                found[name + end] = [float(table[place]) for place in places]
            chance = self.chance(name)
            found[f"{name}_chance"] = [float(chance[layer]) for layer, _ in places]
        if (effects := self.effects) is not None:
            mean = effects.mean
            found["effect"] = [float(mean[place]) for place in places]
        return found

    def plot(self, measure: str = "induction", path: str | Path | None = None, *, title: str | None = None) -> "Figure":
        """A matplotlib figure of a measure by layer and head; with `path` it is written as .png, .svg or .pdf too.

        Raises RegardError where matplotlib is not installed.
        """
        return view("atlas plot")(self, measure, path, title=title)

    def to_html(self, lang: str | None = None) -> str:
        """One HTML file with a map of all heads, offline; `lang` is `en`, `zh`, or the browser's choice."""
        return view("atlas html")(self, lang)

    def save(self, path: str | Path) -> None:
        """Write the atlas; by its suffix: .safetensors (all of it, exactly), .parquet (its table), .html (its page)."""
        path = Path(path)
        if path.suffix not in FORMATS:
            raise RegardError(f"{path}: an atlas is saved as {', '.join(FORMATS)}, not {path.suffix or 'no suffix'!r}")
        FORMATS[path.suffix](self, path)

    @classmethod
    def load(cls, path: str | Path) -> "Atlas":
        """What `save` wrote as .safetensors. Raises RegardError for any other file and a damaged one."""
        facts, tally = read_tally(Path(path))
        return cls(facts["model"], facts["kind"], tally, facts["settings"])

    def _above(self, measure: str, means: Table) -> Table:
        chance = self.chance(measure)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (means - chance) / (1 - chance)

    def _place(self, layer: int, head: int) -> int:
        if layer not in self.layers:
            raise RegardError(f"there is no layer {layer}; there are {self.layers[0]} to {self.layers[-1]}")
        place = self.layers.index(layer)
        if not 0 <= head < self.tally.heads[place]:
            raise RegardError(f"layer {layer} has no head {head}; it has heads 0 to {self.tally.heads[place] - 1}")
        return place

    def _masked(self, table: np.ndarray) -> Table:
        """With NaN where a layer has fewer heads."""
        there = np.arange(table.shape[-1]) < np.array(self.tally.heads)[:, None]
        return np.where(there, table, np.nan)


def check_measure(name: str) -> None:
    """Raises RegardError where there is no such measure."""
    if name not in MEASURES:
        raise RegardError(f"there is no measure {name!r}; there are {', '.join(MEASURES)}{suggest(name, MEASURES)}")


def _ratio(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / np.where(rows > 0, rows, np.nan)


def _save_html(atlas: Atlas, path: Path) -> None:
    from regard.files import new_file

    with new_file(path) as partial:
        partial.write_text(atlas.to_html(), encoding="utf-8")


def _save_parquet(atlas: Atlas, path: Path) -> None:
    from regard.files import new_file

    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise RegardError("Parquet needs pyarrow: pip install 'regard[data]'") from None
    with new_file(path) as partial:
        parquet.write_table(pa.table(atlas.columns()), partial)


FORMATS: dict[str, Callable[[Atlas, Path], None]] = {
    ".safetensors": lambda atlas, path: save_tally(
        path, atlas.tally, {"model": atlas.model, "kind": atlas.kind, "settings": atlas.settings}
    ),
    ".parquet": _save_parquet,
    ".html": _save_html,
}
