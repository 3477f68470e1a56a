"""A reading: which tokens every token looked at, what proves it, and how it is kept on disk."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regard.config import suggest
from regard.errors import RegardError
from regard.files import new_file
from regard.reading.alignment import word_alignment
from regard.reading.ranks import rank_correlation
from regard.reading.sound import check_facts, check_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "regard-reading-1"
# of a translator: which sequence asks and which is looked at
TRANSLATION = {"encoder": ("source", "source"), "decoder": ("target", "target"), "cross": ("target", "source")}
# attention within the input comes before attention within the output, and that before between them
KINDS = ("vision", "resampler", "encoder", "decoder", "cross")


# from the first position to before the second
Span = tuple[int, int]


class Token(NamedTuple):
    """One token: `start` and `end` are characters of the sequence's text, `words` the indices of its words.

    What is no token of a text has the id −1; `sort` says what it is.
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

    positions: Int[np.ndarray, "head query k"]
    weights: Float[np.ndarray, "head query k"]


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
    # asks the model again with parts of the text hidden; no file keeps it
    knockout: Callable[[int, list[Span]], np.ndarray] | None = None

    def __repr__(self) -> str:
        shapes = {kind: self.maps[kind, self.layers(kind)[0]].shape for kind in self.kinds}
        told = [f"{len(self.layers(kind))} {kind} layers of {shape}" for kind, shape in shapes.items()]
        return f"<Reading of {self.model}: {', '.join(told)}>"

    @property
    def kinds(self) -> list[str]:
        """Of `vision`, `encoder`, `decoder` and `cross`, those that were read."""
        return [kind for kind in KINDS if any(name == kind for name, _ in self.maps)]

    @property
    def tokens(self) -> dict[str, list[str]]:
        """The tokens of each sequence, special ones included, as text."""
        return {name: [token.text for token in sequence.tokens] for name, sequence in self.sequences.items()}

    def layers(self, kind: str) -> list[int]:
        """The model's own numbers of the layers that were read."""
        if kind not in self.kinds:
            refused = [f"{layer}: {why}" for (name, layer), why in self.refused.items() if name == kind]
            why = f"; refused {kind} layer {refused[0]}" if refused else suggest(kind, self.kinds)
            raise RegardError(f"this reading has no {kind!r} attention{why}")
        return sorted(layer for name, layer in self.maps if name == kind)

    def rows(self, kind: str) -> list[int]:
        """The query positions that were kept whole."""
        return self.kept.get(kind, list(range(self.maps[kind, self.layers(kind)[0]].shape[1])))

    def weights(self, kind: str, layer: int) -> Float[np.ndarray, "head row key"]:
        """Exact weights. A negative layer counts from the last. Raises RegardError where there are none, saying why."""
        return self.maps[kind, self._number(kind, layer)]

    def top(self, kind: str, layer: int) -> Top:
        """The strongest keys of every query, exact. Raises RegardError if they were not asked for."""
        key = (kind, self._number(kind, layer))
        if key not in self.tops:
            raise RegardError("this reading has no strongest keys; read with top_k=8, or as many as you want")
        return self.tops[key]

    def statistic(self, name: str, kind: str, layer: int) -> np.ndarray:
        """A statistic by name, of a shape that it names. Raises RegardError if it was not asked for."""
        found = self.statistics.get((kind, self._number(kind, layer)), {})
        if name not in found:
            near = suggest(name, found) if found else f"; read with statistics=({name!r},)"
            raise RegardError(f"this reading has no statistic {name!r}{near}")
        return found[name]

    def _number(self, kind: str, layer: int) -> int:
        # a refused layer keeps its place, so that -1 is never another one than the last
        layers = sorted(number for name, number in self.maps.keys() | self.refused.keys() if name == kind)
        number = layers[layer] if -len(layers) <= layer < 0 else layer
        if (kind, number) in self.refused:
            raise RegardError(f"{kind} layer {number} was refused: {self.refused[kind, number]}")
        if (kind, number) not in self.maps:
            raise RegardError(f"there is no {kind} layer {layer}; layers: {', '.join(map(str, self.layers(kind)))}")
        return number

    def queries(self, kind: str) -> list[Token]:
        """The tokens that look, one a row."""
        tokens = self.sequences[self.sides[kind][0]].tokens
        return [tokens[position] for position in self.rows(kind)]

    def keys(self, kind: str) -> list[Token]:
        """The tokens that are looked at: of a target all but the last, which is written and never fed back."""
        tokens = self.sequences[self.sides[kind][1]].tokens
        return tokens[: self.maps[kind, self.layers(kind)[0]].shape[2]]

    def written(self, kind: str) -> list[Token | None] | None:
        """The token that came of each row, None where none is known; None for an encoder, which writes nothing."""
        if kind not in ("decoder", "cross"):
            return None
        tokens = self.sequences[self.sides[kind][0]].tokens
        return [tokens[row + 1] if row + 1 < len(tokens) else None for row in self.rows(kind)]

    def effect(self, row: int, span: Span) -> float:
        """How the log-probability of the token that `row` wrote changes when a span of positions is hidden.

        The span, from its first position to before its second, is hidden from that row on, in every layer; other tokens
        keep their positions. Below 0 it made the token likelier.
        Raises RegardError where the model is not at hand: for a reading that was loaded, and for other than decoders.
        """
        return float(self.effects(row, [span])[0])

    def effects(self, row: int, spans: Iterable[Span]) -> Float[np.ndarray, " span"]:
        """`effect` of several spans, each hidden by itself, which are run together."""
        if self.knockout is None:
            raise RegardError("effects need the model itself: take a reading of a language model that was just made")
        return self.knockout(row, list(spans))

    def agreement(self, rows: Collection[int] | None = None, *, kind: str = "decoder") -> dict[str, float]:
        """Do weights say what mattered? Spearman's ρ between each measure and effect, over single tokens, by row.

        Measures are `weights` and, where they were read, `value_norm` and `output_norm`, mean over layers and heads;
        each is compared with how much less likely the written token becomes without that token. The mean over rows.
        """
        rows = self.rows(kind) if rows is None else list(rows)
        measures: dict[str, list[float]] = {}
        for row in rows:
            if row < 2:
                raise RegardError(f"row {row} sees {row + 1} tokens, too few to be ranked")
            lost = -self.effects(row, ((token, token + 1) for token in range(row + 1)))
            place = self.rows(kind).index(row)
            tables = {"weights": [self.weights(kind, layer)[:, place] for layer in self.layers(kind)]}
            for name in ("value_norm", "output_norm"):
                found = [self.statistics.get((kind, layer), {}).get(name) for layer in self.layers(kind)]
                tables |= {name: [table[:, place] for table in found if table is not None]}
            for name, table in tables.items():
                if table:
                    ranked = np.concatenate(table).mean(axis=0)[: row + 1]
                    measures.setdefault(name, []).append(rank_correlation(ranked, lost))
        return {name: float(np.nanmean(values)) for name, values in measures.items()}

    def alignment(self, *, layer: int = -1, head: int | None = None) -> Float[np.ndarray, "target source"]:
        """Cross-attention between words: rows of written words, columns of source words.

        One layer (by default the last) and one head, or the mean of its heads. A word's weight is the sum over its
        source tokens and the mean over its target tokens. A source token of several words gives each an equal part of
        its weight, a target token of several counts in full for each. EOS and BOS have no part, so that rows sum to at
        most 1.
        """
        weights = self.weights("cross", layer)
        if head is not None and not 0 <= head < len(weights):
            raise RegardError(f"there is no head {head}; cross layer {layer} has heads 0 to {len(weights) - 1}")
        table = weights.mean(axis=0) if head is None else weights[head]
        written, source = self.sequences["target"], self.sequences["source"]
        return word_alignment(
            table,
            target_words=[token.words for token in written.tokens[1:]],
            source_words=[token.words for token in source.tokens],
            shape=(len(written.words), len(source.words)),
        )

    def save(self, path: str | Path) -> None:
        """Write the reading; by its suffix: `.safetensors` (all of it, exactly), `.json`, `.html` or a picture."""
        path = Path(path)
        writers = FORMATS | RENDERERS
        if path.suffix not in writers:
            raise RegardError(f"{path}: a reading is saved as {', '.join(writers)}, not {path.suffix or 'no suffix'!r}")
        writers[path.suffix](self, path)

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
        """What `save` wrote as safetensors. Raises RegardError for any other file, and if weights do not fit tokens."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise RegardError(f"{path}: not a reading; `regard read … --out {path}` makes one")
                facts = json.loads(metadata["reading"])
                check_facts(facts)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            maps: dict[tuple[str, int], np.ndarray] = {}
            tops: dict[tuple[str, int], dict[str, np.ndarray]] = {}
            statistics: dict[tuple[str, int], dict[str, np.ndarray]] = {}
            for name, tensor in tensors.items():
                sort, _, place = name.partition(".")
                if sort == "weights":
                    maps[_key(place)] = tensor
                elif sort == "top":
                    place, _, part = place.rpartition(".")
                    tops.setdefault(_key(place), {})[part] = tensor
                elif sort == "statistic":
                    place, _, part = place.rpartition(".")
                    statistics.setdefault(_key(place), {})[part] = tensor
                else:
                    raise ValueError(f"it has a tensor {name!r}")
            reading = cls(
                model=facts["model"],
                sequences={name: _sequence(values) for name, values in facts["sequences"].items()},
                maps=maps,
                checks={_key(name): Check(**check) for name, check in facts["checks"].items()},
                refused={_key(name): why for name, why in facts["refused"].items()},
                settings=facts["settings"],
                sides={kind: (query, key) for kind, (query, key) in facts["sides"].items()},
                kept={kind: [int(row) for row in rows] for kind, rows in facts["rows"].items()},
                tops={place: Top(**parts) for place, parts in tops.items()},
                statistics=statistics,
            )
            for (kind, layer), table in maps.items():
                query, key = (len(reading.sequences[name].tokens) for name in reading.sides[kind])
                rows = reading.rows(kind)
                # the last token written is never looked at
                counts = (key - 1, key) if kind == "decoder" else (key,)
                fits = table.ndim == 3 and table.shape[1] == len(rows) and table.shape[2] in counts
                if not fits or any(not 0 <= row < query for row in rows):
                    raise RegardError(
                        f"{path}: not a readable reading: {kind} layer {layer} has weights of shape {table.shape}, but "
                        f"its tokens make {len(rows)} rows and {key} keys; `regard read … --out {path}` makes it again"
                    )
            check_tables(reading)
            return reading
        except FileNotFoundError:
            raise RegardError(f"{path}: there is no such file") from None
        except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RegardError(f"{path}: not a readable reading: {error}") from None

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
            "checks": {_name(key): check._asdict() for key, check in self.checks.items()},
            "refused": {_name(key): why for key, why in self.refused.items()},
            "settings": self.settings,
            "sides": {kind: list(self.sides[kind]) for kind in self.kinds},
            "rows": {kind: self.rows(kind) for kind in self.kinds},
        }

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every table by the name that a file keeps it under: `weights.cross.2`, `statistic.decoder.0.entropy`."""
        for key, table in self.maps.items():
            yield f"weights.{_name(key)}", table
        for key, top in self.tops.items():
            yield from ((f"top.{_name(key)}.{part}", table) for part, table in top._asdict().items())
        for key, found in self.statistics.items():
            yield from ((f"statistic.{_name(key)}.{name}", table) for name, table in found.items())

    def to_json(self) -> dict[str, Any]:
        """All of it, the weights as nested lists: `weights["cross.2"][head][row][key]`."""
        return {
            **self.facts(),
            "weights": {_name(key): table.tolist() for key, table in self.maps.items()},
            "top": {
                _name(key): {"positions": top.positions.tolist(), "weights": top.weights.tolist()}
                for key, top in self.tops.items()
            },
            "statistics": {
                _name(key): {name: table.tolist() for name, table in found.items()}
                for key, found in self.statistics.items()
            },
        }


