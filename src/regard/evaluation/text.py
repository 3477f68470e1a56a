"""How well a model knows a text, in units that do not depend on its tokens."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from regard.data.conversations import Conversations
from regard.data.packed import Facts, PackedText
from regard.evaluation.likelihood import likelihood

# code points of Unicode
CHARACTERS = 0x110000


@dataclass(frozen=True)
class TextQuality:
    """Of a text: bits per byte (UTF-8), loss in nats per token, and how many tokens, bytes and documents there are.

    Every token has part in it, the end of each document too; of conversations the tokens and bytes of the answers.
    `unknown` characters have cost what tells them apart.
    """

    bits_per_byte: float
    loss: float
    tokens: int
    bytes: int
    documents: int
    unknown: int

    @property
    def perplexity(self) -> float:
        """Per token, so that models of other tokens cannot be compared by it."""
        return math.exp(self.loss)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "perplexity": self.perplexity}


def bits_per_byte(loss: float, tokens: int, facts: Facts) -> float:
    """The bits that a text takes when the model encodes it, over its bytes.

    A character that the vocabulary has not is encoded as unknown, and then as any of Unicode's.
    """
    return (loss * tokens / math.log(2) + facts.unknown * math.log2(CHARACTERS)) / facts.bytes


def evaluate_text(
    model: nn.Module, text: PackedText | Conversations, *, device: torch.device | str = "cpu"
) -> TextQuality:
    """Each token is predicted once, from those before it in its conversation or window; windows stand side by side."""
    loss, tokens = likelihood(model, text, device=device).loss, text.num_labels
    return TextQuality(
        bits_per_byte=bits_per_byte(loss, tokens, text.facts), loss=loss, tokens=tokens, **text.facts._asdict()
    )
