"""An exercise on positions: queries and keys that are turned.

Su et al. 2021, "RoFormer: enhanced Transformer with rotary position embedding".
"""

from typing import Any

import torch
from torch import Tensor

from regard.exercises.exercise import Attempt, Draw, Exercise, Text, close, like


def _draw_positions(draw: Draw, case: int) -> dict[str, Any]:
    length, dim = (5, 6) if case == 0 else (draw.size(1, 9), 2 * draw.size(1, 5))
    return {"x": draw.normal(length, dim), "base": 10_000.0 if case % 2 == 0 else 100.0}


def _turned(x: Tensor, base: float, *, exponent: float = 2.0, first: int = 0, sign: int = 1) -> Tensor:
    """Pairs as complex numbers, each times e^(i · position · angle)."""
    dim = x.shape[1]
    rates = base ** (-exponent * torch.arange(dim // 2, dtype=torch.float64) / dim)
    turns = torch.outer(torch.arange(first, first + len(x), dtype=torch.float64), rates)
    pairs = torch.view_as_complex(x.unflatten(1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(turns), sign * turns)).flatten(1)


def _turned_halves(x: Tensor, base: float) -> Tensor:
    dim = x.shape[1]
    neighbours = x.unflatten(1, (2, -1)).mT.flatten(1)
    return _turned(neighbours, base).unflatten(1, (dim // 2, 2)).mT.flatten(1)


def _changes_lengths(attempt: Attempt) -> Text | None:
    if attempt.found.shape != attempt.expected.shape:
        return None
    before, after = (each.unflatten(1, (-1, 2)).norm(dim=-1) for each in (attempt.inputs["x"], attempt.found))
    if close(before, after):
        return None
    row, pair = (int(index) for index in ((before - after).abs() > 1e-6 + 1e-4 * before).nonzero()[0])
    return Text(
        "at position {row} the pair (x[{one}], x[{two}]) changes its length from {before} to {after}, which turning "
        "keeps. Is one sine negative, and is the first number still the old one when the second is computed?",
        "位置 {row} 的一对 (x[{one}], x[{two}]) 长度从 {before} 变成了 {after}，而旋转不改变长度。是否有一个正弦取负？"
        "计算第二个数时，第一个数还是旧值吗？",
    ).format(
        row=row,
        one=2 * pair,
        two=2 * pair + 1,
        before=f"{float(before[row, pair]):.3g}",
        after=f"{float(after[row, pair]):.3g}",
    )


ROTARY = Exercise(
    equation="(a, b) → (a cos φ − b sin φ, a sin φ + b cos φ), a = x[m, 2i], b = x[m, 2i+1], φ = m · base^(−2i/d)",
    source=Text("Su et al. 2021, section 3.2.2", "Su 等 2021，3.2.2 节"),
    returns=Text("[position, dim]: as it was given", " [position, dim]：与输入相同"),
    begin=Text(
        "Begin with the angles: a table [position, dim/2], whose first row is 0.",
        "先算角度：[position, dim/2] 的表，第一行是 0。",
    ),
    draw=_draw_positions,
    reference=_turned,
    diagnoses=(
        like(
            lambda x, base: _turned(x, base, sign=-1),
            "turned the other way: positive angles go counter-clockwise, so (1, 0) turned a little has a positive "
            "second number.",
            "转反了：正角度是逆时针，(1, 0) 稍转一点，第二个数应为正。",
        ),
        like(
            lambda x, base: _turned(x, base, first=1),
            "every position is one too far: the first token has position 0 and is not turned.",
            "每个位置都多了 1：第一个词元的位置是 0，不旋转。",
        ),
        like(
            _turned_halves,
            "x[i] is paired with x[i + d/2], as in Llama's code; here, as in the paper, pairs are neighbours.",
            "把 x[i] 与 x[i + d/2] 配成了对，如 Llama 的代码；这里按论文，相邻的两个数成一对。",
        ),
        like(
            lambda x, base: _turned(x, base, exponent=1.0),
            "the angles shrink too slowly from pair to pair: pair i has the exponent −2i/d.",
            "角度随对的序号减小得太慢：第 i 对的指数是 −2i/d。",
        ),
        like(
            lambda x, base: _turned(x, base, exponent=-2.0),
            "the angles grow from pair to pair: the exponent is negative.",
            "角度随对的序号变大了：指数应为负。",
        ),
        like(
            lambda x, base: _turned(x, base, exponent=0.0),
            "all pairs turn by the same angle: each pair has its own, base^(−2i/d) per position.",
            "所有对转了同样的角度：每一对有自己的角度，每个位置 base^(−2i/d)。",
        ),
        like(lambda x, base: x, "nothing has turned.", "什么也没有转。"),
        _changes_lengths,
    ),
)
