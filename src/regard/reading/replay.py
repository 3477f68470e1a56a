"""Reading by replay: the model runs once more, teacher-forced, over source and target, and is read there.

How the target was found (beams, batches, another program) cannot touch what is read.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from regard.data.batch import BOS, EOS, SPECIAL_TOKENS, collate
from regard.data.tokenizer import Token, Tokenizer
from regard.errors import RegardError
from regard.reading import reading as records
from regard.reading.verify import check, complaint


@torch.inference_mode()
def replay(
    module: nn.Module,
    tokenizer: Tokenizer,
    source: str,
    target: list[int],
    *,
    model: str,
    max_length: int,
    device: torch.device | str = "cpu",
) -> records.Reading:
    """The reading of one translation, whose target is given as ids without special tokens.

    Raises RegardError for a model without attention, an empty source and one that is too long.
    """
    if not source.strip():
        raise RegardError("the source is empty; there is nothing to read")
    source_ids = tokenizer.encode(source)
    for name, length in (("source", len(source_ids) + 1), ("target", len(target) + 1)):
        if length > max_length:
            raise RegardError(f"the {name} has {length} tokens, the model takes at most {max_length}; shorten it")
    output = module(collate([source_ids], [target]).to(device), read=True)
    if not output.attention:
        raise RegardError(
            f"{model} has no attention to read: its decoder sees the source only as one hidden state, the encoder's "
            "last; train a model with attention, such as numbers-bahdanau"
        )
    target_text = tokenizer.decode(target)
    maps, checks, refused = {}, {}, {}
    for map in output.attention:
        key = (map.kind, map.layer)
        checks[key] = check(map)
        if (why := complaint(checks[key], map.weights.dtype)) is not None:
            refused[key] = why
        else:
            maps[key] = map.weights[0].float().cpu().numpy()
    return records.Reading(
        model=model,
        sequences={
            "source": _sequence(source, tokenizer.tokens(source), tokenizer.text_word_indices(source), begins=False),
            "target": _sequence(
                target_text, tokenizer.decode_tokens(target), tokenizer.word_indices(target), begins=True
            ),
        },
        maps=maps,
        checks=checks,
        refused=refused,
    )


def alignments(
    module: nn.Module,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    targets: Sequence[list[int]],
    *,
    layer: int = -1,
    head: int | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Iterator[Float[np.ndarray, "target source"]]:
    """The word alignment of each text and its translation's ids, as `Reading.alignment` gives it, many at a time."""
    for start in range(0, len(sources), batch_size):
        rows = slice(start, start + batch_size)
        encoded = tokenizer.encode_batch(sources[rows])
        with torch.inference_mode():
            output = module(collate(encoded, targets[rows]).to(device), read=True)
        maps = [map for map in output.attention if map.kind == "cross"]
        if not maps:
            raise RegardError("this model has no attention, so it has no alignments; train one with attention")
        if not -len(maps) <= layer < len(maps):
            raise RegardError(f"there is no cross layer {layer}; there are layers 0 to {len(maps) - 1}")
        weights = maps[layer].weights
        if (why := complaint(check(maps[layer]), weights.dtype)) is not None:
            raise RegardError(f"cross layer {maps[layer].layer} was refused: {why}")
        if head is not None and not 0 <= head < weights.shape[1]:
            raise RegardError(f"there is no head {head}; the layer has heads 0 to {weights.shape[1] - 1}")
        tables = (weights.mean(dim=1) if head is None else weights[:, head]).float().cpu().numpy()
        for table, source, target in zip(tables, sources[rows], targets[rows], strict=True):
            source_words, source_of = tokenizer.text_word_indices(source)
            target_words, target_of = tokenizer.word_indices(target)
            yield records.word_alignment(
                table[: len(target), : len(source_of)],
                target_words=target_of,
                source_words=source_of,
                shape=(len(target_words), len(source_words)),
            )


def pharaoh(alignment: Float[np.ndarray, "target source"]) -> str:
    """`i-j` for each target word j with any weight and the source word i with most; of equal ones the first."""
    return " ".join(f"{row.argmax()}-{target}" for target, row in enumerate(alignment) if row.any())


def _sequence(
    text: str, pieces: list[Token], words_and_indices: tuple[list[str], list[list[int]]], *, begins: bool
) -> records.Sequence:
    words, words_of = words_and_indices
    tokens = [
        records.Token(id=token.id, text=token.text, start=token.start, end=token.end, words=own)
        for token, own in zip(pieces, words_of, strict=True)
    ]
    if begins:
        tokens.insert(0, records.Token(id=BOS, text=SPECIAL_TOKENS[BOS], start=0, end=0, words=[]))
    tokens.append(records.Token(id=EOS, text=SPECIAL_TOKENS[EOS], start=len(text), end=len(text), words=[]))
    return records.Sequence(text=text, tokens=tokens, words=words)
