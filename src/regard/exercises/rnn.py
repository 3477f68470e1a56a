"""Exercises on what one hidden state holds, and on the attention that took its place.

Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder"; Bahdanau, Cho and Bengio 2015, "Neural
machine translation by jointly learning to align and translate".
"""

import math
from typing import Any

import torch
from torch import Tensor

from regard.exercises.exercise import Attempt, Diagnosis, Draw, Exercise, Text, close, like, rows_sum


def _longest(hidden_dim: int, bits: int, vocabulary: int) -> Tensor:
    # in whole numbers, without a logarithm
    length, sources = 0, vocabulary
    while sources <= 1 << (hidden_dim * bits):
        length, sources = length + 1, sources * vocabulary
    return torch.tensor(length, dtype=torch.float64)


def _draw_state(draw: Draw, case: int) -> dict[str, Any]:
    if case == 0:
        return {"hidden_dim": 64, "bits": 32, "vocabulary": 1000}
    vocabulary = 1 << draw.size(1, 12) if case % 3 == 0 else draw.size(2, 50_000)
    return {"hidden_dim": draw.size(1, 64), "bits": draw.size(4, 32), "vocabulary": vocabulary}


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _is_one_more(attempt: Attempt) -> Text | None:
    inputs = attempt.inputs
    if not close(attempt.found, attempt.expected + 1):
        return None
    return Text(
        "one word too many: {vocabulary}^{n} sources are more than 2^{bits} states. Round down.",
        "多了一个词：{vocabulary}^{n} 个源句多于 2^{bits} 个状态。应向下取整。",
    ).format(vocabulary=inputs["vocabulary"], n=int(attempt.found), bits=inputs["hidden_dim"] * inputs["bits"])


