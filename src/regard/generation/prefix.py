"""Text that a translation is made to begin with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.data.batch import pad
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError


@dataclass(frozen=True)
class Prefix:
    """Tokens to begin with, in place of the last of which any of `endings` may stand, itself among them."""

    tokens: list[int]
    endings: list[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str, *, name: str) -> "Prefix":
        """The tokens of a text. Only its end is open: for the last token a longer one that begins with it may stand.

        The translation's text thus begins with the prefix, to the letter, while a word that the prefix breaks off may
        still be written in the model's own tokens. Raises RegardError if the tokenizer cannot spell the text.
        """
        tokens = tokenizer.encode(text)
        if tokenizer.decode(tokens) != text:
            raise RegardError(
                f"{name}: the model cannot begin with {text!r}, only with {tokenizer.decode(tokens)!r}; "
                "use words that it knows, or a model with a bpe tokenizer"
            )
        return cls(tokens=tokens, endings=tokenizer.continuations(tokens[-1]) if tokens else [])


@final
class PrefixMask:
    """Which tokens the prefixes of a batch leave open at each step."""

    def __init__(self, prefixes: Sequence[Prefix], *, device: torch.device) -> None:
        self._tokens, self._lengths = (part.to(device) for part in pad([prefix.tokens for prefix in prefixes]))
        self._endings = [prefix.endings for prefix in prefixes]
        self.longest = self._tokens.shape[1]
        # for so many steps no sentence has a choice
        self.forced = min(len(prefix.tokens) for prefix in prefixes) - 1

    def open(self, sentences: Int[Tensor, " row"], *, step: int, vocab_size: int) -> Bool[Tensor, "row vocabulary"]:
        """What each of these sentences of the batch may write at this step, which the longest prefix still covers."""
        left = self._lengths[sentences] - step
        mask = (left <= 0)[:, None].expand(-1, vocab_size).clone()
        mask[left > 1, self._tokens[sentences[left > 1], step]] = True
        for row in (left == 1).nonzero().flatten().tolist():
            mask[row, self._endings[int(sentences[row])]] = True
        return mask
