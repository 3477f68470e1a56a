"""A reading: which tokens every token looked at, what proves it, and what can be asked of it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.alignment import WordTable, word_alignment, word_table
from regard.reading.asked import Asked, passages_in
from regard.reading.choices import chosen_kind, chosen_layer, described
from regard.reading.files import FORMATS, as_name, as_place, document, read
from regard.reading.frames import dataset, frame
from regard.reading.media import area_of, medium_facts, medium_of
from regard.reading.media_sources import MediaSources
from regard.reading.qk_attribution import QKAttribution, attribute
from regard.reading.ranks import agreement
from regard.reading.record import Check, Sequence, Span, Token, Top
from regard.reading.removal import Removal, remove
from regard.reading.source_record import Sources
from regard.reading.sources import SourceOptions, find_sources
from regard.reading.spans import positions_of
from regard.reading.tables import Tables, mean_of_heads
from regard.reading.views import RENDERERS, VIEWS, view
from regard.reading.word_times import WordTime, word_times

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, eq=False)
class Reading(Tables):
    """What was read from one run of a model over one sequence. `Reading.load` and `save` keep it.

    A row is all weights of one query. The query of a written token is the one whose logits chose it:
    `queries(kind)[i]` looked and `written(kind)[i]` came of it. Positions count from the sequence's first token.
    `sides` names the sequence that looks and the one that is looked at; `kept` has the positions of rows, where those
    are not all.
    """

    def __repr__(self) -> str:
        return f"<Reading of {self.model}: {'; '.join(described(self))}>"

    def agreement(self, rows: Collection[int] | None = None, *, kind: str = "decoder") -> dict[str, float]:
        """Do weights say what mattered? Spearman's ρ between each measure and effect, over single tokens, by row.

        Measures are `weights` and, where they were read, `value_norm` and `output_norm`, mean over layers and heads;
        each is compared with how much less likely the written token becomes without that token. The mean over rows.
        """
        return agreement(self, self.rows(kind) if rows is None else list(rows), kind)

    def sources(
        self, *, progress: Callable[[int], None] = lambda steps: None, **options: Any
    ) -> Sources | MediaSources:
        """Which passages of the prompt the answer rests on, confirmed; the options are those of `SourceOptions`.

        Of an answer about pictures or sounds it is regions and spans of these, with the options `of` and `confirm`.
        `progress` is called with 1 after each step: the estimates of all passages, then each removal.
        Raises RegardError where the model is not at hand, as in a reading from a file, or wrote no answer.
        """
        if self.seek is not None:
            return self.seek(SourceOptions.of_settings(options), progress=progress)
        module = getattr(self.knockout, "module", None)
        count = self.settings.get("prompt_tokens", 0)
        if module is None or not count:
            raise RegardError(
                "sources are sought in an answer that a language model wrote, with the model at hand: take "
                "LanguageModel.read(prompt=…) or the model's own sources"
            )
        turns = passages_in((turn["role"], turn["start"], turn["end"]) for turn in self.settings.get("turns", ()))
        asked = Asked(module, self.sequences["text"], count, turns, self.settings.get("end_tokens", 0))
        return find_sources(asked, SourceOptions.of_settings(options), progress=progress)

    def removal(self, span: Span | str, *, progress: Callable[[int], None] = lambda steps: None) -> Removal:
        """How the log-probability of each token of the answer changes when a span of positions is removed.

        A span may be a piece of the text, which stands for all tokens that have a part of it. Without an answer the
        tokens after the span are judged, from the first on that a kept row wrote. `progress` hears of each run of the
        model as it is done.
        Raises RegardError where the model is not at hand, as in a reading from a file, or is no language model; for a
        text that is not there, or several times; and for a span that leaves nothing to judge, or nothing else.
        """
        if self.media:
            raise RegardError("a removal takes tokens out of a text; `sources` hides parts of a picture or sound")
        module = getattr(self.knockout, "module", None)
        if module is None:
            raise RegardError("a removal needs the model itself: take a reading of a language model that was just made")
        sequence, settings = self.sequences["text"], self.settings
        ids = [token.id for token in sequence.tokens]
        place = positions_of(sequence, len(ids) - 1, span)
        first = settings.get("prompt_tokens", 0) or self.rows("decoder")[0] + 1
        return remove(module, ids[: len(ids) - settings.get("end_tokens", 0)], place, first=first, progress=progress)

    def why(
        self, layer: int, head: int, row: int, key: int, *, progress: Callable[[int], None] = lambda steps: None
    ) -> QKAttribution:
        """Why `row` looked at `key`: the score of a head split by what earlier layers gave to query and key.

        The model is run again over the text up to the row; `progress` hears of each of three steps as it is done.
        Raises RegardError where the model is not at hand, as in a reading from a file; for other than a decoder over
        text alone; for what the reading does not have; in half precision; and where the score is no sum of such parts:
        see `QKAttribution`.
        """
        module = getattr(self.knockout, "module", None)
        if module is None:
            raise RegardError(
                "why a head looked somewhere needs the model itself: take a reading of a language model over text that "
                "was just made"
            )
        layer, known = chosen_layer(self, "decoder", layer), None
        weights, tokens = self.maps["decoder", layer], self.sequences["text"].tokens
        if row in self.rows("decoder") and 0 <= head < len(weights) and 0 <= key < weights.shape[2]:
            known = float(weights[head, self.rows("decoder").index(row), key])
        return attribute(module, tokens, layer, head, row, key, known=known, progress=progress)

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
            # each row wrote the token after it
            target_words=[written.tokens[row + 1].words for row in self.rows("cross")],
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

    def word_times(self) -> list[WordTime]:
        """When each written word was spoken: text, start and end in seconds, of a speech model's reading of a sound.

        By openai-whisper's method: the cross-attention of the model's alignment heads or, where its configuration has
        none, of all heads of the last half of its layers, standardised, smoothed and warped. Such times are estimates.
        Raises RegardError for any other reading, and where a written token's row was not kept.
        """
        return word_times(self)

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
        return view("html")(self, lang)

    def widget(self, lang: str | None = None) -> Any:
        """The same in a notebook, as an anywidget. Raises RegardError where anywidget is not installed."""
        return view("widget")(self, lang)

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
        another text), "image" (the heat over each picture, and of each written token; "image grid" also has the edges
        of patches), "speech" (a sound's waveform, with the time and the weight of each written word), "heads"
        (`statistic` of every layer and head: `regard.view.heads.by_head` has their names), "text" (the input shaded by
        where the answer, or one written `token`, looked) or "sources" (the passages that an answer rests on); by
        default "image" or "speech" where parts of one were looked at, else the first of a translation, and "text" of
        any other. `kind` is one of `kinds`; `layer` and `head` are those drawn: of a translation by default the last
        layer, of speech the model's alignment heads, else the mean of all.
        Raises RegardError for what is not there, and where matplotlib is not installed.
        """
        how = {"kind": kind, "layer": layer, "head": head, "token": token, "statistic": statistic, "title": title}
        return view("plot")(self, what, path, **how)

    def _repr_html_(self) -> str | None:
        return VIEWS["frame"](self) if "frame" in VIEWS else None

    @classmethod
    def load(cls, path: str | Path) -> "Reading":
        """What `save` wrote as `.safetensors` or `.json`. Raises RegardError for any other file and a damaged one."""
        facts, tables = read(path)
        return cls(
            model=facts["model"],
            sequences={
                name: Sequence(each["text"], [_token(token) for token in each["tokens"]], each["words"])
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
            media=[medium_of(each) for each in facts.get("media", [])],
        )

    def facts(self) -> dict[str, Any]:
        """Everything but the weights, as JSON holds it. Layers are named `kind.layer`."""
        return {
            "model": self.model,
            "sequences": {
                name: {
                    "text": sequence.text,
                    "words": sequence.words,
                    "tokens": [_token_facts(token) for token in sequence.tokens],
                }
                for name, sequence in self.sequences.items()
            },
            "checks": {as_name(key): check._asdict() for key, check in self.checks.items()},
            "refused": {as_name(key): why for key, why in self.refused.items()},
            "settings": self.settings,
            "sides": {kind: list(self.sides[kind]) for kind in self.kinds},
            "rows": {kind: self.rows(kind) for kind in self.kinds},
            **({"media": [medium_facts(each) for each in self.media]} if self.media else {}),
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


def _token_facts(token: Token) -> dict[str, Any]:
    facts = token._asdict()
    return facts if token.area is None else {**facts, "area": token.area._asdict()}


def _token(facts: dict[str, Any]) -> Token:
    return Token(**{**facts, "area": area_of(facts["area"]) if facts.get("area") else None})
