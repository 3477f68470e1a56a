"""Which kind and layer of a reading is meant, and what is to be written where nothing that there is."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from regard.config import suggest
from regard.errors import RegardError
from regard.reading.spans import is_whole

if TYPE_CHECKING:
    from regard.reading.files import Place
    from regard.reading.record import Reading


def chosen_kind(reading: "Reading", kind: str | None, usage: str) -> str:
    """The kind of attention that is meant, by default the only one; `usage` is a call, with a place for its kind."""
    kinds = reading.kinds
    example = usage.format(kinds[0] if kinds else "decoder")
    if not isinstance(kind, str | None):
        raise RegardError(f"the kind of attention is a word: write {example}, not {kind!r}")
    if kind is None and len(kinds) > 1:
        raise RegardError(f"this reading has {', '.join(kinds)} attention; name one of them, as in {example}")
    if kind is None and kinds:
        return kinds[0]
    if kind is None or (kind not in kinds and all(name != kind for name, _ in reading.refused)):
        raise nothing_read(reading, kind)
    return kind


def nothing_read(reading: "Reading", kind: str | None) -> RegardError:
    """Why a reading has no attention of a kind, or none at all."""
    refused = [(name, layer, why) for (name, layer), why in reading.refused.items() if kind in (name, None)]
    if refused:
        why = "; refused {} layer {}: {}".format(*refused[0])
    else:
        why = suggest(kind or "", reading.kinds) if reading.kinds else ""
    return RegardError(f"this reading has no {'' if kind is None else f'{kind!r} '}attention{why}")


def chosen_layer(reading: "Reading", kind: str, layer: int) -> int:
    """The model's number of a layer that was read."""
    if not is_whole(layer):
        raise RegardError(
            f"a layer is one whole number, such as 3, or -1 for the last, not {layer!r}; leave it out for all layers, "
            f"in the order of layers({kind!r})"
        )
    # a refused layer keeps its place, so that -1 is never another one than the last
    layers = sorted(number for name, number in reading.maps.keys() | reading.refused.keys() if name == kind)
    number = layers[layer] if -len(layers) <= layer < 0 else layer
    if (kind, number) in reading.refused:
        raise RegardError(f"{kind} layer {number} was refused: {reading.refused[kind, number]}")
    if (kind, number) not in reading.maps:
        raise RegardError(f"there is no {kind} layer {layer}; layers: {', '.join(map(str, reading.layers(kind)))}")
    return number


def chosen_table(
    reading: "Reading", table: "Callable[[Place], np.ndarray]", kind: str, layer: int | None, what: str
) -> np.ndarray:
    """The table of one layer, or one table of all layers that were read.

    Raises RegardError, naming the layers, where their tables differ in shape.
    """
    if layer is not None:
        return table((kind, chosen_layer(reading, kind, layer)))
    tables = {number: table((kind, number)) for number in reading.layers(kind)}
    layers: dict[tuple[int, ...], list[int]] = {}
    for number, each in tables.items():
        layers.setdefault(each.shape, []).append(number)
    if len(layers) > 1:
        told = "; ".join(
            f"{' × '.join(map(str, shape))} in layers {', '.join(map(str, own))}" for shape, own in layers.items()
        )
        raise RegardError(f"{what} of {kind} layers differ in shape: {told}; ask for one layer at a time")
    return np.stack(list(tables.values()))


def one_statistic(reading: "Reading", name: str, place: "Place") -> np.ndarray:
    """A statistic of one layer. Raises RegardError where there is none, saying why."""
    found = reading.statistics.get(place, {})
    if name not in found:
        kind, layer = place
        why = reading.settings.get("left_out", {}).get(f"{kind}.{layer}.{name}")
        near = suggest(name, found) if found else f"; read with statistics=({name!r},)"
        near = f"; it was left out: {why}" if why else near
        raise RegardError(f"{kind} layer {layer} has no statistic {name!r}{near}")
    return found[name]


def mean_of_heads(reading: "Reading", kind: str, layer: int | None, head: int | None) -> Float[np.ndarray, "row key"]:
    """The weights of one head, the mean of a layer's heads or, by default, that of all heads of all layers."""
    if layer is None:
        if head is not None:
            raise RegardError(f"every layer has a head {head!r}; name the layer too")
        tables = [reading.maps[kind, number] for number in reading.layers(kind)]
        # layers may have different numbers of heads, and every head counts alike
        return np.asarray(sum(table.sum(axis=0, dtype=np.float64) for table in tables)) / sum(map(len, tables))
    weights = reading.weights(kind, layer)
    if head is not None and not (is_whole(head) and 0 <= head < len(weights)):
        raise RegardError(f"there is no head {head}; {kind} layer {layer} has heads 0 to {len(weights) - 1}")
    return weights.mean(axis=0) if head is None else weights[head]


def scores_of(reading: "Reading", place: "Place") -> np.ndarray:
    """The scores of one layer. Raises RegardError where there are none, saying why."""
    if place not in reading.score_maps:
        why = reading.settings.get("left_out", {}).get(f"{place[0]}.{place[1]}.scores", "read with scores=True")
        raise RegardError(f"{place[0]} layer {place[1]} has no scores: {why}")
    return reading.score_maps[place]


def described(reading: "Reading") -> list[str]:
    """What a reading holds, in a few words each: its texts, the tables of each kind, what was refused."""
    told = [f"{name} {_beginning(sequence.text)}" for name, sequence in reading.sequences.items()]
    for kind in reading.kinds:
        tables = [reading.maps[kind, layer] for layer in reading.layers(kind)]
        heads = " or ".join(map(str, sorted({len(table) for table in tables})))
        _, rows, keys = tables[0].shape
        told.append(f"{kind} {len(tables)} layers × {heads} heads × {rows} rows × {keys} keys")
    told += [f"{len(reading.refused)} layers refused"] if reading.refused else []
    sorts = Counter(token.sort for sequence in reading.sequences.values() for token in sequence.tokens)
    if sorts.keys() - {"token"}:
        told.append(", ".join(f"{sort} × {count}" for sort, count in sorts.items()))
    return told


def _beginning(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")
