"""Exercises on the attention of a Transformer: scale, mask, heads, cross-attention.

Vaswani et al. 2017, "Attention is all you need".
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regard.exercises.exercise import Attempt, Draw, Exercise, Text, close, like, rows_sum
from regard.kernels import reference


def _draw_query_and_key(draw: Draw, case: int) -> dict[str, Any]:
    queries, keys, dim = (3, 4, 5) if case == 0 else (draw.size(), draw.size(), draw.size(1, 9))
    return {"query": draw.normal(queries, dim), "key": draw.normal(keys, dim)}


def _scaled(query: Tensor, key: Tensor) -> Tensor:
    """By the routine of linear algebra that multiplies and scales at once."""
    nothing = query.new_zeros(1, len(query), len(key))
    return torch.baddbmm(nothing, query[None], key.T[None], beta=0, alpha=query.shape[1] ** -0.5)[0]


def _is_off_by_a_factor(attempt: Attempt) -> Text | None:
    query, key = attempt.inputs["query"], attempt.inputs["key"]
    if attempt.found.shape != attempt.expected.shape:
        return None
    factor = float((attempt.found * attempt.expected).sum() / attempt.expected.square().sum())
    if abs(factor) < 1e-9 or not close(attempt.found / factor, attempt.expected):
        return None
    dim, root = query.shape[1], math.sqrt(query.shape[1])
    known = [
        (root, "off by a factor of √d = {root}: scale.", "差了 √d = {root} 倍：需要缩放。"),
        (
            dim,
            "off by a factor of d = {dim}: multiplied by √d where it divides.",
            "差了 d = {dim} 倍：应除以 √d，而不是乘。",
        ),
        (
            1 / root,
            "too small by a factor of √d = {root}: divided by d, or twice by √d.",
            "小了 √d = {root} 倍：除以了 d，或者除了两次 √d。",
        ),
        (
            root / math.sqrt(len(key)),
            "divided by the root of the number of keys: d is the size of a query, its last axis.",
            "除以了键的个数的平方根：d 是一个查询的维度，即最后一个轴。",
        ),
        (
            root / math.sqrt(len(query)),
            "divided by the root of the number of queries: d is the size of a query, its last axis.",
            "除以了查询个数的平方根：d 是一个查询的维度，即最后一个轴。",
        ),
    ]
    for value, en, zh in known:
        if math.isclose(factor, value, rel_tol=1e-3):
            return Text(en, zh).format(dim=dim, root=f"{root:.2f}")
    return Text("off by a factor of {factor}.", "差了 {factor} 倍。").format(factor=f"{factor:.3g}")


SCALED_SCORES = Exercise(
    equation="scores = Q Kᵀ / √d",
    source=Text("Vaswani et al. 2017, equation 1", "Vaswani 等 2017，式 1"),
    returns=Text("[query, key]: one score for each query and key", " [query, key]：每个查询对每个键一个得分"),
    begin=Text(
        "Begin with one query and one key: their product is a single number.", "先看一个查询和一个键：内积是一个数。"
    ),
    draw=_draw_query_and_key,
    reference=_scaled,
    diagnoses=(
        _is_off_by_a_factor,
        like(
            lambda query, key: _scaled(query, key).softmax(dim=-1),
            "these are weights already: return the scores before softmax.",
            "这已经是权重了：应返回 softmax 之前的得分。",
        ),
    ),
)


def _draw_square(draw: Draw, case: int) -> dict[str, Any]:
    size = 4 if case == 0 else draw.size()
    return {"scores": draw.normal(size, size) * (1 if case % 3 else 2)}


def _causal(scores: Tensor) -> Tensor:
    """By torch's scaled dot-product attention: queries are the scores, keys and values the unit vectors."""
    unit = torch.eye(len(scores), dtype=scores.dtype)
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(scores[None], unit[None], unit[None], is_causal=True, scale=1.0)[0]