LONGEST_SOURCE = Exercise(
    equation="vocabulary^n ≤ 2^(hidden_dim · bits)",
    source=Text("the one state: Cho et al. 2014, section 2.2", "一个状态：Cho 等 2014，2.2 节"),
    returns=Text("one whole number", "一个整数"),
    begin=Text(
        "Begin with the count of states: each of hidden_dim · bits bits can be 0 or 1.",
        "先数状态：hidden_dim · bits 个比特，每个是 0 或 1。",
    ),
    draw=_draw_state,
    reference=_longest,
    diagnoses=(
        _is_one_more,
        like(
            lambda hidden_dim, bits, vocabulary: _number(hidden_dim * bits / math.log2(vocabulary)),
            "this is where the two sides meet; a source has a whole number of words: round down.",
            "这是两边相等之处；源句的词数是整数：应向下取整。",
        ),
        like(
            lambda hidden_dim, bits, vocabulary: _number(hidden_dim * bits // math.log(vocabulary)),
            "a natural logarithm: bits are counted with the logarithm to base 2.",
            "用了自然对数：比特要用以 2 为底的对数来数。",
        ),
        like(
            lambda hidden_dim, bits, vocabulary: _number(hidden_dim * bits // math.log10(vocabulary)),
            "a logarithm to base 10: bits are counted with the logarithm to base 2.",
            "用了以 10 为底的对数：比特要用以 2 为底的对数来数。",
        ),
        like(
            lambda hidden_dim, bits, vocabulary: _number(hidden_dim * bits // vocabulary),
            "divided by the vocabulary: a word does not cost a bit for each entry, only as many bits as it takes to "
            "number the entries.",
            "除以了词表大小：一个词要用的比特数不是词表大小，而是给每个词编号所需的位数。",
        ),
        like(
            lambda hidden_dim, bits, vocabulary: _number(bits // math.log2(vocabulary)),
            "the bits of one number only: the state has hidden_dim of them.",
            "只算了一个数的比特：状态里有 hidden_dim 个数。",
        ),
        like(
            lambda hidden_dim, bits, vocabulary: _number(hidden_dim // math.log2(vocabulary)),
            "one bit for each number only: each of the hidden_dim numbers has `bits` of them.",
            "每个数只算了一个比特：hidden_dim 个数各有 bits 个比特。",
        ),
    ),
)


def _draw_additive(draw: Draw, case: int) -> dict[str, Any]:
    query_dim, key_dim, hidden = (4, 4, 3) if case == 0 else (draw.size(), draw.size(), draw.size())
    return {
        "query": draw.normal(query_dim),
        "keys": draw.normal(5 if case == 0 else draw.size(), key_dim),
        "W": draw.normal(hidden, query_dim),
        "U": draw.normal(hidden, key_dim),
        "v": draw.normal(hidden),
    }


def _additive(query: Tensor, keys: Tensor, W: Tensor, U: Tensor, v: Tensor) -> Tensor:
    """Number by number, as the sum is written."""
    hidden = [[math.tanh(float(W[unit] @ query) + float(U[unit] @ key)) for unit in range(len(v))] for key in keys]
    scores = [sum(a * b for a, b in zip(v.tolist(), row, strict=True)) for row in hidden]
    return torch.tensor(scores, dtype=torch.float64)


def _hidden(query: Tensor, keys: Tensor, W: Tensor, U: Tensor, v: Tensor) -> Tensor:
    return W @ query + keys @ U.T


ADDITIVE_SCORE = Exercise(
    equation="e[j] = v · tanh(W s + U h[j])",
    source=Text("Bahdanau et al. 2015, appendix A.1.2", "Bahdanau 等 2015，附录 A.1.2"),
    returns=Text("[key]: one score for each key", " [key]：每个键一个得分"),
    begin=Text(
        "Begin with W @ query, which all keys share, and look at its shape.",
        "先算 W @ query，它对所有键都一样；看看它的形状。",
    ),
    draw=_draw_additive,
    reference=_additive,
    diagnoses=(
        like(
            lambda *given: _hidden(*given) @ given[-1],
            "tanh is missing. Without it W s adds the same number to every key's score, and softmax would not notice "
            "which query asks.",
            "缺少 tanh。没有它，W s 给每个键的得分加上同一个数，softmax 就看不出是哪个查询在问。",
        ),
        like(
            lambda *given: (_hidden(*given) @ given[-1]).tanh(),
            "tanh comes too late: it belongs on the hidden units, before v sums them up.",
            "tanh 用得太晚：应作用在隐藏单元上，在用 v 求和之前。",
        ),
        like(
            lambda *given: _hidden(*given).sigmoid() @ given[-1],
            "a sigmoid where tanh belongs.",
            "用了 sigmoid；应是 tanh。",
        ),
        like(
            lambda *given: _hidden(*given).tanh(),
            "one number for each key and hidden unit: v is still to turn the units into one score.",
            "每个键、每个隐藏单元各有一个数：还要用 v 把各单元合成一个得分。",
        ),
        like(
            lambda *given: _hidden(*given).tanh().sum(dim=-1),
            "the hidden units are summed as they are: v says how much each of them counts.",
            "隐藏单元直接相加了：各单元的份量由 v 决定。",
        ),
        like(
            lambda query, keys, W, U, v: (keys @ U.T).tanh() @ v,
            "the query is missing: every query would get the same scores.",
            "缺少查询：这样每个查询的得分都一样。",
        ),
        like(
            lambda query, keys, W, U, v: ((W @ query) * (keys @ U.T)).tanh() @ v,
            "W s and U h are multiplied: this score is additive.",
            "W s 与 U h 相乘了：加性得分应把它们相加。",
        ),
        like(
            lambda query, keys, W, U, v: (U @ query + keys @ W.T).tanh() @ v if query.shape == keys[0].shape else None,
            "W and U have changed places: W is for the query, U for the keys.",
            "W 和 U 用反了：W 用于查询，U 用于键。",
        ),
        like(
            lambda query, keys, W, U, v: keys @ query if query.shape == keys[0].shape else None,
            "this is the product of query and key, Luong's dot score; here a small network compares them.",
            "这是查询与键的内积，即 Luong 的点积得分；这里要用一个小网络来比较它们。",
        ),
        like(
            lambda *given: _additive(*given).softmax(dim=0),
            "these are weights already: return the scores, softmax is the next exercise.",
            "这已经是权重了：应返回得分，softmax 是下一题。",
        ),
    ),
)


def _draw_scores(draw: Draw, case: int) -> dict[str, Any]:
    scores = draw.normal(*((4, 3) if case == 0 else (draw.size(), draw.size())))
    if case % 4 == 2:
        scores = 500 * scores
    if case % 4 == 3:
        # rows far below each other
        scores = scores - 2000 * torch.arange(len(scores))[:, None]
    return {"scores": scores}


def _sums_wrongly(wrong: Any, en: str, zh: str) -> Diagnosis:
    """As `like`, with the sum of the row that is furthest from 1."""

    def diagnose(attempt: Attempt) -> Text | None:
        return rows_sum(attempt, en, zh) if close(attempt.found, wrong(*attempt.inputs.values())) else None

    return diagnose


def _overflows(attempt: Attempt) -> Text | None:
    if bool(attempt.found.isfinite().all()):
        return None
    return Text(
        "scores up to {most:.0f} give {value}: exp of a large number is infinite, of a very negative one 0. Weights "
        "stay the same when one number is subtracted from every score of a row: which one keeps exp small?",
        "得分的绝对值到 {most:.0f} 时出现 {value}：很大的数取 exp 是无穷，很小的负数取 exp 是 0。"
        "一行的得分都减去同一个数，权重不变：减去哪个数能让 exp 不溢出？",
    ).format(most=float(attempt.inputs["scores"].abs().max()), value=float(attempt.found[~attempt.found.isfinite()][0]))


ATTENTION_WEIGHTS = Exercise(
    equation="α[i, j] = exp(e[i, j]) / Σₖ exp(e[i, k])",
    source=Text("Bahdanau et al. 2015, equation 6", "Bahdanau 等 2015，式 6"),
    returns=Text("[query, key]: rows that sum to 1", " [query, key]：每行之和为 1"),
    begin=Text("Begin with exp of every score.", "先对每个得分取 exp。"),
    draw=_draw_scores,
    reference=lambda scores: torch.nn.functional.softmax(scores, dim=-1),
    diagnoses=(
        _sums_wrongly(
            lambda scores: scores.softmax(dim=0),
            "your rows sum to {sum} (row {row}), your columns to 1: softmax goes over the keys, axis -1.",
            "第 {row} 行之和是 {sum}，各列之和才是 1：softmax 应沿键的方向，即 axis -1。",
        ),
        _sums_wrongly(
            lambda scores: scores.flatten().softmax(dim=0).view_as(scores),
            "the whole table sums to 1, row {row} to {sum}: each query shares out a weight of 1 of its own, so sum "
            "along axis -1.",
            "整个表之和是 1，第 {row} 行之和是 {sum}：每个查询各自分配总和为 1 的权重，应沿 axis -1 求和。",
        ),
        _sums_wrongly(
            lambda scores: scores.exp(),
            "row {row} sums to {sum}: divide each row by its own sum.",
            "第 {row} 行之和是 {sum}：每行要除以自己的和。",
        ),
        like(
            lambda scores: scores / scores.sum(dim=-1, keepdim=True),
            "exp is missing: scores can be negative, weights cannot.",
            "缺少 exp：得分可以为负，权重不能。",
        ),
        like(
            lambda scores: scores.log_softmax(dim=-1),
            "these are the logarithms of the weights: weights lie between 0 and 1.",
            "这是权重的对数：权重应在 0 到 1 之间。",
        ),
        like(
            lambda scores: (scores * math.log(2)).softmax(dim=-1),
            "powers of 2: softmax has powers of e, which is exp.",
            "用了 2 的幂：softmax 用 e 的幂，即 exp。",
        ),
        _overflows,
        lambda attempt: rows_sum(attempt, "row {row} sums to {sum}, not to 1.", "第 {row} 行之和是 {sum}，不是 1。"),
    ),
)


def _draw_weighted(draw: Draw, case: int) -> dict[str, Any]:
    queries, keys, dim = (4, 4, 3) if case == 0 else (draw.size(), draw.size(), draw.size())
    return {"weights": draw.weights(queries, keys), "values": draw.normal(keys, dim)}


CONTEXT_VECTOR = Exercise(
    equation="c[i] = Σⱼ α[i, j] h[j]",
    source=Text("Bahdanau et al. 2015, equation 5", "Bahdanau 等 2015，式 5"),
    returns=Text("[query, value_dim]: one context for each query", " [query, value_dim]：每个查询一个上下文"),
    begin=Text(
        "Begin with one query: weights[0] has a number for each row of values.",
        "先看一个查询：weights[0] 对 values 的每一行有一个数。",
    ),
    draw=_draw_weighted,
    reference=lambda weights, values: torch.einsum("qk,kd->qd", weights, values),
    diagnoses=(
        like(
            lambda weights, values: values.mean(dim=0).expand(len(weights), -1),
            "the plain mean of the values: the weights are missing, and every query gets the same.",
            "这是值的普通平均：没有用权重，每个查询得到的都一样。",
        ),
        like(
            lambda weights, values: values.sum(dim=0).expand(len(weights), -1),
            "the plain sum of the values: the weights are missing.",
            "这是值的普通求和：没有用权重。",
        ),
        like(
            lambda weights, values: values[weights.argmax(dim=-1)],
            "only the value of the largest weight: the search is soft, the others count as well.",
            "只取了权重最大的值：这是“软”搜索，其他值也要计入。",
        ),
        like(
            lambda weights, values: weights.T @ values if weights.shape[0] == weights.shape[1] else None,
            "the weights are transposed: row i of the weights belongs to query i, and its sum goes over the keys.",
            "权重转置了：第 i 行属于查询 i，求和沿着键的方向。",
        ),
        like(
            lambda weights, values: weights[:, :, None] * values,
            "weighted values, not yet summed: the sum goes over the keys.",
            "值已加权，但还没有求和：应沿键的方向求和。",
        ),
        like(
            lambda weights, values: weights @ values / len(values),
            "divided by the number of keys: the weights sum to 1 already.",
            "多除了键的个数：权重之和已经是 1。",
        ),
    ),
)
