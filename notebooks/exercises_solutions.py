"""Solutions of exercises.ipynb, one function for each. Try first; then compare. Yours may be written otherwise.

exercises.zh.ipynb 的答案，每题一个函数。先自己做，再来对照；写法可以不同。
"""

import math

import torch


def longest_source(hidden_dim, bits, vocabulary):
    # vocabulary^n ≤ 2^(hidden_dim · bits), and the logarithm to base 2 of both sides
    return math.floor(hidden_dim * bits / math.log2(vocabulary))


def additive_score(query, keys, W, U, v):
    # W @ query is one vector, added to the row of every key
    return torch.tanh(W @ query + keys @ U.T) @ v


def attention_weights(scores):
    # the largest score of each row is subtracted: the weights stay the same, and exp never overflows
    powers = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(dim=-1, keepdim=True)


def context_vector(weights, values):
    # a matrix product: row i sums the values, each times weights[i, j]
    return weights @ values


def scaled_scores(query, key):
    return query @ key.T / math.sqrt(query.shape[-1])


def causal_weights(scores):
    visible = torch.ones(scores.shape, dtype=torch.bool).tril()
    return scores.masked_fill(~visible, -math.inf).softmax(dim=-1)


def merge_heads(heads, W_out):
    # [head, query, head_dim] → [query, head, head_dim] → [query, head · head_dim]
    return heads.transpose(0, 1).flatten(start_dim=1) @ W_out


def cross_attention(target, source, W_query, W_key, W_value):
    query, key, value = target @ W_query, source @ W_key, source @ W_value
    return attention_weights(scaled_scores(query, key)) @ value


def rotary(x, base):
    length, dim = x.shape
    rates = base ** (-torch.arange(0, dim, 2, dtype=x.dtype) / dim)
    angles = torch.arange(length, dtype=x.dtype)[:, None] * rates  # [position, dim / 2]
    first, second = x[:, 0::2], x[:, 1::2]
    turned = torch.empty_like(x)
    turned[:, 0::2] = first * angles.cos() - second * angles.sin()
    turned[:, 1::2] = first * angles.sin() + second * angles.cos()
    return turned


def induction_score(weights, period):
    # the token of query t was at t − period; what came next there is at t − period + 1
    queries = torch.arange(period, 2 * period)
    return weights[:, :, queries, queries - period + 1].mean(dim=-1)
