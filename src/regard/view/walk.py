"""A walk through the four steps of self-attention in a terminal: each idea, its formula, its matrices.

The steps and their six-token example follow Raschka 2024, "Build a large language model (from scratch)",
chapter 3.
"""

import torch
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from regard.view.matrix import Matrix
from regard.view.steps import (
    DROPOUT,
    HEAD_DIM,
    SEED,
    Causal,
    MultiHead,
    Parameters,
    Simple,
    Trainable,
    causal_step,
    draw_parameters,
    embed,
    multi_head_step,
    simple_step,
    trainable_step,
)
from regard.view.walk_parts import (
    FOLLOW,
    by_hand,
    dims,
    follow,
    followed,
    heading,
    names,
    page,
    pairs,
    softmax_by_hand,
    title,
    vectors,
    zipped,
)


def walk_through(text: str | None = None) -> RenderableType:
    """The four steps over the words of `text`, or over the textbook's six; at most 80 columns wide.

    Raises RegardError for a text without words, with more than 32, or with one longer than 40 characters.
    """
    tokens, inputs = embed(text)
    parts = _introduction(tokens, inputs, is_random=text is not None)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        parameters = draw_parameters()
        trainable = trainable_step(inputs, parameters)
        parts += _tell_simple(tokens, inputs, simple_step(inputs))
        parts += _tell_trainable(tokens, parameters, trainable)
        parts += _tell_causal(tokens, trainable, causal_step(inputs, parameters))
        parts += _tell_multi_head(tokens, parameters, multi_head_step(inputs, parameters))
    return page(parts)


def _introduction(tokens: list[str], inputs: Tensor, *, is_random: bool) -> list[RenderableType]:
    origin = (
        "The embeddings are drawn at random, the same for the same word."
        if is_random
        else "The numbers are those of a textbook (Raschka 2024, chapter 3)."
    )
    return [
        title("Self-attention in four steps"),
        Text(
            "Each token looks at the tokens of its own sentence, gives each of them a weight, and takes from each in "
            "proportion. What it has gathered is its context."
        ),
        Text(f"{origin} Nothing here is learned: follow the {FOLLOW}"),
        follow(tokens),
        vectors("inputs: the embedding of each token", inputs, tokens),
    ]


def _tell_simple(tokens: list[str], inputs: Tensor, step: Simple) -> list[RenderableType]:
    row, other = followed(tokens), min(2, len(tokens) - 1)
    return [
        heading(1, "simple self-attention", "simple_self_attention"),
        Text(
            "Two tokens whose embeddings point the same way have a large product: their score. Softmax turns a row of "
            "scores into weights that sum to 1. The context is the sum of all inputs, each times its weight."
        ),
        pairs("scores = inputs · inputsᵀ", step.scores, tokens),
        by_hand(
            f"score({names(tokens[row], tokens[other])})",
            [f"{one:g}·{two:g}" for one, two in zipped(inputs[row], inputs[other])],
            step.scores[row, other],
        ),
        pairs("weights = softmax(scores), row by row", step.weights, tokens, shaded=True),
        softmax_by_hand(names(tokens[row], tokens[other]), step.scores[row], other, step.weights[row, other]),
        vectors("context = weights · inputs", step.context, tokens),
        by_hand(
            f"context({names(tokens[row])}), dim 1",
            [f"{weight:.4f}·{value:g}" for weight, value in zipped(step.weights[row], inputs[:, 0])],
            step.context[row, 0],
        ),
    ]


def _tell_trainable(tokens: list[str], parameters: Parameters, step: Trainable) -> list[RenderableType]:
    row, other = followed(tokens), min(2, len(tokens) - 1)
    return [
        heading(2, "trainable queries, keys and values", "SelfAttention"),
        Text(
            "Three matrices turn each token into a query (what it looks for), a key (what it is found by) and a value "
            f"(what it hands over). Training changes these matrices; here they are random, from seed {SEED}."
        ),
        *_projections(tokens, 1, parameters, step.query, step.key, step.value),
        pairs("scores = query · keyᵀ", step.scores, tokens),
        by_hand(
            f"score({names(tokens[row], tokens[other])})",
            [f"{one:.4f}·{two:.4f}" for one, two in zipped(step.query[row], step.key[other])],
            step.scores[row, other],
        ),
        Text(
            "The longer queries and keys are, the larger their products, and softmax would give one token nearly all "
            f"the weight. So scores are divided by the root of the head's size, here √{HEAD_DIM}."
        ),
        pairs(f"scaled scores = scores / √{HEAD_DIM}", step.scaled, tokens),
        pairs("weights = softmax(scaled scores)", step.weights, tokens, shaded=True),
        vectors("context = weights · value", step.context, tokens),
        by_hand(
            f"context({names(tokens[row])}), dim 1",
            [f"{weight:.4f}·{value:.4f}" for weight, value in zipped(step.weights[row], step.value[:, 0])],
            step.context[row, 0],
        ),
    ]


