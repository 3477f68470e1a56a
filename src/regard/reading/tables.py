"""The tables of a reading, and what can be asked of them."""

from collections.abc import Iterable
from functools import partial

import numpy as np
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.choices import chosen_kind, chosen_table, layers_of, one_statistic, scores_of
from regard.reading.record import KINDS, Place, Record, Span, Token, Top
from regard.reading.spans import is_whole, positions_of


class Tables(Record):
    """What a reading answers from its tables and, where the model is at hand, from the model."""

    def layers(self, kind: str | None = None) -> list[int]:
        """The model's own numbers of the layers that were read, in the order in which tables of all layers have them.

        As everywhere, `kind` may be left out where the reading has only one.
        """
        return layers_of(self, chosen_kind(self, kind, "layers({!r})"))

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
        rows, tokens = self.rows(kind), self.sequences[self.sides[kind][0]].tokens
        return [tokens[position] for position in rows]

    def keys(self, kind: str | None = None) -> list[Token]:
        """The tokens that are looked at: of a target all but the last, which is written and never fed back."""
        kind = chosen_kind(self, kind, "keys({!r})")
        count = self.maps[kind, self.layers(kind)[0]].shape[2]
        return self.sequences[self.sides[kind][1]].tokens[:count]

    def written(self, kind: str | None = None) -> list[Token | None] | None:
        """The token that came of each row, None where none is known; None for an encoder, which writes nothing."""
        kind = chosen_kind(self, kind, "written({!r})")
        if kind not in ("decoder", "cross"):
            return None
        rows, tokens = self.rows(kind), self.sequences[self.sides[kind][0]].tokens
        return [tokens[row + 1] if row + 1 < len(tokens) else None for row in rows]

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


def mean_of_heads(tables: Tables, kind: str, layer: int | None, head: int | None) -> Float[np.ndarray, "row key"]:
    """The weights of one head, the mean of a layer's heads or, by default, that of all heads of all layers."""
    if layer is None:
        if head is not None:
            raise RegardError(f"every layer has a head {head!r}; name the layer too")
        found = [tables.maps[kind, number] for number in tables.layers(kind)]
        # layers may have different numbers of heads, and every head counts alike
        return np.asarray(sum(table.sum(axis=0, dtype=np.float64) for table in found)) / sum(map(len, found))
    weights = tables.weights(kind, layer)
    if head is not None and not (is_whole(head) and 0 <= head < len(weights)):
        raise RegardError(f"there is no head {head}; {kind} layer {layer} has heads 0 to {len(weights) - 1}")
    return weights.mean(axis=0) if head is None else weights[head]
