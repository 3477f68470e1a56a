"""What attention gives back, in a mechanism and in a whole model."""

from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

Kind = Literal["encoder", "decoder", "cross"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")


class AttentionOutput(NamedTuple):
    """The context (weights times values) and, where asked for, the weights themselves."""

    context: Float[Tensor, "*batch query value_dim"]
    weights: Float[Tensor, "*batch query key"] | None


class AttentionMap(NamedTuple):
    """One layer's attention with what proves it: weights times value is the context that the model used."""

    kind: Kind
    layer: int
    weights: Float[Tensor, "batch head query key"]
    value: Float[Tensor, "batch head key value_dim"]
    context: Float[Tensor, "batch head query value_dim"]


class ModelOutput(NamedTuple):
    """Logits of every step; `attention` is empty where nobody asked for it."""

    logits: Float[Tensor, "batch step vocabulary"]
    attention: list[AttentionMap]
