"""What to read of a model's attention: one entry for each option, for library, command line and page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from regard.config import from_dict, setting, suggest
from regard.errors import RegardError
from regard.reading.segments import SEGMENTERS, Segmenter

Rows = str | int | slice | Sequence[int]
NAMED_ROWS = ("last", "all", "generated")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What to read of a model's attention. `ReadOptions.of` checks the options.

    Parameters
    ----------
    rows
        Queries whose weights are kept whole: last, all, generated, positions such as 3,5,-1 or a range such as 10:20.
        By default those that wrote the answer; of a text or a watched run the last; of an encoder or translation all.
    top_k
        Keep also the K strongest keys of every query.
    statistics
        Statistics to keep, by name, with commas between: received, entropy, first_token, …
    layers
        Layers to read, such as 0,5,-1 or 0:4; by default all.
    segments
        Parts of the text whose weights are summed: sentences, paragraphs, turns or documents; in Python also a function
        from a text to the characters at which its parts begin.
    scores
        Keep the scores of the rows too, as they are before the softmax.
    """

    rows: Rows | None = setting("last")
    top_k: int | None = setting(None, least=1)
    statistics: str | Sequence[str] = setting(())
    layers: str | int | Sequence[int] | None = setting(None)
    segments: str | Segmenter = setting("sentences")
    scores: bool = setting(False)

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, rows: Rows | None = None) -> "ReadOptions":
        """These options in one form each: rows a name, positions or a slice, layers a sequence, statistics a tuple.

        `rows` replace the default, where the settings name none.
        Raises RegardError for an unknown option and for a value that makes no sense.
        """
        given = {**vars(cls()), **settings}
        if rows is not None and settings.get("rows") is None:
            given["rows"] = rows
        given["rows"] = _rows(given["rows"])
        given["layers"] = None if given["layers"] is None else _layers(given["layers"])
        given["statistics"] = _statistics(given["statistics"])
        segments = given["segments"]
        if isinstance(segments, str) and segments not in SEGMENTERS:
            raise RegardError(f"there are no segments {segments!r}{suggest(segments, SEGMENTERS)}")
        return from_dict(cls, given, where="reading:")

    def layers_of(self, model: Any) -> list[int] | None:
        """Layers to read, counted from 0. Raises RegardError for those that the model's configuration lacks."""
        layers = self.layers
        if layers is None:
            return None
        assert not isinstance(layers, str | int)
        config: Any = getattr(model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        names = ("num_hidden_layers", "decoder_layers", "encoder_layers", "num_layers")
        counts = [count for name in names if isinstance(count := getattr(text, name, None), int)]
        if not counts:
            return list(layers)
        count = max(counts)
        for layer in layers:
            if not -count <= layer < count:
                raise RegardError(f"there is no layer {layer}; the model has layers 0 to {count - 1}")
        return [layer % count for layer in layers]


def refuse_compiled(model: Any) -> None:
    """Raises RegardError for a model of which any part is compiled."""
    for module in model.modules():
        compiled = (
            type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
        )
        # torch.compile names the function that it took in the place of
        if compiled or hasattr(getattr(module, "forward", None), "_torchdynamo_orig_callable"):
            raise RegardError(
                "a compiled model cannot be read: its attention is part of a larger kernel; watch the model as it was "
                "before torch.compile"
            )


def _rows(rows: Any) -> Rows:
    if isinstance(rows, str) and rows not in NAMED_ROWS:
        try:
            return _positions(rows)
        except ValueError as error:
            raise RegardError(f'rows must be "last", "all", "generated", positions or a range: {error}') from None
    if isinstance(rows, str) or (isinstance(rows, slice) and rows.step != 0):
        return rows
    found = _integers(rows)
    if found is None:
        raise RegardError(f'rows must be "last", "all", "generated", positions or a slice, not {rows!r}')
    return found


def _layers(layers: Any) -> Sequence[int]:
    try:
        found = _positions(layers) if isinstance(layers, str) else _integers(layers)
    except ValueError as error:
        raise RegardError(f"layers must be numbers of layers: {error}") from None
    if isinstance(found, slice):
        if found.start is None or found.stop is None or not 0 <= found.start < found.stop:
            raise RegardError(f"layers must be numbers of layers: {layers!r} is no range of layers such as 0:4")
        return range(found.start, found.stop)
    if found is None:
        raise RegardError(f"layers must be numbers of layers, not {layers!r}")
    return found


def _statistics(names: Any) -> tuple[str, ...]:
    # these import torch, which help does not wait for
    from regard.reading.compute.statistics import SINK_SHARE, STATISTICS

    known = [name for name in STATISTICS if name != SINK_SHARE]
    parts = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if not all(isinstance(part, str) for part in parts):
        raise RegardError(f"statistics must be names, not {names!r}; choose from {', '.join(known)}")
    found = [name.strip() for part in parts for name in part.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise RegardError(f"there is no statistic {name!r}{suggest(name, known)}")
    return tuple(found)


def _integers(numbers: Any) -> list[int] | None:
    """One or several whole numbers as a list; None for anything else."""
    try:
        return [index(number) for number in (numbers if isinstance(numbers, Iterable) else [numbers])]
    except TypeError:
        return None


def _positions(text: str) -> list[int] | slice:
    """`3,5,-1` as a list; `10:20`, `:5` or `-4:` as a slice. Raises ValueError for anything else."""
    try:
        if ":" in text:
            first, last = (int(end) if end.strip() else None for end in text.split(":"))
            return slice(first, last)
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is no list of positions such as 3,5,-1 and no range such as 10:20") from None
