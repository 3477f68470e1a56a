"""From what single calls gave to the reading of one sequence: steps and beams put together, names given."""

from dataclasses import replace
from typing import Any

import torch

from regard.errors import RegardError
from regard.reading.compute.rows import chosen
from regard.reading.effects import Effects, effects_of
from regard.reading.files import as_name
from regard.reading.joined import JoinedLayer
from regard.reading.labels import TOKEN, Label, of_part, of_sequence, sequence
from regard.reading.layers import name_unseen
from regard.reading.packed import Batch
from regard.reading.parts import placeholders
from regard.reading.reading import Reading
from regard.reading.record import Sequence
from regard.reading.runs import Generation, LayerKey, Piece, Run, Step, follow, path_of

Place = tuple[str, int]
# the end of what has no end
ALL = 1 << 62


def count(seen: Run | Generation | Batch) -> int:
    """How many sequences can be read of a call."""
    if isinstance(seen, Batch):
        return len(seen.requests)
    if isinstance(seen, Run):
        return seen.batch_size
    return 0 if seen.sequences is None else len(seen.sequences)


def reading(watch: Any, seen: Run | Generation | Batch, item: int) -> Reading:
    """The reading of one sequence of what was seen."""
    if isinstance(seen, Batch):
        found = reading(watch, seen.generation(item, watch.wanted), 0)
        return replace(found, settings={**found.settings, "request": seen.ids[item]})
    steps, written = _steps(seen, item)
    parts: dict[LayerKey, list[tuple[Piece, int]]] = {}
    refused: dict[LayerKey, str] = {}
    failed: dict[str, str] = {}
    for run, row_then, fed in _with_what_came_before(steps):
        failed |= run.failures
        if run.batch_size > steps[0][0].batch_size:
            why = f"it ran over {run.batch_size} parts, which are not told apart by the sequences of the batch"
            refused |= dict.fromkeys(run.pieces, why) | run.refused
            continue
        for key, why in run.refused.items():
            refused.setdefault(key, why)
        if not _one_picture_each(run, steps[0][0]):
            why = "its pictures are not told apart by sequence: some of the batch have more of them than others"
            refused |= dict.fromkeys((key for key in run.pieces if key[0] in ("vision", "queries", "resampler")), why)
        for key, calls in run.pieces.items():
            end = run.position(row_then, run.start + fed) if key[0] in ("decoder", "cross") else ALL
            # a picture may be another sequence's
            if own := [(pieces[row_then], end) for pieces in calls if row_then in pieces]:
                parts.setdefault(key, []).extend(own)
    numbers = watch.recording.numbers
    for key in parts:
        if key[1] in failed:
            refused.setdefault(key, failed[key[1]])
        elif key[0] in ("decoder", "cross") and len(parts[key]) < sum(_expected(run, key) for run, *_ in steps):
            refused.setdefault(key, "it was not seen in every step; a step ran compiled, or where it could not be seen")
    layers, lengths = _layers(parts, refused, numbers)
    _complete(seen, steps, lengths, layers, refused, numbers)
    rows = _rows(watch, layers, lengths, watch.wanted.prompt or _prompt_length(seen, steps))
    why = {(kind, numbers[kind, path, index]): why for (kind, path, index), why in refused.items()}
    for path, reason in failed.items():
        if not any(key[1] == path for key in refused):
            why[_place_of(path, numbers, layers, why)] = reason
    name_unseen(watch.model, watch.layers, layers.keys(), why)
    if watch.layers is not None and not (watch.layers & {number for _, number in [*layers, *why]}):
        raise RegardError(f"none of the layers {sorted(watch.layers)} attended")
    if not layers and not why:
        raise RegardError(
            "nothing was read: the model ran, but its attention was not seen: it ran compiled or traced "
            "(torch.compile, torch.export), or attends in no way that is known here"
        )
    sides = _sides(watch, steps)
    settings = {"implementation": getattr(getattr(watch.model, "config", None), "_attn_implementation", None)}
    left_out = {
        f"{as_name(place)}.{name}": why for place, layer in layers.items() for name, why in layer.left_out.items()
    }
    sequences = _sequences(watch, steps, sides, lengths, written)
    return Reading(
        model=watch.name,
        sequences=sequences,
        maps={place: layer.weights(rows[place[0]]) for place, layer in layers.items()},
        checks={place: layer.check for place, layer in layers.items()},
        refused=why,
        settings=settings | ({"left_out": left_out} if left_out else {}),
        sides={kind: sides[kind] for kind in lengths},
        kept=rows,
        tops={place: layer.top() for place, layer in layers.items() if watch.wanted.top_k is not None},
        statistics={place: layer.statistics(rows[place[0]]) for place, layer in layers.items()},
        score_maps={place: layer.scores(rows[place[0]]) for place, layer in layers.items() if layer.has_scores},
        knockout=_effects(watch.model, steps, sequences),
    )


