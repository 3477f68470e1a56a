"""A walk through cross-attention in a terminal: a target asks, a source answers, every matrix shown.

Vaswani et al. 2017, "Attention is all you need", equation 1 and section 3.2.3. The source's example and the matrices
are those of walk.py, so that keys and values are those of its step 2, and only who asks is another.
"""

import torch
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from regard.view.matrix import Matrix
from regard.view.steps import EXAMPLE_TARGET, HEAD_DIM, SEED, Cross, Parameters, cross_step, draw_parameters, embed
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


def walk_across(texts: tuple[str, str] | None = None) -> RenderableType:
    """Cross-attention from the second text, the target, to the first, the source; at most 80 columns wide.

    Without texts: the textbook's sentence and its French translation.
    Raises RegardError for a text without words, with more than 32, or with one longer than 40 characters.
    """
    source, target = texts or (None, " ".join(EXAMPLE_TARGET))
    keys, source_inputs = embed(source, "source")
    tokens, target_inputs = embed(target, "target")
    with torch.no_grad():
        parameters = draw_parameters()
        step = cross_step(target_inputs, source_inputs, parameters)
    parts = [
        *_introduction(tokens, keys, target_inputs, source_inputs, is_example=texts is None),
        *_tell_projections(tokens, keys, parameters, step, is_example=texts is None),
        *_tell_scores(tokens, keys, step),
        *_tell_weights(tokens, keys, step),
        *_tell_context(tokens, step),
    ]
    return page(parts)


def _introduction(
    tokens: list[str], keys: list[str], target: Tensor, source: Tensor, *, is_example: bool
) -> list[RenderableType]:
    origin = (
        "The source's numbers are those of a textbook (Raschka 2024, chapter 3), the target's are drawn at random, the "
        if is_example
        else "The numbers are drawn at random, the "
    )
    return [
        title("Cross-attention in four steps"),
        Text(
            "A translator writes the target while it looks at the source. Each target token gives each source token a "
            "weight, and takes from each in proportion. What it has gathered is its context."
        ),
        Text(f"{origin}same for the same word. Nothing here is learned: follow the {FOLLOW}"),
        follow(tokens),
        Matrix(title="source: what the encoder made of each token", values=source, rows=keys, columns=dims(source)),
        vectors("target: the decoder's state at each token", target, tokens),
    ]


def _tell_projections(
    tokens: list[str], keys: list[str], parameters: Parameters, step: Cross, *, is_example: bool
) -> list[RenderableType]:
    query, key, value = (each[:, :HEAD_DIM] for each in parameters[:3])
    columns = [f"{name} {dim}" for name in ("key", "value") for dim in range(1, HEAD_DIM + 1)]
    asking = [f"query {dim}" for dim in range(1, HEAD_DIM + 1)]
    same = " The keys and values below are those of step 2 of `regard attention`." if is_example else ""
    return [
        heading(1, "the target asks, the source answers", "CrossAttention"),
        Text(
            "In self-attention one sentence gives query, key and value. Here each target token gives a query (what it "
            "looks for), each source token a key (what it is found by) and a value (what it hands over). Nothing else "
            f"differs. Training changes the three matrices; here they are random, from seed {SEED}.{same}"
        ),
        Matrix(title="W_query", values=query, rows=dims(query.T), columns=asking),
        Matrix(
            title="query = target · W_query", values=step.query, rows=tokens, columns=asking, marked=followed(tokens)
        ),
        Matrix(
            title="W_key │ W_value",
            values=torch.cat([key, value], dim=1),
            rows=dims(key.T),
            columns=columns,
            group=HEAD_DIM,
        ),
        Matrix(
            title="key │ value: the source times each of these",
            values=torch.cat([step.key, step.value], dim=1),
            rows=keys,
            columns=columns,
            group=HEAD_DIM,
        ),
    ]


def _tell_scores(tokens: list[str], keys: list[str], step: Cross) -> list[RenderableType]:
    row, other = followed(tokens), followed(keys)
    return [
        heading(2, "scores", "query · keyᵀ / √d"),
        Text(
            "A row for each target token, a column for each source token: the two sentences may have any length. A "
            "score says how well what a target token looks for fits what a source token is found by."
        ),
        pairs("scores = query · keyᵀ", step.scores, tokens, keys),
        by_hand(
            f"score({names(tokens[row], keys[other])})",
            [f"{one:.4f}·{two:.4f}" for one, two in zipped(step.query[row], step.key[other])],
            step.scores[row, other],
        ),
        Text(f"Products grow with the head's size, so scores are divided by its root, here √{HEAD_DIM}."),
        pairs(f"scaled scores = scores / √{HEAD_DIM}", step.scaled, tokens, keys),
    ]


def _tell_weights(tokens: list[str], keys: list[str], step: Cross) -> list[RenderableType]:
    row, other = followed(tokens), followed(keys)
    return [
        heading(3, "weights", "softmax"),
        Text(
            "Softmax turns each row into weights that sum to 1. No mask: all of the source is there before the first "
            "target token is written. This table is what is drawn as the alignment of a translation."
        ),
        pairs("weights = softmax(scaled scores), row by row", step.weights, tokens, keys, shaded=True),
        softmax_by_hand(names(tokens[row], keys[other]), step.scaled[row], other, step.weights[row, other]),
    ]


def _tell_context(tokens: list[str], step: Cross) -> list[RenderableType]:
    row = followed(tokens)
    return [
        heading(4, "context", "weights · value"),
        Text("Each target token gets the sum of the source's values, each times its weight."),
        vectors("context = weights · value", step.context, tokens),
        by_hand(
            f"context({names(tokens[row])}), dim 1",
            [f"{weight:.4f}·{value:.4f}" for weight, value in zipped(step.weights[row], step.value[:, 0])],
            step.context[row, 0],
        ),
        Text(
            "A Transformer has several such heads in every layer of its decoder. Bahdanau, Cho and Bengio (2015) "
            "scored by v · tanh(W query + U key), with the decoder's state as query and the encoder's states as keys "
            "and values. `regard demo` trains both, and `regard read RUN --source TEXT` shows their learned weights."
        ),
    ]
