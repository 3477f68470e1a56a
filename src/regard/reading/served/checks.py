"""What every number of a served request is checked for; an error says what was found and what was expected."""

from collections.abc import Iterator
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError

# no score is as large in any dtype
LARGEST = 1e30


def require(holds: bool, why: str) -> None:
    if not holds:
        raise RegardError(f"served request: {why}")


def tensor(table: Any, what: str) -> Tensor:
    """A numpy array or torch tensor as a dense tensor, without a copy where that can be."""
    if isinstance(table, np.ndarray):
        require(table.dtype.kind in "iuf" and table.dtype.itemsize <= 8, f"{what} must be numbers, not {table.dtype}")
        if not table.flags.carray:
            # torch knows neither foreign byte orders nor negative strides, and warns of memory that it may not write
            table = np.array(table, table.dtype.newbyteorder("="), order="C")
        table = torch.from_numpy(table)
    require(isinstance(table, Tensor), f"{what} must be a numpy array or a torch tensor, not {type(table).__name__}")
    require(
        not table.is_nested and table.layout == torch.strided and table.device.type != "meta",
        f"{what} must be a dense tensor that holds numbers",
    )
    return table.detach()


def whole_numbers(values: Any, what: str) -> list[int]:
    values = values.tolist() if isinstance(values, np.ndarray | Tensor) else values
    try:
        return list(_indices(values))
    except TypeError:
        raise RegardError(f"served request: {what} must be a list of whole numbers") from None


def _indices(values: Any) -> Iterator[int]:
    for value in values:
        if isinstance(value, bool | str):
            raise TypeError
        yield index(value)


def whole(value: Any, what: str, *, least: int) -> None:
    require(
        isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"{what} must be a whole number of at least {least}, not {value!r}",
    )


def positive(value: Any, what: str) -> None:
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    require(
        is_number and 0 < value <= LARGEST, f"{what} must be a number above 0 and at most {LARGEST:g}, not {value!r}"
    )