def _sees_the_future(attempt: Attempt) -> Text | None:
    if attempt.found.shape != attempt.expected.shape:
        return None
    rows, keys = (attempt.found.triu(1).abs() > 1e-6).nonzero(as_tuple=True)
    if not len(rows):
        return None
    row, key = int(rows[0]), int(keys[rows == rows[0]][-1])
    return Text(
        "row {row} sees key {key} (weight {weight}): mask before the softmax, so that what is hidden gets e^−∞ = 0.",
        "第 {row} 行看到了键 {key}（权重 {weight}）：应在 softmax 之前遮盖，被遮住的得到 e^−∞ = 0。",
    ).format(row=row, key=key, weight=f"{float(attempt.found[row, key]):.2g}")


def _is_blind_to_itself(attempt: Attempt) -> Text | None:
    found = attempt.found
    if found.shape != attempt.expected.shape or len(found) < 2 or float(found[1, 1]) != 0:
        return None
    # a row that sees nothing can be NaN, and nothing of the others is above the diagonal
    if bool(found[1:].isnan().any()) or bool(found.triu(1)[1:].any()):
        return None
    return Text(
        "row 1 does not see key 1, and row 0 nothing at all: a token may look at itself.",
        "第 1 行看不到键 1，第 0 行什么也看不到：词元可以看自己。",
    )


def _has_no_number(attempt: Attempt) -> Text | None:
    if not bool(attempt.found.isnan().any()):
        return None
    return Text(
        "there are NaNs: −∞ times 0 is one. Put −∞ in place of the hidden scores, do not multiply by a mask.",
        "出现了 NaN：−∞ 乘 0 就是 NaN。应把被遮住的得分换成 −∞，而不是乘以掩码。",
    )


CAUSAL_WEIGHTS = Exercise(
    equation="weights = softmax(scores + M), M[i, j] = 0 (j ≤ i), −∞ (j > i)",
    source=Text("Vaswani et al. 2017, section 3.2.3", "Vaswani 等 2017，3.2.3 节"),
    returns=Text(
        "[query, key]: rows that sum to 1, zero above the diagonal", " [query, key]：每行之和为 1，对角线以上为 0"
    ),
    begin=Text(
        "Begin with a table that is True where query i may look at key j.",
        "先做一个表：查询 i 可以看键 j 的地方为 True。",
    ),
    draw=_draw_square,
    reference=_causal,
    diagnoses=(
        _is_blind_to_itself,
        lambda attempt: (
            rows_sum(
                attempt,
                "row {row} sums to {sum}: after the softmax hidden keys have had their share. Mask before it.",
                "第 {row} 行之和是 {sum}：在 softmax 之后遮盖，被遮住的键仍占着份额。应在 softmax 之前遮盖。",
            )
            if close(attempt.found, attempt.inputs["scores"].softmax(dim=-1).tril())
            else None
        ),
        like(
            lambda scores: scores.tril().softmax(dim=-1),
            "row 0 sees every key: a hidden score of 0 still counts as e^0 = 1. Which score has an exp of 0?",
            "第 0 行看到了所有键：得分 0 仍算作 e^0 = 1。什么得分的 exp 是 0？",
        ),
        like(
            lambda scores: scores.masked_fill(torch.ones_like(scores).tril(-1).bool(), -torch.inf).softmax(dim=-1),
            "the mask is upside down: row 0 sees every key, the last row only itself.",
            "掩码上下颠倒：第 0 行看到所有键，最后一行只看到自己。",
        ),
        like(
            lambda scores: scores.masked_fill(torch.ones_like(scores).triu(2).bool(), -torch.inf).softmax(dim=-1),
            "row 0 sees key 1, the token that it has to predict: the mask begins one diagonal too far to the right.",
            "第 0 行看到了键 1，也就是它要预测的词元：掩码偏右了一条对角线。",
        ),
        _has_no_number,
        _sees_the_future,
        lambda attempt: rows_sum(
            attempt,
            "row {row} sums to {sum}: softmax goes over the keys, axis -1.",
            "第 {row} 行之和是 {sum}：softmax 应沿键的方向，即 axis -1。",
        ),
    ),
)


