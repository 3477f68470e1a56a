"""The four steps of self-attention, and cross-attention, with every matrix on the way, and what they start from.

The example is that of Raschka 2024, "Build a large language model (from scratch)", chapter 3. Weights and contexts
are what attention/self_attention.py and cross_attention.py give; scores and projections are recomputed.
"""

import hashlib
import math
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.attention.cross_attention import CrossAttention
from regard.attention.masks import causal_mask
from regard.attention.self_attention import (
    CausalSelfAttention,
    MultiHeadSelfAttention,
    SelfAttention,
    simple_self_attention,
)
from regard.data.words import split_words
from regard.errors import RegardError

Module = TypeVar("Module", bound=nn.Module)

HEAD_DIM = 2
SEED = 123
DROPOUT = 0.5
# leaves every token of the example something to look at
DROPOUT_SEED = 75
MOST_TOKENS = 32
LONGEST_TOKEN = 40

EXAMPLE = ["Your", "journey", "starts", "with", "one", "step"]
# the example in French, for cross-attention: a word more than the source
EXAMPLE_TARGET = ["Votre", "voyage", "commence", "par", "un", "seul", "pas"]
EXAMPLE_INPUTS = [
    [0.43, 0.15, 0.89],
    [0.55, 0.87, 0.66],
    [0.57, 0.85, 0.64],
    [0.22, 0.58, 0.33],
    [0.77, 0.25, 0.10],
    [0.05, 0.80, 0.55],
]


class Parameters(NamedTuple):
    """What training would learn. Here the numbers are drawn at random; the first head's are the textbook's."""

    query: Float[Tensor, "dim heads_dim"]
    key: Float[Tensor, "dim heads_dim"]
    value: Float[Tensor, "dim heads_dim"]
    out: Float[Tensor, "heads_dim dim"]


class Simple(NamedTuple):
    """Step 1, in the order in which it is computed."""

    scores: Float[Tensor, "query key"]
    weights: Float[Tensor, "query key"]
    context: Float[Tensor, "query dim"]


class Trainable(NamedTuple):
    """Step 2, in the order in which it is computed."""

    query: Float[Tensor, "position head_dim"]
    key: Float[Tensor, "position head_dim"]
    value: Float[Tensor, "position head_dim"]
    scores: Float[Tensor, "query key"]
    scaled: Float[Tensor, "query key"]
    weights: Float[Tensor, "query key"]
    context: Float[Tensor, "query head_dim"]


class Causal(NamedTuple):
    """Step 3, in the order in which it is computed; the last two are in training only."""

    masked: Float[Tensor, "query key"]
    weights: Float[Tensor, "query key"]
    context: Float[Tensor, "query head_dim"]
    dropped: Float[Tensor, "query key"]
    training_context: Float[Tensor, "query head_dim"]


class MultiHead(NamedTuple):
    """Step 4, in the order in which it is computed."""

    query: Float[Tensor, "position heads_dim"]
    key: Float[Tensor, "position heads_dim"]
    value: Float[Tensor, "position heads_dim"]
    weights: Float[Tensor, "head query key"]
    joined: Float[Tensor, "query heads_dim"]
    output: Float[Tensor, "query dim"]


class Cross(NamedTuple):
    """Cross-attention, in the order in which it is computed."""

    query: Float[Tensor, "target head_dim"]
    key: Float[Tensor, "source head_dim"]
    value: Float[Tensor, "source head_dim"]
    scores: Float[Tensor, "target source"]
    scaled: Float[Tensor, "target source"]
    weights: Float[Tensor, "target source"]
    context: Float[Tensor, "target head_dim"]


def embed(text: str | None, what: str = "text") -> tuple[list[str], Float[Tensor, "position dim"]]:
    """Tokens of a text and their embeddings, drawn at random; without a text the textbook's six.

    Raises RegardError for a text without words, with more than 32, or with one longer than 40 characters.
    """
    if text is None:
        return EXAMPLE, torch.tensor(EXAMPLE_INPUTS)
    tokens = split_tokens(text, what)
    return tokens, torch.stack([random_embedding(token) for token in tokens])


def draw_parameters() -> Parameters:
    """Query, key and value of head 1 as in the textbook, then those of head 2 and the output projection."""
    source = torch.Generator().manual_seed(SEED)
    first = [torch.rand(3, HEAD_DIM, generator=source) for _ in range(3)]
    # from a normal distribution, so that the second head scores unlike the first
    second = [torch.randn(3, HEAD_DIM, generator=source) for _ in range(3)]
    out = torch.randn(2 * HEAD_DIM, 3, generator=source)
    query, key, value = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    return Parameters(query, key, value, out)


