"""From what a serving engine hands over of one request to its reading, verified as every reading is."""

from typing import Any

import torch
from torch import Tensor

from regard.config import shows
from regard.errors import RegardError
from regard.reading.compute.output_norm import OUTPUT_NORM
from regard.reading.compute.rows import Wanted, chosen, note_rollout, read_call
from regard.reading.compute.statistics import ROLLOUT, STATISTICS
from regard.reading.files import as_name
from regard.reading.joined import JoinedLayer
from regard.reading.labels import Label, sequence
from regard.reading.layouts import Layout
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.record import Place
from regard.reading.runs import Piece, Run
from regard.reading.served.request import ServedLayer, ServedRequest, call_of

KIND = "decoder"
# weights of one reading: 16 GiB in single precision
MOST_WEIGHTS = 1 << 32


@shows(ReadOptions, rows=None)
@torch.inference_mode()
def reading_of(served: ServedRequest, *, tokenizer: Any = None, **options: Any) -> Reading:
    """The reading of a request that an engine served; by default of all rows that it handed over.

    With a `tokenizer` of transformers the reading knows its text. Rows are computed in float64 and verified against the
    context of the engine's kernel: a layer that fails is in `reading.refused`.
    Raises RegardError for a request that contradicts itself, naming the layer; for rows that were not handed over; and
    for statistics and strongest keys of all rows where not all were.
    """
    if not isinstance(served, ServedRequest):
        raise RegardError(f"reading_of takes a ServedRequest, not {type(served).__name__}")
    request = served.checked()
    read = ReadOptions.of(options, rows=request.rows)
    _check_statistics(read, request, tokenizer)
    rows = _rows(read, request)
    layers = _layers(read, request)
    places = {row: place for place, row in enumerate(request.rows)}
    wanted = Wanted(**{**vars(read), "rows": [places[row] for row in rows], "layers": None}, tokenizer=tokenizer)
    size = sum(each.query.shape[1] for each in layers) * len(rows) * request.num_keys
    if size > MOST_WEIGHTS:
        raise RegardError(
            f"these rows have {size:,} weights, more than {MOST_WEIGHTS:,}; choose fewer rows= or layers="
        )
    run = Run(batch_size=1)
    ids = torch.tensor(request.ids)

    def ids_at(_: Run, __: str, ___: int, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return ids[: sizes[0]], ids[: sizes[1]]

    layout = Layout(0, slice(0, len(request.rows)), slice(0, request.num_keys), 0, 0)
    for layer in layers:
        call, key = call_of(request, layer), (KIND, f"layers.{layer.number}", layer.number)
        found = read_call(run, KIND, call, [layout], wanted, ids_at)
        if isinstance(found, str):
            run.refused[key] = found
        else:
            run.pieces[key] = [found]
    note_rollout(run, wanted, ids_at)
    joined = {(KIND, key[2]): _joined(piece[0], request) for key, (piece,) in run.pieces.items()}
    return _reading(request, tokenizer, rows, joined, {(KIND, key[2]): why for key, why in run.refused.items()}, wanted)


def _joined(piece: Piece, request: ServedRequest) -> JoinedLayer:
    """A layer whose queries, which are the rows that were handed over, have their positions in the sequence."""
    piece.rows, piece.num_queries = [request.rows[place] for place in piece.rows], request.num_keys
    return JoinedLayer(KIND, [(piece, request.num_keys)])


def _reading(
    request: ServedRequest,
    tokenizer: Any,
    rows: list[int],
    layers: dict[Place, JoinedLayer],
    refused: dict[Place, str],
    wanted: Wanted,
) -> Reading:
    left_out = {
        f"{as_name(place)}.{name}": why for place, layer in layers.items() for name, why in layer.left_out.items()
    }
    is_answered = request.prompt_tokens < len(request.ids)
    settings = {
        "implementation": "served",
        "prompt_tokens": request.prompt_tokens if is_answered else 0,
        "end_tokens": int(request.ended),
    }
    return Reading(
        model=request.model,
        sequences={"text": sequence([Label(id) for id in request.ids], tokenizer)},
        maps={place: layer.weights(rows) for place, layer in layers.items()},
        checks={place: layer.check for place, layer in layers.items()},
        refused=refused,
        settings=settings | ({"left_out": left_out} if left_out else {}),
        sides={KIND: ("text", "text")},
        kept={KIND: rows},
        tops={place: layer.top() for place, layer in layers.items() if wanted.top_k is not None},
        statistics={place: layer.statistics(rows) for place, layer in layers.items()},
        score_maps={place: layer.scores(rows) for place, layer in layers.items() if layer.has_scores},
    )


def _check_statistics(read: ReadOptions, request: ServedRequest, tokenizer: Any) -> None:
    if OUTPUT_NORM in read.statistics:
        raise RegardError(f"{OUTPUT_NORM} needs the output projection, which no engine hands over; take value_norm")
    of_all = [name for name in read.statistics if STATISTICS[name].is_swept or name == ROLLOUT]
    of_all += ["top_k"] if read.top_k is not None else []
    if of_all and not request.is_whole:
        raise RegardError(
            f"{of_all[0]} is about the rows of all {request.num_keys} tokens, and {len(request.rows)} were handed "
            "over; hand over all of them, or leave it out"
        )
    if tokenizer is None and any(STATISTICS[name].by_segment for name in read.statistics):
        raise RegardError("segments are found in the text: give reading_of the model's tokenizer=")


def _rows(read: ReadOptions, request: ServedRequest) -> list[int]:
    count, spec = request.num_keys, read.rows
    if spec == "all":
        rows = list(range(count))
    elif spec == "last":
        rows = [count - 1]
    elif spec == "generated":
        rows = list(range(request.prompt_tokens - 1, count))
    else:
        assert spec is not None
        for row in () if isinstance(spec, str | slice | int) else spec:
            if not -count <= row < count:
                raise RegardError(f"row {row} is out of range; {count} tokens were fed, counted from 0")
        rows = chosen(spec, count)
    missing = sorted({*rows} - {*request.rows})
    if missing:
        raise RegardError(
            f"row {missing[0]} was not handed over; the request has {len(request.rows)} rows, "
            f"{request.rows[0]} to {request.rows[-1]}"
        )
    return rows


def _layers(read: ReadOptions, request: ServedRequest) -> list[ServedLayer]:
    layers = sorted(request.layers, key=lambda layer: layer.number)
    if read.layers is None:
        return layers
    numbers = [layer.number for layer in layers]
    wanted = set()
    assert not isinstance(read.layers, str | int)
    for layer in read.layers:
        # a negative number counts from the last that was handed over
        number = numbers[layer] if -len(numbers) <= layer < 0 else layer
        if number not in numbers:
            raise RegardError(f"layer {layer} was not handed over; there are {', '.join(map(str, numbers))}")
        wanted.add(number)
    return [layer for layer in layers if layer.number in wanted]
