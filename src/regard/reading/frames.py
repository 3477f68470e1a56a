"""A reading as the tables of other libraries: tidy lines for pandas, named axes for xarray."""

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from regard.config import suggest
from regard.errors import RegardError
from regard.reading.choices import chosen_kind, chosen_layer
from regard.reading.compute.statistics import STATISTICS
from regard.reading.record import Token
from regard.reading.tables import Tables

if TYPE_CHECKING:
    import pandas
    import xarray

# columns of text, whose values are numbers of texts until the end
TOKENS = ("query_token", "key_token", "written_token")
UNKNOWN = -1


def frame(reading: Tables, what: str, *, kind: str | None, layer: int | None) -> "pandas.DataFrame":
    """What `Reading.to_frame` gives."""
    pandas = library("pandas", "to_frame")
    names = list(dict.fromkeys(name for found in reading.statistics.values() for name in found))
    if what not in ("weights", "top", *names):
        raise RegardError(f"this reading has no {what!r} to make a frame of{suggest(what, ['weights', 'top', *names])}")
    # of several kinds a layer's number says little
    kinds = reading.kinds if kind is None and layer is None else [chosen_kind(reading, kind, "to_frame(kind={!r})")]
    beside = [name for name in names if _axes(name)[-2:] == ("row", "key")] if what == "weights" else []
    texts = list(dict.fromkeys(token.text for sequence in reading.sequences.values() for token in sequence.tokens))
    blocks = [
        {"kind": np.full(1, reading.kinds.index(each)), "layer": np.full(1, number)}
        | dict(_columns(reading, (each, number), what, beside, texts))
        for each in kinds
        for number in (reading.layers(each) if layer is None else [chosen_layer(reading, each, layer)])
        if what in ("weights", "top") or layer is not None or what in reading.statistics.get((each, number), {})
    ]
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for block in blocks for name in block):
        missing = UNKNOWN if name in TOKENS else np.nan
        parts = [(block.get(name, np.full(1, missing)), max(map(len, block.values()))) for block in blocks]
        parts = [(np.broadcast_to(part, count) if len(part) == 1 else part) for part, count in parts]
        values = np.concatenate(parts)
        if name in ("kind", *TOKENS):
            categories = reading.kinds if name == "kind" else texts
            values = pandas.Categorical.from_codes(values, categories=categories)
        columns[name] = values
    return pandas.DataFrame(columns)


def _columns(
    reading: Tables, place: tuple[str, int], what: str, beside: list[str], texts: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of one layer, each with a value for every number of the table."""
    kind = place[0]
    codes = {text: code for code, text in enumerate(texts)}
    queries, keys = (
        np.array([codes[token.text] for token in reading.sequences[side].tokens]) for side in reading.sides[kind]
    )
    positions = None
    if what == "weights":
        table, axes = reading.maps[place], ("head", "row", "key")
    elif what == "top":
        (positions, table), axes = reading.top(*place), ("head", "query", "rank")
    else:
        table = reading.statistic(what, *place)
        axes = _axes(what, table)
    # a query that sees fewer keys than were asked for has no more of them
    chosen = np.ones(table.shape, dtype=bool) if positions is None else positions >= 0
    for axis, size in zip(axes, table.shape, strict=True):
        numbers = np.array(reading.rows(kind), dtype=np.int32) if axis == "row" else np.arange(size, dtype=np.int32)
        along = tuple(size if axis == each else 1 for each in axes)
        name = "query" if axis == "row" else axis

        def spread(values: np.ndarray, along: tuple[int, ...] = along) -> np.ndarray:
            return np.broadcast_to(values.reshape(along), table.shape)[chosen]

        yield name, spread(numbers)
        if name in ("query", "key"):
            yield f"{name}_token", spread((queries if name == "query" else keys)[numbers])
        if axis == "row" and reading.written(kind) is not None:
            after = np.append(queries[1:], UNKNOWN)
            yield "written_token", spread(after[numbers])
    if positions is not None:
        yield "key", positions[chosen]
        yield "key_token", keys[positions[chosen]]
    yield what if what not in ("weights", "top") else "weight", table[chosen]
    for name in beside:
        found = reading.statistics.get(place, {}).get(name, np.full((), np.nan, np.float32))
        yield name, np.broadcast_to(found, table.shape)[chosen]


def dataset(reading: Tables, kind: str) -> "xarray.Dataset":
    """What `Reading.to_xarray` gives."""
    xarray = library("xarray", "to_xarray")
    layers, asking = reading.layers(kind), reading.sequences[reading.sides[kind][0]].tokens
    variables: dict[str, Any] = {"weights": (("layer", "head", "row", "key"), reading.weights(kind))}
    if all((kind, layer) in reading.tops for layer in layers):
        for part, table in reading.top(kind)._asdict().items():
            variables[f"top_{part}"] = (("layer", "head", "query", "rank"), table)
    for name in dict.fromkeys(name for layer in layers for name in reading.statistics.get((kind, layer), {})):
        found = [reading.statistics.get((kind, layer), {}).get(name) for layer in layers]
        axes = next(table for table in found if table is not None)
        known = STATISTICS.get(name)
        told = {"long_name": known.label, "units": known.unit or "1"} if known else {}
        stacked = np.stack([np.full(axes.shape, np.nan, np.float32) if table is None else table for table in found])
        variables[name] = (("layer", *_axes(name, axes)), stacked, told)
    heads, _, keys = variables["weights"][1].shape[1:]
    coordinates: dict[str, Any] = {
        "layer": layers,
        "head": np.arange(heads),
        "row": reading.rows(kind),
        "row_token": ("row", _texts(reading.queries(kind))),
        "key": np.arange(keys),
        "key_token": ("key", _texts(reading.keys(kind))),
    }
    if (written := reading.written(kind)) is not None:
        coordinates["written_token"] = ("row", _texts(written))
    sizes = {axis: size for axes, table, *_ in variables.values() for axis, size in zip(axes, table.shape, strict=True)}
    if "query" in sizes:
        coordinates["query"] = np.arange(sizes["query"])
        coordinates["query_token"] = ("query", _texts(asking[: sizes["query"]]))
    refused = [f"{layer}: {why}" for (name, layer), why in reading.refused.items() if name == kind]
    return xarray.Dataset(variables, coordinates, {"model": reading.model, "kind": kind, "refused": refused})


def _axes(name: str, table: np.ndarray | None = None) -> tuple[str, ...]:
    """The axes of a statistic, by its entry, or else by their number."""
    if name in STATISTICS:
        return STATISTICS[name].axes
    return tuple(f"{name}_axis_{axis}" for axis in range(0 if table is None else table.ndim))


def _texts(tokens: list[Token] | list[Token | None]) -> np.ndarray:
    return np.array(["" if token is None else token.text for token in tokens], dtype=str)


def library(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise RegardError(f"{what} needs {name}; pip install 'regard[frames]'") from None
