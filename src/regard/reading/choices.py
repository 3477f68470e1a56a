"""Which kind and layer of a reading is meant, and what is to be written where nothing that there is."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from regard.config import suggest
from regard.errors import RegardError
from regard.reading.record import Place, Record
from regard.reading.spans import is_whole


def chosen_kind(record: Record, kind: str | None, usage: str) -> str:
    """The kind of attention that is meant, by default the only one; `usage` is a call, with a place for its kind."""
    kinds = record.kinds
    example = usage.format(kinds[0] if kinds else "decoder")
    if not isinstance(kind, str | None):
        raise RegardError(f"the kind of attention is a word: write {example}, not {kind!r}")
    if kind is None and len(kinds) > 1:
        raise RegardError(f"this reading has {', '.join(kinds)} attention; name one of them, as in {example}")
    if kind is None and kinds:
        return kinds[0]
    if kind is None or (kind not in kinds and all(name != kind for name, _ in record.refused)):
        raise nothing_read(record, kind)
    return kind


def nothing_read(record: Record, kind: str | None) -> RegardError:
    """Why a reading has no attention of a kind, or none at all."""
    refused = [(name, layer, why) for (name, layer), why in record.refused.items() if kind in (name, None)]
    if refused:
        why = "; refused {} layer {}: {}".format(*refused[0])
    else:
        why = suggest(kind or "", record.kinds) if record.kinds else ""
    return RegardError(f"this reading has no {'' if kind is None else f'{kind!r} '}attention{why}")


def layers_of(record: Record, kind: str) -> list[int]:
    """The model's numbers of the layers of a kind that were read. Raises RegardError where there are none."""
    found = sorted(layer for name, layer in record.maps if name == kind)
    if not found:
        raise nothing_read(record, kind)
    return found


def chosen_layer(record: Record, kind: str, layer: int) -> int:
    """The model's number of a layer that was read."""
    if not is_whole(layer):
        raise RegardError(
            f"a layer is one whole number, such as 3, or -1 for the last, not {layer!r}; leave it out for all layers, "
            f"in the order of layers({kind!r})"
        )
    # a refused layer keeps its place, so that -1 is never another one than the last
    layers = sorted(number for name, number in record.maps.keys() | record.refused.keys() if name == kind)
    number = layers[layer] if -len(layers) <= layer < 0 else layer
    if (kind, number) in record.refused:
        raise RegardError(f"{kind} layer {number} was refused: {record.refused[kind, number]}")
    if (kind, number) not in record.maps:
        raise RegardError(f"there is no {kind} layer {layer}; layers: {', '.join(map(str, layers_of(record, kind)))}")
    return number


def chosen_table(
    record: Record, table: Callable[[Place], np.ndarray], kind: str, layer: int | None, what: str
) -> np.ndarray:
    """The table of one layer, or one table of all layers that were read.

    Raises RegardError, naming the layers, where their tables differ in shape.
    """
    if layer is not None:
        return table((kind, chosen_layer(record, kind, layer)))
    tables = {number: table((kind, number)) for number in layers_of(record, kind)}
    layers: dict[tuple[int, ...], list[int]] = {}
    for number, each in tables.items():
        layers.setdefault(each.shape, []).append(number)
    if len(layers) > 1:
        told = "; ".join(
            f"{' × '.join(map(str, shape))} in layers {', '.join(map(str, own))}" for shape, own in layers.items()
        )
        raise RegardError(f"{what} of {kind} layers differ in shape: {told}; ask for one layer at a time")
    return np.stack(list(tables.values()))


def one_statistic(record: Record, name: str, place: Place) -> np.ndarray:
    """A statistic of one layer. Raises RegardError where there is none, saying why."""
    found = record.statistics.get(place, {})
    if name not in found:
        kind, layer = place
        why = record.settings.get("left_out", {}).get(f"{kind}.{layer}.{name}")
        near = suggest(name, found) if found else f"; read with statistics=({name!r},)"
        near = f"; it was left out: {why}" if why else near
        raise RegardError(f"{kind} layer {layer} has no statistic {name!r}{near}")
    return found[name]


def scores_of(record: Record, place: Place) -> np.ndarray:
    """The scores of one layer. Raises RegardError where there are none, saying why."""
    if place not in record.score_maps:
        why = record.settings.get("left_out", {}).get(f"{place[0]}.{place[1]}.scores", "read with scores=True")
        raise RegardError(f"{place[0]} layer {place[1]} has no scores: {why}")
    return record.score_maps[place]


def described(record: Record) -> list[str]:
    """What a reading holds, in a few words each: its texts, the tables of each kind, what was refused."""
    told = [f"{name} {_beginning(sequence.text)}" for name, sequence in record.sequences.items()]
    for kind in record.kinds:
        tables = [record.maps[kind, layer] for layer in layers_of(record, kind)]
        heads = " or ".join(map(str, sorted({len(table) for table in tables})))
        _, rows, keys = tables[0].shape
        told.append(f"{kind} {len(tables)} layers × {heads} heads × {rows} rows × {keys} keys")
    told += [f"{len(record.refused)} layers refused"] if record.refused else []
    sorts = Counter(token.sort for sequence in record.sequences.values() for token in sequence.tokens)
    if sorts.keys() - {"token"}:
        told.append(", ".join(f"{sort} × {count}" for sort, count in sorts.items()))
    return told


def _beginning(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")
