"""What a watch is asked for, checked before the model runs."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from torch import nn

from regard.errors import RegardError
from regard.reading.compute.rows import Rows


def refuse_compiled(model: nn.Module) -> None:
    """Raises RegardError for a model of which any part is compiled."""
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise RegardError(
                "a compiled model cannot be read: its attention is part of a larger kernel; watch the model as it was "
                "before torch.compile"
            )


def checked_rows(rows: Rows) -> Rows:
    """The rows that are to be kept. Raises RegardError for what names none."""
    if isinstance(rows, str) and rows in ("last", "all", "generated"):
        return rows
    if isinstance(rows, slice) and rows.step != 0:
        return rows
    found = _integers(rows)
    if found is None:
        raise RegardError(f'rows must be "last", "all", "generated", positions or a slice, not {rows!r}')
    return found


def _integers(numbers: Any) -> list[int] | None:
    """One or several whole numbers as a list; None of anything else."""
    try:
        return [index(number) for number in (numbers if isinstance(numbers, Iterable) else [numbers])]
    except TypeError:
        return None


def checked_layers(model: nn.Module, given: Sequence[int] | int | None) -> list[int] | None:
    """Numbers of layers, none negative. Raises RegardError for those that the model says it has not."""
    if given is None:
        return None
    layers = _integers(given)
    if layers is None:
        raise RegardError(f"layers must be numbers of layers, not {given!r}")
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    counts = [
        getattr(text, name, None) for name in ("num_hidden_layers", "decoder_layers", "encoder_layers", "num_layers")
    ]
    count = max((count for count in counts if isinstance(count, int)), default=None)
    if count is None:
        return layers
    for layer in layers:
        if not -count <= layer < count:
            raise RegardError(f"there is no layer {layer}; the model has layers 0 to {count - 1}")
    return [layer % count for layer in layers]
