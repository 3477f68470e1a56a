"""An exercise on real heads: find those that copy.

Olsson et al. 2022, "In-context learning and induction heads".
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regard.exercises.exercise import Draw, Exercise, Text, like


def _draw_repeated(draw: Draw, case: int) -> dict[str, Any]:
    layers, heads, period = (2, 3, 4) if case == 0 else (draw.size(1, 3), draw.size(1, 3), draw.size(2, 5))
    scores = draw.normal(layers, heads, 2 * period, 2 * period) * 2
    visible = torch.ones(2 * period, 2 * period, dtype=torch.bool).tril()
    return {"weights": scores.masked_fill(~visible, -torch.inf).softmax(dim=-1), "period": period}


def _mean_at(distance: Callable[[int], int], reduce: str = "mean") -> Callable[[Tensor, int], Tensor]:
    """Weights of the second round on the key that is so far behind each query."""

    def score(weights: Tensor, period: int) -> Tensor:
        # diagonals below the main one, from the query at which the second round begins
        behind = distance(period)
        along = weights.diagonal(-behind, dim1=-2, dim2=-1)[..., period - behind :]
        return along.amax(dim=-1) if reduce == "max" else getattr(along, reduce)(dim=-1)

    return score


def _score(weights: Tensor, period: int) -> Tensor:
    """Weight by weight."""
    layers, heads, length, _ = weights.shape
    queries = range(period, length)
    means = [
        [sum(float(weights[layer, head, t, t - period + 1]) for t in queries) / period for head in range(heads)]
        for layer in range(layers)
    ]
    return torch.tensor(means, dtype=torch.float64)


INDUCTION_SCORE = Exercise(
    equation="[A] [B] … [A] → [B]",
    source=Text("Olsson et al. 2022", "Olsson 等 2022"),
    returns=Text("[layer, head]: one score for each head", " [layer, head]：每个头一个得分"),
    begin=Text(
        "Begin with one query t of the second round: where was its token before, and which token came next there?",
        "先看第二遍中的一个查询 t：它的词元上次在哪里？那里的下一个词元是哪个？",
    ),
    draw=_draw_repeated,
    reference=_score,
    diagnoses=(
        like(
            _mean_at(lambda period: period),
            "the weight on the same token, a round ago: an induction head looks one further, at what came next.",
            "这是对上一遍中同一词元的权重：归纳头看的是再后一个，即接下来的词元。",
        ),
        like(
            _mean_at(lambda period: 1),
            "the weight on the token just before: that is a previous-token head.",
            "这是对前一个词元的权重：那是“前一词元头”。",
        ),
        like(
            _mean_at(lambda period: period - 1, "sum"),
            "a sum: the mean does not depend on the length.",
            "这是求和：平均值不依赖长度。",
        ),
        like(
            _mean_at(lambda period: period - 1, "max"),
            "the largest weight: one hit can be chance, the mean over the second round cannot.",
            "这是最大的权重：一次命中可能是偶然，第二遍的平均值则不会。",
        ),
        like(
            lambda weights, period: weights.diagonal(1 - period, dim1=-2, dim2=-1).mean(dim=-1),
            "queries of the first round are counted as well: they have nothing to copy. The second begins at `period`.",
            "把第一遍的查询也算进去了：那时还没有可复制的。第二遍从 `period` 开始。",
        ),
        like(
            lambda weights, period: _score(weights, period).mean(dim=-1),
            "the mean over all heads: it hides the few that copy. Keep the axis of heads.",
            "对所有头取了平均：少数会复制的头被掩盖了。应保留头的轴。",
        ),
    ),
)