def _effects(model: Any, steps: list[Step], sequences: dict[str, Sequence]) -> Effects | None:
    """Effects on the sequence, if the model was fed its tokens and nothing else, and can be run on them again."""
    if sequences.keys() != {"text"} or any(token.sort != TOKEN for token in sequences["text"].tokens):
        return None
    for run, row, _ in steps:
        if not run.parts or run.parts[0].module is not model or not run.parts[0].is_plain or not run.real(row).all():
            return None
    return effects_of(model, [token.id for token in sequences["text"].tokens])


def _expected(run: Run, key: LayerKey) -> int:
    """Whether a layer should have been seen in a run: where others of its kind were."""
    return int(any(other[0] == key[0] for other in (*run.pieces, *run.refused)) or not (run.pieces or run.refused))


def _layers(
    parts: dict[LayerKey, list[tuple[Piece, int]]], refused: dict[LayerKey, str], numbers: dict[LayerKey, int]
) -> tuple[dict[Place, "JoinedLayer"], dict[str, tuple[int, int]]]:
    """Every layer that was read, and the numbers of queries and keys of each kind."""
    layers: dict[Place, JoinedLayer] = {}
    lengths: dict[str, tuple[int, int]] = {}
    for key in sorted(parts, key=lambda key: numbers[key]):
        if key in refused:
            continue
        kind = key[0]
        layer = JoinedLayer(kind, parts[key])
        size = layer.num_queries, layer.num_keys
        if lengths.setdefault(kind, size) != size:
            refused[key] = (
                f"it is {size[0]} queries by {size[1]} keys, where the first {kind} layer that was read is "
                f"{lengths[kind][0]} by {lengths[kind][1]}"
            )
            continue
        try:
            layer.statistics([])
        except RegardError as error:
            refused[key] = str(error)
            continue
        layers[kind, numbers[key]] = layer
    return layers, {kind: size for kind, size in lengths.items() if any(place[0] == kind for place in layers)}


def _complete(
    seen: Run | Generation,
    steps: list[Step],
    lengths: dict[str, tuple[int, int]],
    layers: dict[Place, "JoinedLayer"],
    refused: dict[LayerKey, str],
    numbers: dict[LayerKey, int],
) -> None:
    """Refuse what has fewer rows than were fed: a reading is never shortened."""
    leaf, row, fed = steps[-1]
    wanted = leaf.position(row, leaf.start + fed)
    for kind in ("decoder", "cross"):
        if kind in lengths and lengths[kind][0] != wanted and leaf.length:
            for place in [place for place in layers if place[0] == kind]:
                del layers[place]
                key = next(key for key, number in numbers.items() if (key[0], number) == place)
                refused[key] = f"{lengths[kind][0]} of its rows were seen, where {wanted} tokens were fed"
            del lengths[kind]


def _place_of(path: str, numbers: dict[LayerKey, int], layers: Any, refused: Any) -> Place:
    """The layer that a module is, as far as it was known when its reading failed."""
    known = next(((key[0], number) for key, number in numbers.items() if key[1] == path), None)
    if known is not None:
        return known
    kind = next((kind for kind, _ in (*layers, *refused)), "decoder")
    number = next((int(part) for part in path.split(".") if part.isdigit()), 0)
    while (kind, number) in layers or (kind, number) in refused:
        number += 1
    return kind, number


def _steps(seen: Run | Generation, item: int) -> tuple[list[Step], int | None]:
    """The runs of a sequence, and the token that was written last, which no run was fed."""
    if not isinstance(item, int) or isinstance(item, bool):
        raise RegardError(f"item must be a number, not {item!r}")
    if isinstance(seen, Run):
        if not 0 <= item < seen.batch_size:
            raise RegardError(f"there is no item {item}; the batch has {seen.batch_size}, counted from 0")
        return path_of(seen, item), None
    if seen.sequences is None:
        raise RegardError(
            "generate returned no tokens [sequence, token], so that it cannot be told which runs wrote what; run the "
            "model once on what it wrote under watching"
        )
    if not 0 <= item < len(seen.sequences):
        raise RegardError(f"there is no item {item}; generate returned {len(seen.sequences)} sequences, counted from 0")
    steps = follow(seen, item) if seen.runs else None
    if not steps:
        raise RegardError(
            f"sequence {item} cannot be followed through what generate ran; read it afterwards: run the model once on "
            "the returned tokens under watching"
        )
    steps = [*path_of(steps[0][0], steps[0][1])[:-1], *steps]
    leaf, _, fed = steps[-1]
    own = seen.sequences[item]
    place = leaf.start + fed - seen.offset
    rest = own[place:].tolist()
    ended = place > 0 and any(int(id) in seen.end_ids for id in own[max(0, seen.prompt_length - seen.offset) : place])
    # where nothing attends there are no rows to be missed
    attends = any(run.pieces or run.refused for run in seen.runs)
    if attends and len(rest) > 1 and not ended and rest[0] not in seen.end_ids:
        raise RegardError(
            f"{len(rest) - 1} tokens of sequence {item} were written in runs that were not seen (compiled, or another "
            "model's) or were fed something else; read it afterwards: run the model once on the returned tokens under "
            "watching"
        )
    return steps, rest[0] if rest else None