def _save_safetensors(reading: Reading, path: Path) -> None:
    metadata = {"format": FORMAT, "reading": json.dumps(reading.facts(), ensure_ascii=False)}
    with new_file(path) as partial:
        save_file({name: np.ascontiguousarray(table) for name, table in reading.tensors()}, partial, metadata)


def _save_json(reading: Reading, path: Path) -> None:
    with new_file(path) as partial:
        partial.write_text(json.dumps(reading.to_json(), ensure_ascii=False), encoding="utf-8")


FORMATS: dict[str, Callable[[Reading, Path], None]] = {".safetensors": _save_safetensors, ".json": _save_json}
# pictures and pages, by suffix, and what shows a reading elsewhere, by name: regard.view fills them
RENDERERS: dict[str, Callable[[Reading, Path], None]] = {}
VIEWS: dict[str, Callable[..., Any]] = {}


def _view(name: str) -> Callable[..., Any]:
    if name not in VIEWS:
        raise RegardError(f"nothing here shows a reading as {name}; `import regard.api` brings what does")
    return VIEWS[name]


def _name(key: tuple[str, int]) -> str:
    return f"{key[0]}.{key[1]}"


def _key(name: str) -> tuple[str, int]:
    kind, layer = name.split(".")
    return kind, int(layer)


def _sequence(values: dict[str, Any]) -> Sequence:
    return Sequence(text=values["text"], tokens=[Token(**token) for token in values["tokens"]], words=values["words"])
