"""Words that a model does not know, copied from the source where attention says.

Luong, Sutskever, Le, Vinyals and Zaremba 2015, "Addressing the rare word problem in neural machine translation",
section 3, with attention in place of their alignment symbols, as in Luong, Pham and Manning 2015.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from regard.data.batch import UNKNOWN
from regard.data.tokenizer import UNKNOWN_TEXT, Tokenizer
from regard.reading.replay import Words, cross_attention


def replace_unknown(
    module: nn.Module,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    targets: Sequence[list[int]],
    *,
    device: torch.device | str = "cpu",
) -> Iterator[str]:
    """The text of each translation, given as ids, where for an unknown word stands the source word it looked at most.

    That is by the last layer's mean over heads, in the row that wrote it. Words are those of the tokenizer, to which a
    comma is one too.
    Raises RegardError for a model without attention.
    """
    pairs = [
        (_each_a_word(tokenizer.encode(source)), _each_a_word(target))
        for source, target in zip(sources, targets, strict=True)
    ]
    tables = cross_attention(module, pairs, layer=-1, device=device)
    for source, target, (table,) in zip(sources, targets, (found.values() for found in tables), strict=True):
        words = [source[token.start : token.end].strip() for token in tokenizer.tokens(source)]
        # space between words is nothing to copy
        looked_at = np.where([bool(word) for word in words], table.mean(axis=0), -1).argmax(axis=1)
        text = tokenizer.decode(target)
        # from the end, so that what is still to be replaced stays where it is
        for position, token in reversed([*enumerate(tokenizer.decode_tokens(target))]):
            if token.id == UNKNOWN:
                copied = text[token.start : token.end].replace(UNKNOWN_TEXT.strip(), words[looked_at[position]])
                text = text[: token.start] + copied + text[token.end :]
        yield text


def _each_a_word(ids: list[int]) -> Words:
    return Words(ids, [[position] for position in range(len(ids))], len(ids))