def _with_what_came_before(steps: list[Step]) -> list[Step]:
    """With the runs of an encoder or of a vision model by itself, which all items share out."""
    first, row, _ = steps[0]
    own = {key[0] for run, *_ in steps for key in (*run.pieces, *run.refused)}
    before = []
    for run in first.generation.before if first.generation is not None else first.before:
        kinds = {key[0] for key in (*run.pieces, *run.refused)}
        if kinds and not kinds & own:
            before.append((run, first.row(row, run.batch_size), ALL))
    return [*before, *steps]


def _one_picture_each(run: Run, first: Run) -> bool:
    """Whether pictures that a run was given in one list may be one of each sequence, by the tokens in their places."""
    listed = any(part.pixels is not None and len(part.pixels) == 4 for part in run.parts)
    if not listed or first.tokens is None or first.own is None:
        return True
    ids = [id for part in first.own.chain for id in placeholders(part.module)]
    counts = torch.isin(first.tokens, torch.tensor(ids, dtype=first.tokens.dtype)).sum(1)
    return bool((counts == counts[0]).all())


def _prompt_length(seen: Run | Generation, steps: list[Step]) -> int:
    if isinstance(seen, Generation):
        leaf, row, _ = steps[-1]
        return max(1, leaf.position(row, seen.prompt_length))
    run, row, fed = steps[0]
    return max(1, run.position(row, run.start + fed))


# names


def _sides(watch: Any, steps: list[Step]) -> dict[str, tuple[str, str]]:
    """Of each kind which sequence looks and which is looked at."""
    kinds = {kind for run, *_ in steps for kind in run.sides}
    configs = [getattr(part.module, "config", None) for run, *_ in steps for part in run.parts]
    configs.append(getattr(watch.model, "config", None))
    is_translator = any(bool(getattr(config, "is_encoder_decoder", False)) for config in configs)
    own = "target" if is_translator else "text"
    heard = any(
        run.sides["encoder"][0] is not None and run.sides["encoder"][0].modality == "audio"
        for run, *_ in steps
        if "encoder" in run.sides
    )
    # what a language model hears is another sequence than what it writes
    encoded = "source" if is_translator else "audio" if heard and "decoder" in kinds else "text"
    return {
        "vision": ("image", "image"),
        "queries": ("query", "query"),
        "resampler": ("query", "image"),
        "encoder": (encoded, encoded),
        "decoder": (own, own),
        "cross": (own, "source"),
    }


def _sequences(
    watch: Any,
    steps: list[Step],
    sides: dict[str, tuple[str, str]],
    lengths: dict[str, tuple[int, int]],
    written: int | None,
) -> dict[str, Sequence]:
    found: dict[str, list[Label]] = {}
    known: dict[str, Sequence] = {}
    leaf, row, _ = steps[-1]
    runs = list(reversed(_with_what_came_before(steps)))
    for kind, (queries, keys) in lengths.items():
        run, own_row, _ = next(step for step in runs if kind in step[0].sides)
        query_part, key_part = run.sides[kind]
        for name, part, count in zip(sides[kind], (query_part, key_part), (queries, keys), strict=True):
            is_own = kind in ("decoder", "cross") and (name == sides[kind][0])
            if name in watch.wanted.known and len(watch.wanted.known[name].tokens) - count in (0, int(is_own)):
                known[name] = watch.wanted.known[name]
                continue
            if is_own and leaf.length:
                own = of_sequence(leaf, row)[:count]
            else:
                own = of_part(part, own_row, run.batch_size, count)
            if is_own and written is not None and count == queries:
                own = [*own, Label(written)]
            if name not in found or len(found[name]) < len(own):
                found[name] = own
    return {**known, **{name: sequence(labels, watch.wanted.tokenizer) for name, labels in found.items()}}


def _rows(
    watch: Any, layers: dict[tuple[str, int], JoinedLayer], lengths: dict[str, tuple[int, int]], prompt: int
) -> dict[str, list[int]]:
    rows, spec = {}, watch.wanted.rows
    for kind, (count, _) in lengths.items():
        if spec == "all":
            wanted = list(range(count))
        elif spec == "last":
            wanted = [count - 1] if count else []
        elif spec == "generated":
            wanted = list(range(prompt - 1, count)) if kind in ("decoder", "cross") else []
        else:
            wanted = chosen(spec, count)
        kept = set.intersection(*(layer.rows() for (name, _), layer in layers.items() if name == kind))
        missing = [row for row in wanted if row not in kept]
        if missing and spec not in ("all", "generated"):
            raise RegardError(
                f"row {missing[0]} of the {kind} was not kept while it was being written; read rows='all'"
            )
        rows[kind] = [row for row in wanted if row in kept]
    if not isinstance(spec, str | slice):
        counts = {kind: count for kind, (count, _) in lengths.items()}
        for row in spec if not isinstance(spec, int) else ():
            if counts and not any(-count <= row < count for count in counts.values()):
                told = ", ".join(f"{kind} {count}" for kind, count in counts.items())
                raise RegardError(f"row {row} is out of range; numbers of queries: {told}")
    return rows