def _draw_heads(draw: Draw, case: int) -> dict[str, Any]:
    count, queries, dim = (2, 3, 4) if case == 0 else (draw.size(1, 4), draw.size(), draw.size(1, 4))
    model_dim = count * dim if case % 2 == 0 else draw.size()
    return {"heads": draw.normal(count, queries, dim), "W_out": draw.normal(count * dim, model_dim)}


def _joined(heads: Tensor) -> Tensor:
    return torch.cat(list(heads), dim=-1)


MERGE_HEADS = Exercise(
    equation="MultiHead = Concat(head_1, …, head_h) W_out",
    source=Text("Vaswani et al. 2017, section 3.2.2", "Vaswani 等 2017，3.2.2 节"),
    returns=Text("[query, model_dim]: one row for each query", " [query, model_dim]：每个查询一行"),
    begin=Text(
        "Begin with the row of query 0: what each head found for it, side by side.",
        "先看查询 0 那一行：把各个头为它找到的并排放在一起。",
    ),
    draw=_draw_heads,
    # each head by its own part of W_out, summed: nothing is joined
    reference=lambda heads, W_out: torch.einsum(
        "hqd,hdm->qm", heads, W_out.unflatten(0, (heads.shape[0], heads.shape[2]))
    ),
    diagnoses=(
        like(
            lambda heads, W_out: heads.reshape(heads.shape[1], -1) @ W_out,
            "rows hold numbers of other queries: the axes are [head, query, head_dim], and a reshape keeps that "
            "order. Bring head next to head_dim first.",
            "行里混进了别的查询的数：轴是 [head, query, head_dim]，reshape 不改变顺序。先把 head 移到 head_dim 旁边。",
        ),
        like(
            lambda heads, W_out: heads.permute(1, 2, 0).flatten(1) @ W_out,
            "the heads' numbers alternate: those of one head belong together, head 1 before head 2.",
            "各头的数交错了：同一个头的数应在一起，先头 1，再头 2。",
        ),
        like(
            lambda heads, W_out: _joined(heads),
            "joined, but W_out is missing: it mixes what the heads found.",
            "拼好了，但缺少 W_out：它把各头找到的东西混合起来。",
        ),
        like(
            lambda heads, W_out: _joined(heads) @ W_out.T if W_out.shape[0] == W_out.shape[1] else None,
            "W_out is transposed: its first axis is that of the joined heads.",
            "W_out 转置了：它的第一个轴对应拼接后的各头。",
        ),
        like(
            lambda heads, W_out: heads.mean(dim=0),
            "the mean of the heads: they are joined side by side, so that W_out can tell them apart.",
            "取了各头的平均：应并排拼接，W_out 才能区分它们。",
        ),
        like(
            lambda heads, W_out: heads.sum(dim=0),
            "the sum of the heads: they are joined side by side, so that W_out can tell them apart.",
            "把各头相加了：应并排拼接，W_out 才能区分它们。",
        ),
    ),
)


def _draw_two_sentences(draw: Draw, case: int) -> dict[str, Any]:
    # of one length, values that come from the wrong sentence are recognised, not refused by torch
    lengths, dim, head_dim = ((4, 4), 5, 3) if case == 0 else ((draw.size(), draw.size()), draw.size(), draw.size())
    return {
        "target": draw.normal(lengths[0], dim),
        "source": draw.normal(lengths[1], dim),
        "W_query": draw.normal(dim, head_dim),
        "W_key": draw.normal(dim, head_dim),
        "W_value": draw.normal(dim, head_dim),
    }


def _attend(query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query[None], key[None], value[None], **how)[0]


