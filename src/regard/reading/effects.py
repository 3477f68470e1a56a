"""What weights do not say: how much likelier a part of the text made a token that was written.

The part is hidden from the query that wrote the token, in every layer, and the token's log-probability taken again; as
in attention knockout, Geva et al. 2023, "Dissecting recall of factual associations in auto-regressive language models".
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.attention.key_values import KeyValues
from regard.errors import RegardError
from regard.models.gpt import GPT
from regard.reading.record import Span
from regard.reading.runs import Run
from regard.reading.watch import watching

# spans that are hidden in one run, each with a copy of the cache
BATCH = 16


@dataclass(frozen=True, eq=False)
class Effects:
    """The model that wrote or was fed `tokens`, to be asked what it would have done without some of them."""

    module: Any
    tokens: list[int]

    @torch.inference_mode()
    def __call__(self, row: int, spans: Sequence[Span]) -> Float[np.ndarray, " span"]:
        """Of each span, from its first position to before its second: log p of token row + 1 without it minus with it.

        Raises RegardError for a row that wrote nothing, a span that the row does not see or that leaves it nothing to
        see, and a model that cannot hide a part without moving the rest.
        """
        if not 0 <= row < len(self.tokens) - 1:
            raise RegardError(f"row {row} wrote no token that is known; rows 0 to {len(self.tokens) - 2} did")
        for start, end in spans:
            if not 0 <= start < end <= row + 1:
                raise RegardError(f"row {row} sees positions 0 to {row}, which the span {start}:{end} is not within")
            if end - start == row + 1:
                raise RegardError(f"the span {start}:{end} is all that row {row} sees; hide less of it")
        if not isinstance(self.module, GPT) and "position_ids" not in inspect.signature(self.module.forward).parameters:
            raise RegardError(
                f"{type(self.module).__name__} counts positions by what is not hidden, so that hiding a part would "
                "move the rest; effects need a model that takes position_ids"
            )
        written = self.tokens[row + 1]
        if isinstance(self.module, GPT):
            return self._of_own(row, spans)
        cache = None
        if row:
            before = torch.tensor([self.tokens[:row]], device=self.module.device)
            cache = self.module(input_ids=before, use_cache=True).past_key_values
        whole = self._log_probabilities(cache, row, [(0, 0)])[0, written]
        found: list[float] = []
        for index in range(0, len(spans), BATCH):
            hidden = self._log_probabilities(cache, row, spans[index : index + BATCH])[:, written]
            found.extend((hidden - whole).tolist())
        return np.array(found)

    def _of_own(self, row: int, spans: Sequence[Span]) -> Float[np.ndarray, " span"]:
        device = self.module.embedding.weight.device
        found: list[float] = []
        for start in range(0, len(spans), BATCH):
            some = spans[start : start + BATCH]
            past = KeyValues(row + 1)
            if row:
                self.module(torch.tensor([self.tokens[:row]], device=device), past, last=True)
                # the first of the batch has all before it in sight
                past.select(torch.zeros(len(some) + 1, dtype=torch.int64, device=device))
            past.hidden = torch.zeros(len(some) + 1, row + 1, dtype=torch.bool, device=device)
            for index, (first, end) in enumerate(some):
                past.hidden[index + 1, first:end] = True
            token = torch.full((len(some) + 1, 1), self.tokens[row], device=device)
            logits = self.module(token, past, last=True).logits[:, -1].double().log_softmax(-1)
            whole, *hidden = logits[:, self.tokens[row + 1]].tolist()
            found.extend(each - whole for each in hidden)
        return np.array(found)

    def _log_probabilities(self, cache: Any, row: int, spans: Sequence[Span]) -> Float[Tensor, "span vocabulary"]:
        device = self.module.device
        mask = torch.ones(len(spans), row + 1, dtype=torch.int64, device=device)
        for index, (start, end) in enumerate(spans):
            mask[index, start:end] = 0
        cache = copy.deepcopy(cache)
        if cache is not None:
            cache.batch_repeat_interleave(len(spans))
        with watching(self.module) as watch:
            logits = self.module(
                input_ids=torch.full((len(spans), 1), self.tokens[row], device=device),
                attention_mask=mask,
                position_ids=torch.full((len(spans), 1), row, device=device),
                past_key_values=cache,
                use_cache=True,
            ).logits
        for run in watch.recording.seen:
            assert isinstance(run, Run)
            # what is hidden stands outside the sequence, whose weights prove themselves
            for (_, path, _), why in run.refused.items():
                raise RegardError(f"{path} still sees what was to be hidden from it: {why}")
        return logits[:, -1].double().log_softmax(-1)
