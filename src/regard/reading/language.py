"""Reading a transformers model by replay: it writes by its fastest path, then runs once over all of it, watched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regard.data.words import word_spans
from regard.errors import RegardError
from regard.generation.result import Generation
from regard.reading.effects import Effects
from regard.reading.labels import Label, placed, sequence
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.record import Sequence as Tokens
from regard.reading.replay import proved
from regard.reading.watch import watching


@dataclass(frozen=True)
class Spelt:
    """A text with its token ids and the characters of each."""

    text: str
    ids: list[int]
    offsets: Sequence[tuple[int, int]]

    def followed_by(self, ids: list[int], tokenizer: Any) -> Tokens:
        """The text with the tokens that were written after it."""
        added = sequence([Label(id) for id in ids], tokenizer)
        start = len(self.text)
        text = self.text + added.text
        spans = [*_filled(self.offsets), *((start + token.start, start + token.end) for token in added.tokens)]
        names = [text[begin:end] for begin, end in spans]
        # what a model puts around a text stands nowhere in it
        for index, id in enumerate(self.ids):
            if not names[index]:
                names[index] = tokenizer.convert_ids_to_tokens(id)
        return placed(text, [*self.ids, *ids], names, spans, word_spans(text))


def _filled(offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """With tokens that stand nowhere set where the one before them ended."""
    filled, end = [], 0
    for start, stop in offsets:
        filled.append((start, stop) if stop > start else (end, end))
        end = filled[-1][1]
    return filled


@torch.inference_mode()
def read_tokens(
    module: Any,
    tokenizer: Any,
    spelt: Spelt,
    written: list[int],
    options: ReadOptions,
    *,
    inputs: Callable[[Tensor], dict[str, Any]],
    name: str,
) -> Reading:
    """What a model of one sequence looked at in a text and, all but the last, the tokens that it wrote after it.

    `inputs` makes the module's arguments from token ids. Rows "generated" are those that wrote a token, or else the
    last.
    """
    ids = [*spelt.ids, *written]
    fed = ids[:-1] if written else ids
    if options.rows == "generated":
        options = replace(options, rows=slice(max(0, len(spelt.ids) - 1), len(fed)))
    tokens = torch.tensor([fed], device=next(module.parameters()).device)
    with watching(module, tokenizer=tokenizer, name=name, **vars(options)) as watch:
        module(**inputs(tokens))
    reading = watch.reading(0)
    text = spelt.followed_by(written, tokenizer)
    kinds = {side for kind in reading.kinds for side in reading.sides[kind]}
    told = {"prompt_tokens": len(spelt.ids) if written else 0}
    return replace(
        reading,
        sequences={name: text if name == "text" else reading.sequences[name] for name in kinds},
        settings={**reading.settings, **told},
        knockout=Effects(module, ids) if reading.kinds == ["decoder"] else None,
    )


def read_noted(module: Any, tokenizer: Any, spelt: Spelt, written: Generation, *, name: str) -> Reading:
    """What a model of Regard's looked at, noted while it wrote after a text."""
    ids = [*spelt.ids, *written.tokens]
    dtype = module.embedding.weight.dtype
    maps, checks, refused = proved(written.attention, dtype)
    return Reading(
        model=name,
        sequences={"text": spelt.followed_by(written.tokens, tokenizer)},
        maps=maps,
        checks=checks,
        refused=refused,
        settings={"prompt_tokens": len(spelt.ids)},
        sides={"decoder": ("text", "text")},
        kept={"decoder": list(range(len(spelt.ids) - 1, len(ids) - 1))},
        knockout=Effects(module, ids),
    )


@torch.inference_mode()
def read_pair(
    module: Any, tokenizer: Any, source: Spelt, target: list[int], options: ReadOptions, *, name: str
) -> Reading:
    """What an encoder–decoder looked at when it wrote `target`, ids with what begins and ends them."""
    tokens = torch.tensor([source.ids], device=module.device)
    decoder = torch.tensor([target[:-1]], device=module.device)
    with watching(module, tokenizer=tokenizer, name=name, **vars(options)) as watch:
        module(input_ids=tokens, attention_mask=torch.ones_like(tokens), decoder_input_ids=decoder)
    reading = watch.reading(0)
    sequences = {
        "source": source.followed_by([], tokenizer),
        "target": sequence([Label(id) for id in target], tokenizer),
    }
    names = {side for kind in reading.kinds for side in reading.sides[kind]}
    return replace(reading, sequences={name: sequences[name] for name in names})


def decoder_start(module: Any) -> int:
    """The token that an encoder–decoder's target begins from."""
    for config in (module.generation_config, module.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if isinstance(start := getattr(config, name, None), int):
                return start
    raise RegardError("the model does not say which token its decoder starts from (decoder_start_token_id)")
