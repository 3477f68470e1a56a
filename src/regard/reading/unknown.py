"""Words that a model does not know, copied from the source where attention says.

Luong, Sutskever, Le, Vinyals and Zaremba 2015, "Addressing the rare word problem in neural machine translation",
section 3, with attention in place of their alignment symbols, as in Luong, Pham and Manning 2015.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from regard.data.batch import UNKNOWN
from regard.data.pair_tokenizer import UNKNOWN_TEXT, PairTokenizer
from regard.reading.replay import Words, cross_attention


def replace_unknown(
    module: nn.Module,
    tokenizer: PairTokenizer,
    sources: Sequence[str],
    targets: Sequence[list[int]],
    *,
    guided: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[str]:
    """The text of each translation, given as ids, with a source word in place of each unknown word.

    It is the one that the row that wrote the unknown word looked at most, by the last layer's mean over heads, of the
    source words that are themselves unknown; of all words where the model knows the whole source. Words are those of
    the tokenizer, to which a comma is one too. `guided` as in `cross_attention`.
    Raises RegardError for a model without attention.
    """
    pairs = [
        (_each_a_word(tokenizer.encode(source)), _each_a_word(target))
        for source, target in zip(sources, targets, strict=True)
    ]
    tables = cross_attention(module, pairs, layer=-1, guided=guided, device=device)
    for source, target, (table,) in zip(sources, targets, (found.values() for found in tables), strict=True):
        tokens = tokenizer.tokens(source)
        words = [source[token.start : token.end].strip() for token in tokens]
        # what the vocabulary has not, in either language, is most often a name or a number; space is nothing to copy
        unknown = [token.id == UNKNOWN for token in tokens]
        copyable = unknown if any(unknown) else [bool(word) for word in words]
        looked_at = np.where(copyable, table.mean(axis=0), -1).argmax(axis=1)
        text = tokenizer.decode(target)
        # from the end, so that what is still to be replaced stays where it is
        for position, token in reversed([*enumerate(tokenizer.decode_tokens(target))]):
            if token.id == UNKNOWN:
                copied = text[token.start : token.end].replace(UNKNOWN_TEXT.strip(), words[looked_at[position]])
                text = text[: token.start] + copied + text[token.end :]
        yield text


def _each_a_word(ids: list[int]) -> Words:
    return Words(ids, [[position] for position in range(len(ids))], len(ids))