def _tell_causal(tokens: list[str], before: Trainable, step: Causal) -> list[RenderableType]:
    row, dropped = followed(tokens), (step.dropped == 0) & (step.weights > 0)
    return [
        heading(3, "causal attention, and dropout", "CausalSelfAttention"),
        Text(
            "A model that writes one token after another cannot look at tokens not yet written. So the scores of later "
            "tokens become −∞ before softmax, and since e^−∞ = 0 they get no weight."
        ),
        pairs("weights before, as in step 2: every token is visible", before.weights, tokens, shaded=True),
        pairs("masked scores: scaled scores, later tokens hidden", step.masked, tokens),
        pairs("weights after = softmax(masked scores)", step.weights, tokens, shaded=True),
        softmax_by_hand(names(tokens[row], tokens[0]), step.masked[row], 0, step.weights[row, 0]),
        Text("Each row sums to 1 again: the visible tokens share what the hidden ones gave up."),
        vectors("context = weights · value", step.context, tokens),
        Text(
            f"In training only, dropout puts weights to zero at random (here {DROPOUT:.0%} of them, often 10%) and "
            f"multiplies the others by 1 / (1 − {DROPOUT}) = {1 / (1 - DROPOUT):g} to make up for it, so that no token "
            "comes to rely on a single other one."
        ),
        pairs("weights after dropout", step.dropped, tokens, shaded=True, dropped=dropped),
        vectors("context in training = weights after dropout · value", step.training_context, tokens),
    ]


def _tell_multi_head(tokens: list[str], parameters: Parameters, step: MultiHead) -> list[RenderableType]:
    second = (each[:, HEAD_DIM:] for each in (step.query, step.key, step.value))
    inside = [f"head {head} dim {dim}" for head in (1, 2) for dim in range(1, HEAD_DIM + 1)]
    return [
        heading(4, "several heads", "MultiHeadSelfAttention"),
        Text(
            "One head is one way to look. Several heads, each with query, key and value matrices of its own, look at "
            "different things at once. Head 1 is that of step 3; head 2 is new:"
        ),
        *_projections(tokens, 2, parameters, *second),
        *(
            pairs(f"weights of head {head}", weights, tokens, shaded=True)
            for head, weights in enumerate(step.weights, start=1)
        ),
        Text("The contexts of the heads are joined side by side, and one more matrix mixes them into the output."),
        vectors("joined = context of head 1 │ context of head 2", step.joined, tokens, group=HEAD_DIM),
        Matrix(title="W_out", values=parameters.out, rows=inside, columns=dims(parameters.out)),
        vectors("output = joined · W_out", step.output, tokens),
        Text("The output has the shape of the inputs, so such layers can be stacked: the heart of every GPT."),
    ]


def _projections(
    tokens: list[str], head: int, parameters: Parameters, query: Tensor, key: Tensor, value: Tensor
) -> list[RenderableType]:
    part = slice((head - 1) * HEAD_DIM, head * HEAD_DIM)
    matrices = torch.cat([parameters.query[:, part], parameters.key[:, part], parameters.value[:, part]], dim=1)
    columns = [f"{name} {dim}" for name in ("query", "key", "value") for dim in range(1, HEAD_DIM + 1)]
    return [
        Matrix(
            title="W_query │ W_key │ W_value", values=matrices, rows=dims(matrices.T), columns=columns, group=HEAD_DIM
        ),
        Matrix(
            title="query │ key │ value: the inputs times each of these",
            values=torch.cat([query, key, value], dim=1),
            rows=tokens,
            columns=columns,
            marked=followed(tokens),
            group=HEAD_DIM,
        ),
    ]
