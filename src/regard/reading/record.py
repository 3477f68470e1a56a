"""A reading: which tokens every token looked at, what proves it, and what can be asked of it."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from regard.errors import RegardError
from regard.reading.alignment import WordTable, word_alignment, word_table
from regard.reading.choices import (
    chosen_kind,
    chosen_table,
    described,
    mean_of_heads,
    nothing_read,
    one_statistic,
    scores_of,
)
from regard.reading.files import FORMATS, Place, as_name, as_place, document, read
from regard.reading.frames import dataset, frame
from regard.reading.ranks import agreement
from regard.reading.spans import Span, is_whole, positions_of

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure

# of a translator: which sequence asks and which is looked at
TRANSLATION = {"encoder": ("source", "source"), "decoder": ("target", "target"), "cross": ("target", "source")}
# attention within the input comes before attention within the output, and that before between them
KINDS = ("vision", "resampler", "encoder", "decoder", "cross")


class Token(NamedTuple):
    """One token: `start` and `end` are characters of the sequence's text, `words` the indices of its words.

    A position that holds another `sort` of input, such as an "image patch", "class token", "register", "audio frame",
    "virtual token" or merely a "position", has the id −1.
    """

    id: int
    text: str
    start: int
    end: int
    words: list[int]
    sort: str = "token"


@dataclass(frozen=True)
class Sequence:
    """A text with its tokens: the source, the target from BOS to EOS, or what a language model was fed and wrote."""

    text: str
    tokens: list[Token]
    words: list[str]


class Top(NamedTuple):
    """The strongest keys of every query, the strongest first: position −1 and weight 0 where there are fewer."""

    positions: Int[np.ndarray, "*layer head query k"]
    weights: Float[np.ndarray, "*layer head query k"]


class Check(NamedTuple):
    """The largest errors found over `rows` rows of a layer: of row sums, and of weights · value against the context."""

    row_sum_error: float
    context_error: float
    rows: int


@final
@dataclass(frozen=True, eq=False)
class Reading:
    """What was read from one run of a model over one sequence. `Reading.load` and `save` keep it.

    A row is all weights of one query. The query of a written token is the one whose logits chose it:
    `queries(kind)[i]` looked and `written(kind)[i]` came of it. Positions count from the sequence's first token.
    `sides` names the sequence that looks and the one that is looked at; `kept` has the positions of rows, where those
    are not all.
    """

    model: str
    sequences: dict[str, Sequence]
    maps: dict[tuple[str, int], Float[np.ndarray, "head row key"]]
    checks: dict[tuple[str, int], Check]
    refused: dict[tuple[str, int], str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    sides: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(TRANSLATION))
    kept: dict[str, list[int]] = field(default_factory=dict)
    tops: dict[tuple[str, int], Top] = field(default_factory=dict)
    statistics: dict[tuple[str, int], dict[str, np.ndarray]] = field(default_factory=dict)
    score_maps: dict[tuple[str, int], Float[np.ndarray, "head row key"]] = field(default_factory=dict)
    # asks the model again with parts of the text hidden; no file keeps it
    knockout: Callable[[int, list[Span]], np.ndarray] | None = None

    def __repr__(self) -> str:
        return f"<Reading of {self.model}: {'; '.join(described(self))}>"

    def __getstate__(self) -> dict[str, Any]:
        # a copy on disk or in another process has no model
        return {**self.__dict__, "knockout": None}

    @property
    def kinds(self) -> list[str]:
        """Of `vision`, `encoder`, `decoder` and `cross`, those that were read."""
        return [kind for kind in KINDS if any(name == kind for name, _ in self.maps)]

    @property
    def tokens(self) -> dict[str, list[str]]:
        """The tokens of each sequence, special ones included, as text."""
        return {name: [token.text for token in sequence.tokens] for name, sequence in self.sequences.items()}

    def layers(self, kind: str | None = None) -> list[int]:
        """The model's own numbers of the layers that were read, in the order in which tables of all layers have them.

        As everywhere, `kind` may be left out where the reading has only one.
        """
        kind = chosen_kind(self, kind, "layers({!r})")
        found = sorted(layer for name, layer in self.maps if name == kind)
        if not found:
            raise nothing_read(self, kind)
        return found

    def rows(self, kind: str | None = None) -> list[int]:
        """The query positions that were kept whole."""
        kind = chosen_kind(self, kind, "rows({!r})")
        return self.kept.get(kind, list(range(self.maps[kind, self.layers(kind)[0]].shape[1])))

    def weights(self, kind: str | None = None, layer: int | None = None) -> Float[np.ndarray, "*layer head row key"]:
        """Exact weights of a layer, [head, row, key], or without `layer` of all that were read.

        All are [layer, head, row, key], and `layers(kind)` numbers them; a refused layer is not among them. A negative
        `layer` counts from the last. Raises RegardError where there are no weights, saying why, and where layers differ
        in shape.
        """
        kind = chosen_kind(self, kind, "weights({!r}, 3)")
        return chosen_table(self, self.maps.__getitem__, kind, layer, "weights")

    def scores(self, kind: str | None = None, layer: int | None = None) -> Float[np.ndarray, "*layer head row key"]:
        """The scores of the rows before the softmax, -inf for a hidden key, by layers as in `weights`.

        Raises RegardError if they were not asked for.
        """
        kind = chosen_kind(self, kind, "scores({!r}, 3)")

        return chosen_table(self, partial(scores_of, self), kind, layer, "scores")

    def top(self, kind: str | None = None, layer: int | None = None) -> Top:
        """The strongest keys of every query, exact, by layers as in `weights`.

        Raises RegardError if they were not asked for.
        """
        kind = chosen_kind(self, kind, "top({!r}, 3)")

        def part(name: str) -> np.ndarray:
            def table(place: Place) -> np.ndarray:
                if place not in self.tops:
                    raise RegardError("this reading has no strongest keys; read with top_k=8, or as many as you want")
                return getattr(self.tops[place], name)

            return chosen_table(self, table, kind, layer, "strongest keys")

        return Top(part("positions"), part("weights"))

    def statistic(self, name: str, kind: str | None = None, layer: int | None = None) -> np.ndarray:
        """A statistic by name, of a shape that it names, by layers as in `weights`.

        Raises RegardError if it was not asked for.
        """
        if not isinstance(name, str) or name in KINDS:
            raise RegardError(f"a statistic's name comes first: statistic('entropy', 'decoder', 3), not {name!r}")
        kind = chosen_kind(self, kind, f"statistic({name!r}, {{!r}}, 3)")

        return chosen_table(self, lambda place: one_statistic(self, name, place), kind, layer, name)

    def queries(self, kind: str | None = None) -> list[Token]:
        """The tokens that look, one a row."""
        kind = chosen_kind(self, kind, "queries({!r})")
        tokens = self.sequences[self.sides[kind][0]].tokens
        return [tokens[position] for position in self.rows(kind)]

    def keys(self, kind: str | None = None) -> list[Token]:
        """The tokens that are looked at: of a target all but the last, which is written and never fed back."""
        kind = chosen_kind(self, kind, "keys({!r})")
        tokens = self.sequences[self.sides[kind][1]].tokens
        return tokens[: self.maps[kind, self.layers(kind)[0]].shape[2]]

    def written(self, kind: str | None = None) -> list[Token | None] | None:
        """The token that came of each row, None where none is known; None for an encoder, which writes nothing."""
        kind = chosen_kind(self, kind, "written({!r})")
        if kind not in ("decoder", "cross"):
            return None
        tokens = self.sequences[self.sides[kind][0]].tokens
        return [tokens[row + 1] if row + 1 < len(tokens) else None for row in self.rows(kind)]

    def effect(self, row: int, span: Span | str) -> float:
        """How the log-probability of the token that `row` wrote changes when a span of positions is hidden.

        The span, from its first position to before its second, is hidden from that row on, in every layer; other tokens
        keep their positions. A span may be a piece of the text, which stands for all tokens that have a part of it.
        Below 0 it made the token likelier.
        Raises RegardError where the model is not at hand: for a reading that was loaded, and for other than decoders;
        and for a text that the row does not see, or sees several times.
        """
        if not isinstance(span, tuple | list | str):
            raise RegardError(f"a span is a pair of positions or a text, and comes after the row, not {span!r}")
        return float(self.effects(row, [span])[0])

    def effects(self, row: int, spans: Iterable[Span | str]) -> Float[np.ndarray, " span"]:
        """`effect` of several spans, each hidden by itself, which are run together."""
        if self.knockout is None:
            raise RegardError("effects need the model itself: take a reading of a language model that was just made")
        if not is_whole(row):
            raise RegardError(f"the row comes first and is one position, as in effects(12, [(0, 4)]), not {row!r}")
        if isinstance(spans, str) or not isinstance(spans, Iterable):
            raise RegardError(
                f"effects takes several spans, such as [(0, 4), 'a text'], not {spans!r}; effect takes one"
            )
        sequence = self.sequences[self.sides["decoder"][1]]
        return self.knockout(row, [positions_of(sequence, row, span) for span in spans])

    def agreement(self, rows: Collection[int] | None = None, *, kind: str = "decoder") -> dict[str, float]:
        """Do weights say what mattered? Spearman's ρ between each measure and effect, over single tokens, by row.

        Measures are `weights` and, where they were read, `value_norm` and `output_norm`, mean over layers and heads;
        each is compared with how much less likely the written token becomes without that token. The mean over rows.
        """
        return agreement(self, self.rows(kind) if rows is None else list(rows), kind)

    def alignment(self, *, layer: int = -1, head: int | None = None) -> Float[np.ndarray, "target source"]:
        """Cross-attention between words: rows of written words, columns of source words.

        One layer (by default the last) and one head, or the mean of its heads. A word's weight is the sum over its
        source tokens and the mean over its target tokens. A source token of several words gives each an equal part of
        its weight, a target token of several counts in full for each. EOS and BOS have no part, so that rows sum to at
        most 1.
        """
        table = mean_of_heads(self, "cross", layer, head)
        written, source = self.sequences["target"], self.sequences["source"]
        return word_alignment(
            table,
            target_words=[token.words for token in written.tokens[1:]],
            source_words=[token.words for token in source.tokens],
            shape=(len(written.words), len(source.words)),
        )

    def words(self, kind: str | None = None, layer: int | None = None, head: int | None = None) -> WordTable:
        """Attention between words of any kind: `weights[i, j]` is what the word `rows[i]` gave to the word `keys[j]`.

        The rows are written words (decoder, cross), each by the rows that wrote its tokens, or else the words that
        look. A word of which some row was not kept, or whose first token no row wrote, has no row here. Weights are
        shared out as in `alignment`. A position that is no token, such as an image patch, counts as a word. The mean
        of all layers and heads, or of one layer's heads, or one head of a layer.
        """
        kind = chosen_kind(self, kind, "words({!r}, 3)")
        shift = 0 if self.written(kind) is None else 1
        return word_table(
            mean_of_heads(self, kind, layer, head),
            self.sequences[self.sides[kind][0]],
            self.sequences[self.sides[kind][1]],
            rows=[row + shift for row in self.rows(kind)],
        )

    def to_frame(self, what: str = "weights", kind: str | None = None, layer: int | None = None) -> "pandas.DataFrame":
        """A tidy pandas table of "weights", "top" or a statistic by name: one line for each number.

        Columns are `kind`, `layer`, `head`, then positions with their tokens, then the number by its name; with
        "weights" also the statistics of rows and keys. All kinds and layers, or those that are named.
        Raises RegardError for what the reading does not have, and where pandas is not installed.
        """
        return frame(self, what, kind=kind, layer=layer)

    def to_xarray(self, kind: str | None = None) -> "xarray.Dataset":
        """All tables of one kind as an xarray Dataset, with layers, positions and tokens as coordinates.

        A statistic that a layer lacks is NaN there. Raises RegardError where layers differ in shape, and where xarray
        is not installed.
        """
        return dataset(self, chosen_kind(self, kind, "to_xarray({!r})"))

    def save(self, path: str | Path) -> None:
        """Write the reading; by its suffix: `.safetensors` or `.json` (all of it, exactly), `.html` or a picture."""
        path = Path(path)
        if path.suffix in FORMATS:
            FORMATS[path.suffix](self.facts(), self.tensors(), path)
        elif path.suffix in RENDERERS:
            RENDERERS[path.suffix](self, path)
        else:
            known = ", ".join([*FORMATS, *RENDERERS])
            raise RegardError(f"{path}: a reading is saved as {known}, not {path.suffix or 'no suffix'!r}")

    def to_html(self, lang: str | None = None) -> str:
        """One HTML file in which the reading is looked at, offline; `lang` is `en`, `zh`, or the browser's choice."""
        return _view("html")(self, lang)

    def widget(self, lang: str | None = None) -> Any:
        """The same in a notebook, as an anywidget. Raises RegardError where anywidget is not installed."""
        return _view("widget")(self, lang)

    def plot(
        self,
        what: str | None = None,
        path: str | Path | None = None,
        *,
        kind: str | None = None,
        layer: int | None = None,
        head: int | None = None,
        token: str | None = None,
        statistic: str = "strongest",
        title: str | None = None,
    ) -> "Figure":
        """A matplotlib figure for a paper, which a notebook shows; with `path` it is written as .png, .svg or .pdf too.

        `what` is "alignment" (who looked at whom: words of a translation, Bahdanau et al. 2015, figure 3, or tokens of
        another text), "heads" (`statistic` of every layer and head: `regard.view.heads.by_head` has their names) or
        "text" (the input shaded by where the answer, or one written `token`, looked); by default the first of a
        translation and the last of any other text. `kind` is cross, decoder or encoder; `layer` and `head` are those
        drawn: of a translation by default the last layer, else the mean of all.
        Raises RegardError for what is not there, and where matplotlib is not installed.
        """
        how = {"kind": kind, "layer": layer, "head": head, "token": token, "statistic": statistic, "title": title}
        return _view("plot")(self, what, path, **how)

    def _repr_html_(self) -> str | None:
        return VIEWS["frame"](self) if "frame" in VIEWS else None

    @classmethod
    def load(cls, path: str | Path) -> "Reading":
        """What `save` wrote as `.safetensors` or `.json`. Raises RegardError for any other file and a damaged one."""
        facts, tables = read(path)
        return cls(
            model=facts["model"],
            sequences={
                name: Sequence(each["text"], [Token(**token) for token in each["tokens"]], each["words"])
                for name, each in facts["sequences"].items()
            },
            maps=tables.weights,
            checks={as_place(name): Check(**check) for name, check in facts["checks"].items()},
            refused={as_place(name): why for name, why in facts["refused"].items()},
            settings=facts["settings"],
            sides={kind: (query, key) for kind, (query, key) in facts["sides"].items()},
            kept=facts["rows"],
            tops={place: Top(**parts) for place, parts in tables.top.items()},
            statistics=tables.statistics,
            score_maps=tables.scores,
        )

    def facts(self) -> dict[str, Any]:
        """Everything but the weights, as JSON holds it. Layers are named `kind.layer`."""
        return {
            "model": self.model,
            "sequences": {
                name: {
                    "text": sequence.text,
                    "words": sequence.words,
                    "tokens": [token._asdict() for token in sequence.tokens],
                }
                for name, sequence in self.sequences.items()
            },
            "checks": {as_name(key): check._asdict() for key, check in self.checks.items()},
            "refused": {as_name(key): why for key, why in self.refused.items()},
            "settings": self.settings,
            "sides": {kind: list(self.sides[kind]) for kind in self.kinds},
            "rows": {kind: self.rows(kind) for kind in self.kinds},
        }

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every table by the name that a file keeps it under: `weights.cross.2`, `statistic.decoder.0.entropy`."""
        for key, table in self.maps.items():
            yield f"weights.{as_name(key)}", table
        for key, table in self.score_maps.items():
            yield f"scores.{as_name(key)}", table
        for key, top in self.tops.items():
            yield from ((f"top.{as_name(key)}.{part}", table) for part, table in top._asdict().items())
        for key, found in self.statistics.items():
            yield from ((f"statistic.{as_name(key)}.{name}", table) for name, table in found.items())

    def to_json(self) -> dict[str, Any]:
        """All of it, the weights as nested lists: `weights["cross.2"][head][row][key]`; null stands for NaN."""
        return document(self.facts(), self.tensors())


# pages and pictures, by suffix, and what else shows a reading, by name: whoever draws readings enters it here
RENDERERS: dict[str, Callable[[Reading, Path], None]] = {}
VIEWS: dict[str, Callable[..., Any]] = {}


def _view(name: str) -> Callable[..., Any]:
    if name not in VIEWS:
        raise RegardError(f"nothing here shows a reading as {name}; `import regard.api` brings what does")
    return VIEWS[name]
