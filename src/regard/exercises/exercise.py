"""What an exercise is: inputs that are drawn, a reference, and the mistakes that it knows by trying them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Text(NamedTuple):
    """What a learner reads, in English and in Chinese."""

    en: str
    zh: str

    def format(self, **values: object) -> "Text":
        return Text(self.en.format(**values), self.zh.format(**values))


@dataclass(frozen=True)
class Attempt:
    """What a learner's function returned for some inputs, and what the reference did."""

    found: Tensor
    expected: Tensor
    inputs: dict[str, Any]


Diagnosis = Callable[[Attempt], Text | None]


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """`draw` gives the inputs of one case by name; their order is that in which a function takes them.

    The first case has no special sizes, and is the one in which most mistakes are recognised. `diagnoses` are asked one
    after another what went wrong. `returns` says the shape; `begin` is the hint for an empty function.
    """

    equation: str
    source: Text
    returns: Text
    begin: Text
    draw: Callable[["Draw", int], dict[str, Any]]
    reference: Callable[..., Tensor]
    diagnoses: Sequence[Diagnosis] = ()


class Draw:
    """Random inputs in float64, the same every time."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def size(self, least: int = 1, most: int = 6) -> int:
        return int(torch.randint(least, most + 1, (), generator=self._generator))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)

    def weights(self, *shape: int) -> Tensor:
        """Rows that sum to 1."""
        return (2 * self.normal(*shape)).softmax(dim=-1)


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal up to what float32 rounds: a function may compute in it."""
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def like(wrong: Callable[..., Tensor | None], en: str, zh: str) -> Diagnosis:
    """A mistake that is recognised by making it: `wrong` takes the inputs; None where they do not allow it."""

    def diagnose(attempt: Attempt) -> Text | None:
        made = wrong(*attempt.inputs.values())
        return Text(en, zh) if made is not None and close(attempt.found, made) else None

    return diagnose


def rows_sum(attempt: Attempt, en: str, zh: str) -> Text | None:
    """Where a row does not sum to 1: the text with its number `row` and its `sum`."""
    if attempt.found.shape != attempt.expected.shape:
        return None
    sums = attempt.found.sum(dim=-1)
    row = int((sums - 1).abs().argmax())
    if not abs(float(sums[row]) - 1) > 1e-4:
        return None
    return Text(en, zh).format(row=row, sum=f"{float(sums[row]):.2g}")
