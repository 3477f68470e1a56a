"""A reading: which tokens every token looked at, what proves it, and how it is kept on disk."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regard.config import suggest
from regard.errors import RegardError
from regard.files import new_file

FORMAT = "regard-reading-1"
# which sequence asks and which is looked at
SEQUENCES = {"encoder": ("source", "source"), "decoder": ("target", "target"), "cross": ("target", "source")}
# attention within the input comes before attention within the output, and that before between them
KINDS = tuple(SEQUENCES)


class Token(NamedTuple):
    """One token: `start` and `end` are characters of the sequence's text, `words` the indices of its words."""

    id: int
    text: str
    start: int
    end: int
    words: list[int]


@dataclass(frozen=True)
class Sequence:
    """The source, or the target with the BOS that it began from and the EOS that ended it."""

    text: str
    tokens: list[Token]
    words: list[str]


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
    `queries(kind)[i]` looked and `written(kind)[i]` came of it.
    """

    model: str
    sequences: dict[str, Sequence]
    maps: dict[tuple[str, int], Float[np.ndarray, "head row key"]]
    checks: dict[tuple[str, int], Check]
    refused: dict[tuple[str, int], str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """Of `encoder`, `decoder` and `cross`, those that were read."""
        return [kind for kind in KINDS if any(name == kind for name, _ in self.maps)]

    @property
    def tokens(self) -> dict[str, list[str]]:
        """The tokens of each sequence, special ones included, as text."""
        return {name: [token.text for token in sequence.tokens] for name, sequence in self.sequences.items()}

    def layers(self, kind: str) -> list[int]:
        """The model's own numbers of the layers that were read."""
        if kind not in self.kinds:
            raise RegardError(f"this reading has no {kind!r} attention{suggest(kind, self.kinds)}")
        return sorted(layer for name, layer in self.maps if name == kind)

    def rows(self, kind: str) -> list[int]:
        """The query positions that were kept whole."""
        return list(range(self.weights(kind, self.layers(kind)[0]).shape[1]))

    def weights(self, kind: str, layer: int) -> Float[np.ndarray, "head row key"]:
        """Exact weights. A negative layer counts from the last. Raises RegardError where there are none, saying why."""
        # a refused layer keeps its place, so that -1 is never another one than the last
        layers = sorted(number for name, number in self.maps.keys() | self.refused.keys() if name == kind)
        number = layers[layer] if -len(layers) <= layer < 0 else layer
        if (kind, number) in self.refused:
            raise RegardError(f"{kind} layer {number} was refused: {self.refused[kind, number]}")
        if (kind, number) not in self.maps:
            layers = self.layers(kind)
            raise RegardError(f"there is no {kind} layer {layer}; there are {', '.join(map(str, layers))}")
        return self.maps[kind, number]

    def queries(self, kind: str) -> list[Token]:
        """The tokens that look, one a row: in the target all but the last, which is written and never fed back."""
        name = SEQUENCES[kind][0]
        tokens = self.sequences[name].tokens
        return tokens[:-1] if name == "target" else tokens

    def keys(self, kind: str) -> list[Token]:
        """The tokens that are looked at."""
        name = SEQUENCES[kind][1]
        tokens = self.sequences[name].tokens
        return tokens[:-1] if name == "target" else tokens

    def written(self, kind: str) -> list[Token] | None:
        """The token that came of each row; None for an encoder, which writes nothing."""
        return self.sequences["target"].tokens[1:] if SEQUENCES[kind][0] == "target" else None

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
        """Write the reading; the suffix says how: `.safetensors` (all of it, exactly), `.json`, or a picture."""
        path = Path(path)
        writers = FORMATS | RENDERERS
        if path.suffix not in writers:
            raise RegardError(f"{path}: a reading is saved as {', '.join(writers)}, not {path.suffix or 'no suffix'!r}")
        writers[path.suffix](self, path)

    @classmethod
    def load(cls, path: str | Path) -> "Reading":
        """What `save` wrote as safetensors. Raises RegardError for any other file, and if weights do not fit tokens."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise RegardError(f"{path}: not a reading; `regard read … --out {path}` makes one")
                facts = json.loads(metadata["reading"])
                maps = {_key(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            reading = cls(
                model=facts["model"],
                sequences={name: _sequence(values) for name, values in facts["sequences"].items()},
                maps=maps,
                checks={_key(name): Check(**check) for name, check in facts["checks"].items()},
                refused={_key(name): why for name, why in facts["refused"].items()},
                settings=facts["settings"],
            )
            for (kind, layer), table in maps.items():
                rows, keys = len(reading.queries(kind)), len(reading.keys(kind))
                if table.ndim != 3 or table.shape[1:] != (rows, keys):
                    raise RegardError(
                        f"{path}: not a readable reading: {kind} layer {layer} has weights of shape {table.shape}, but "
                        f"its tokens make {rows} rows and {keys} keys; `regard read … --out {path}` makes it again"
                    )
            return reading
        except FileNotFoundError:
            raise RegardError(f"{path}: there is no such file") from None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
        }

    def to_json(self) -> dict[str, Any]:
        """All of it, the weights as nested lists: `weights["cross.2"][head][row][key]`."""
        return {**self.facts(), "weights": {_name(key): table.tolist() for key, table in self.maps.items()}}


def word_alignment(
    table: Float[np.ndarray, "*map row key"],
    *,
    target_words: Collection[list[int]],
    source_words: Collection[list[int]],
    shape: tuple[int, int],
) -> Float[np.ndarray, "*map target source"]:
    """Token weights as word weights, from the words of every row and key: `shape` is how many words there are.

    A key's weight is split equally among its words; a word's row is the mean of all rows that are part of it.
    """
    target, source = _membership(target_words, shape[0]), _membership(source_words, shape[1])
    share = source / np.maximum(source.sum(axis=1, keepdims=True), 1)
    mean = target / np.maximum(target.sum(axis=0), 1)
    return mean.T @ table.astype(np.float64) @ share


def _membership(words: Collection[list[int]], count: int) -> Float[np.ndarray, "token word"]:
    """1 where the token is part of the word, else 0."""
    table = np.zeros((len(words), count))
    for token, own in enumerate(words):
        table[token, own] = 1
    return table


def _save_safetensors(reading: Reading, path: Path) -> None:
    metadata = {"format": FORMAT, "reading": json.dumps(reading.facts(), ensure_ascii=False)}
    with new_file(path) as partial:
        save_file({_name(key): np.ascontiguousarray(table) for key, table in reading.maps.items()}, partial, metadata)


def _save_json(reading: Reading, path: Path) -> None:
    with new_file(path) as partial:
        partial.write_text(json.dumps(reading.to_json(), ensure_ascii=False), encoding="utf-8")


FORMATS: dict[str, Callable[[Reading, Path], None]] = {".safetensors": _save_safetensors, ".json": _save_json}
# pictures, by suffix: regard.view fills it
RENDERERS: dict[str, Callable[[Reading, Path], None]] = {}


def _name(key: tuple[str, int]) -> str:
    return f"{key[0]}.{key[1]}"


def _key(name: str) -> tuple[str, int]:
    kind, layer = name.split(".")
    return kind, int(layer)


def _sequence(values: dict[str, Any]) -> Sequence:
    return Sequence(text=values["text"], tokens=[Token(**token) for token in values["tokens"]], words=values["words"])