def simple_step(inputs: Float[Tensor, "position dim"]) -> Simple:
    """Step 1 with its scores."""
    context, weights = simple_self_attention(inputs)
    assert weights is not None
    return Simple(scores=inputs @ inputs.T, weights=weights, context=context)


def trainable_step(inputs: Float[Tensor, "position dim"], parameters: Parameters) -> Trainable:
    """Step 2 with its queries, keys, values and scores."""
    module = _first_head(SelfAttention(inputs.shape[1], HEAD_DIM), parameters)
    query, key, value = module.query_proj(inputs), module.key_proj(inputs), module.value_proj(inputs)
    scores = query @ key.T
    context, weights = module(inputs)
    return Trainable(query, key, value, scores, scores / math.sqrt(HEAD_DIM), weights, context)


def causal_step(inputs: Float[Tensor, "position dim"], parameters: Parameters) -> Causal:
    """Step 3 with its masked scores, once as it runs and once as it trains."""
    module = _first_head(CausalSelfAttention(inputs.shape[1], HEAD_DIM, dropout=DROPOUT), parameters)
    scaled = trainable_step(inputs, parameters).scaled
    masked = scaled.masked_fill(~causal_mask(len(inputs)), -torch.inf)
    context, weights = module.eval()(inputs)
    # the same seed before each draw, so that the weights shown are those that made the context
    torch.manual_seed(DROPOUT_SEED)
    training_context = module.train()(inputs).context
    torch.manual_seed(DROPOUT_SEED)
    return Causal(masked, weights, context, module.dropout(weights), training_context)


def multi_head_step(inputs: Float[Tensor, "position dim"], parameters: Parameters) -> MultiHead:
    """Step 4 with its queries, keys and values and its heads before they are joined."""
    module = MultiHeadSelfAttention(inputs.shape[1], 2, head_dim=HEAD_DIM)
    module.load_state_dict({f"{name}_proj.weight": matrix.T for name, matrix in parameters._asdict().items()})
    query, key, value = module.query_proj(inputs), module.key_proj(inputs), module.value_proj(inputs)
    output, weights = module(inputs)
    joined = torch.cat([each @ part for each, part in zip(weights, value.split(HEAD_DIM, dim=1), strict=True)], dim=1)
    return MultiHead(query, key, value, weights, joined, output)


def cross_step(
    target: Float[Tensor, "target dim"], source: Float[Tensor, "source dim"], parameters: Parameters
) -> Cross:
    """Cross-attention by the matrices of step 2, with its queries, keys, values and scores."""
    module = _first_head(CrossAttention(source.shape[1], HEAD_DIM), parameters)
    query, key, value = module.query_proj(target), module.key_proj(source), module.value_proj(source)
    scores = query @ key.T
    context, weights = module(target, source)
    return Cross(query, key, value, scores, scores / math.sqrt(HEAD_DIM), weights, context)


def _first_head(module: Module, parameters: Parameters) -> Module:
    first = {name: getattr(parameters, name)[:, :HEAD_DIM] for name in ("query", "key", "value")}
    module.load_state_dict({f"{name}_proj.weight": matrix.T for name, matrix in first.items()})
    return module


def split_tokens(text: str, what: str = "text") -> list[str]:
    """Words between spaces; Chinese and Japanese characters one by one. Refuses what no table can hold."""
    tokens = split_words(text)
    if not tokens:
        example = "'the cat sat down'" if what == "text" else "--cross 'the cat sat' 'le chat était assis'"
        raise RegardError(f"the {what} has no words; give some, for instance: regard attention {example}")
    if len(tokens) > MOST_TOKENS:
        raise RegardError(
            f"the {what} has {len(tokens)} tokens, and tables of more than {MOST_TOKENS} can no longer be read; "
            f"give a shorter {what}"
        )
    of = "" if what == "text" else f" of the {what}"
    for position, token in enumerate(tokens, 1):
        if len(token) > LONGEST_TOKEN:
            raise RegardError(
                f"token {position}{of} has {len(token)} characters, and a table's label at most {LONGEST_TOKEN}; "
                "shorten it or put spaces in it"
            )
    return tokens


def random_embedding(token: str) -> Float[Tensor, " dim"]:
    """Three numbers between 0 and 1, the same for the same word on every machine."""
    digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
    source = torch.Generator().manual_seed(int.from_bytes(digest[:4]))
    return torch.rand(3, generator=source).mul(100).round() / 100
