"""What walks through attention are printed with: matrices named by tokens, sums done by hand, headings."""

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text
from torch import Tensor

from regard.view.matrix import BOLD, FAINT, MARK, Matrix
from regard.view.words import printable

WIDTH = 80
FOLLOW = "arithmetic, and read no meaning into which token gets most weight."


def page(parts: Sequence[RenderableType]) -> RenderableType:
    """The parts below each other, at most 80 columns wide."""
    return Constrain(Group(*(line for part in parts for line in (part, Text()))), WIDTH)


def title(text: str) -> RenderableType:
    return Rule(Text(text, style=BOLD), style=FAINT)


def heading(number: int, text: str, name: str) -> RenderableType:
    words = Text.assemble((f"Step {number} of 4: {text}", BOLD), (f"  {name}", FAINT))
    return Rule(words, style=FAINT, align="left")


def follow(tokens: list[str]) -> RenderableType:
    return Text(
        f"Follow “{printable(tokens[followed(tokens)])}”, marked {MARK}. Weights are shaded: the greater, the "
        "stronger (without colour, the higher the bar beside it)."
    )


def followed(tokens: list[str]) -> int:
    return min(1, len(tokens) - 1)


def vectors(name: str, values: Tensor, tokens: list[str], *, group: int | None = None) -> Matrix:
    """A row of numbers for each token."""
    columns = dims(values[:, :group]) * (values.shape[1] // group if group else 1)
    return Matrix(title=name, values=values, rows=tokens, columns=columns, marked=followed(tokens), group=group)


def pairs(
    name: str,
    values: Tensor,
    tokens: list[str],
    keys: list[str] | None = None,
    *,
    shaded: bool = False,
    dropped: Tensor | None = None,
) -> Matrix:
    """A number for each token and each of `keys`, which are the same tokens where nothing is said."""
    return Matrix(
        title=name,
        values=values,
        rows=tokens,
        columns=tokens if keys is None else keys,
        corner="looks at",
        marked=followed(tokens),
        shaded=shaded,
        dropped=dropped,
    )


def dims(values: Tensor) -> list[str]:
    return [f"dim {dim}" for dim in range(1, values.shape[1] + 1)]


def names(*tokens: str) -> str:
    return ", ".join(map(printable, tokens))


def zipped(left: Tensor, right: Tensor) -> Iterable[tuple[float, float]]:
    return zip(left.tolist(), right.tolist(), strict=True)


def softmax_by_hand(label: str, scores: Tensor, other: int, weight: Tensor) -> RenderableType:
    """How one row of scores gives the weight of `other`."""
    powers = [f"e^{score:.4f}" for score in scores.tolist() if score > -math.inf]
    return by_hand(f"weight({label})", [f"{powers[other]} / ({' + '.join(powers)})"], weight)


def by_hand(what: str, terms: list[str], result: Tensor) -> RenderableType:
    return Padding(Text(f"{what} = {' + '.join(terms)} = {result:.4f}", style="italic"), (0, 0, 0, 2), expand=False)