def _crossed(asks: str, answers: str, hands_over: str) -> Callable[..., Tensor | None]:
    """Attention with query, key and value from these sentences."""

    def attend(target: Tensor, source: Tensor, W_query: Tensor, W_key: Tensor, W_value: Tensor) -> Tensor | None:
        of = {"target": target, "source": source}
        if len(of[answers]) != len(of[hands_over]):
            return None
        return _attend(of[asks] @ W_query, of[answers] @ W_key, of[hands_over] @ W_value)

    return attend


CROSS_ATTENTION = Exercise(
    equation="softmax(Q Kᵀ / √d) V, Q = target · W_query, K = source · W_key, V = source · W_value",
    source=Text("Vaswani et al. 2017, section 3.2.3", "Vaswani 等 2017，3.2.3 节"),
    returns=Text(
        "[target, head_dim]: one context for each target token", " [target, head_dim]：每个目标词元一个上下文"
    ),
    begin=Text("Begin with who asks: which sentence gives the queries?", "先想谁在问：查询来自哪个句子？"),
    draw=_draw_two_sentences,
    reference=lambda target, source, W_query, W_key, W_value: _attend(
        target @ W_query, source @ W_key, source @ W_value
    ),
    diagnoses=(
        like(
            _crossed("source", "target", "target"),
            "the source asks and the target answers: it is the other way round.",
            "变成了源句问、目标句答：应该反过来。",
        ),
        like(
            _crossed("target", "target", "target"),
            "self-attention of the target: the source is never looked at.",
            "这是目标句的自注意力：没有看源句。",
        ),
        like(
            _crossed("source", "source", "source"),
            "self-attention of the source: the target does not ask.",
            "这是源句的自注意力：目标句没有提问。",
        ),
        like(
            _crossed("target", "source", "target"),
            "the values come from the target: what is looked at also hands over.",
            "值来自目标句：被看的一方也应交出内容。",
        ),
        like(
            _crossed("target", "target", "source"),
            "the keys come from the target: what is looked at, the source, has the keys.",
            "键来自目标句：键应属于被看的一方，即源句。",
        ),
        like(
            lambda target, source, W_query, W_key, W_value: _attend(
                target @ W_query, source @ W_key, source @ W_value, scale=1.0
            ),
            "the scores are too large by a factor of √d: scale.",
            "得分大了 √d 倍：需要缩放。",
        ),
        like(
            lambda target, source, W_query, W_key, W_value: _attend(
                target @ W_query, source @ W_key, source @ W_value, scale=1 / math.sqrt(target.shape[1])
            ),
            "scaled by the size of the embeddings: d is the size of a query.",
            "用嵌入的维度缩放了：d 是查询的维度。",
        ),
        like(
            lambda target, source, W_query, W_key, W_value: _attend(
                target @ W_query, source @ W_key, source @ W_value, is_causal=True
            ),
            "a causal mask hides part of the source: all of it is there before the first target token is written.",
            "因果掩码遮住了源句的一部分：写第一个目标词元之前，整个源句已经在那里了。",
        ),
        like(
            lambda target, source, W_query, W_key, W_value: (
                ((target @ W_query) @ (source @ W_key).T / math.sqrt(W_key.shape[1])).softmax(dim=0)
                @ (source @ W_value)
            ),
            "softmax went over the target: each target token shares out its weight over the source, axis -1.",
            "softmax 沿目标句的方向算了：每个目标词元要在源句上分配权重，即 axis -1。",
        ),
        like(
            lambda target, source, W_query, W_key, W_value: reference.weights(
                (target @ W_query)[None, None], (source @ W_key)[None, None]
            )[0, 0],
            "these are the weights: times the values they give the context.",
            "这是权重：还要乘以值，才是上下文。",
        ),
        like(
            lambda target, source, W_query, W_key, W_value: _attend(target @ W_query, source @ W_value, source @ W_key),
            "W_key and W_value have changed places.",
            "W_key 和 W_value 用反了。",
        ),
    ),
)
