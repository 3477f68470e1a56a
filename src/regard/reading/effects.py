"""The effect of a span of text: how much likelier or less likely it made a token that was written.

The span is hidden from the query that wrote the token, in every layer that attends, and the token's log-probability is
computed again. This is the attention knockout of Geva et al. 2023, "Dissecting recall of factual associations in
auto-regressive language models".
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.attention.key_values import KeyValues
from regard.errors import RegardError
from regard.generation.steps import cache_of
from regard.models.gpt import GPT
from regard.reading.answer_run import run_foreign
from regard.reading.capture import session
from regard.reading.hiding import Hiding, hiding
from regard.reading.record import Span

# spans that are hidden in one run of a foreign model
BATCH = 16
# bytes that they may take beside the model: copies of its cache, or of an own model scores and logits
BYTES = 256 << 20
# tokens in one run of a model without a cache that can be copied
TOKENS = 4096
# layers of a cache that hold keys and values and nothing else
KEYS_AND_VALUES = {"DynamicLayer", "DynamicSlidingWindowLayer"}


@dataclass(frozen=True, eq=False)
class Effects:
    """The model that wrote or was fed `tokens`, to be asked what it would have done without some of them."""

    module: Any
    tokens: list[int]

    @torch.inference_mode()
    def __call__(self, row: int, spans: Sequence[Span]) -> Float[np.ndarray, " span"]:
        """For each span, from its first position to before its second: log p of token row + 1 without it minus with it.

        Queries, keys, values, positions and biases stay as they are: the weights of the row on the span become 0, and
        its other weights keep their proportions. Layers without softmax attention stay as they are.
        Raises RegardError for a row that wrote nothing, a span that the row does not see or that leaves it nothing to
        see, and a model that does not run on tokens alone or in which a span cannot be hidden.
        """
        if not 0 <= row < len(self.tokens) - 1:
            raise RegardError(f"row {row} wrote no token that is known; rows 0 to {len(self.tokens) - 2} did")
        for start, end in spans:
            if not 0 <= start < end <= row + 1:
                raise RegardError(f"row {row} sees positions 0 to {row}, which the span {start}:{end} is not within")
            if end - start == row + 1:
                raise RegardError(f"the span {start}:{end} is all that row {row} sees; hide less of it")
        if not spans:
            return np.zeros(0)
        with session.only():
            # the first has all in sight
            run = self._of_own if isinstance(self.module, GPT) else self._of_any
            logits = run(row, [(0, 0), *spans])
            found = torch.cat([each.double().log_softmax(-1)[:, self.tokens[row + 1]] for each in logits])
        if not found.isfinite().all():
            raise RegardError(f"{type(self.module).__name__} gives no finite probability of token {row + 1}")
        return (found[1:] - found[0]).cpu().numpy()

    def _of_any(self, row: int, spans: Sequence[Span]) -> Iterator[Tensor]:
        """Each span hidden in an item of a batch, with a copy of the cache where that can be copied."""
        if self.module.training:
            raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
        calls, cached = self._prove()
        cache = cache_of(self._run(self.tokens[:row], cached=True)) if cached else None
        most = TOKENS // (row + 1) if cache is None else BYTES // _size(cache)
        size = max(1, min(BATCH, most))
        for index in range(0, len(spans), size):
            some = spans[index : index + size]
            hide = Hiding(self.module, row + 1, some, last_only=cached)
            logits = self._hidden(self.tokens[: row + 1], hide, cache)
            if hide.calls != calls:
                raise RegardError(f"it attends {hide.calls} times in this run, and {calls} times in one of two tokens")
            yield logits

    def _prove(self) -> tuple[int, bool]:
        """How often the model attends, and whether its cache can be copied; proved on the first two tokens.

        The model must be causal, and what is written over the context of any call must reach the logits of its own
        batch item and of no other.
        """
        tokens, name = self.tokens[:2], type(self.module).__name__
        seen = Hiding(self.module, 2, [(0, 0)])
        with hiding(seen):
            cache = cache_of(self._run(tokens, cached=True))
        seen.check()
        if not seen.calls:
            raise RegardError(f"{name} attends in no way that is known here, so that nothing can be hidden in it")
        layers = getattr(cache, "layers", None) or [None]
        cached = (
            type(cache).__name__ == "DynamicCache" and {type(layer).__name__ for layer in layers} <= KEYS_AND_VALUES
        )
        marked = Hiding(self.module, 2, [(0, 0)] * (seen.calls + 1), last_only=cached, mark=True)
        cache = cache_of(self._run(tokens[:1], cached=True)) if cached else None
        reached = self._hidden(tokens, marked, cache).isnan().any(-1).tolist()
        if reached != [False] + [True] * seen.calls:
            raise RegardError(
                f"a span cannot be hidden in {name}: what is changed in one of its attention calls does not reach its "
                "output, or reaches that of other texts in the batch"
            )
        return seen.calls, cached

    def _hidden(self, tokens: list[int], hide: Hiding, cache: Any) -> Float[Tensor, "span vocabulary"]:
        """The last logits of a run in which spans are hidden, one in each item of the batch."""
        count = len(hide.spans)
        if cache is not None:
            cache = copy.deepcopy(cache)
            cache.batch_repeat_interleave(count)
        with hiding(hide):
            output = self._run(tokens, cached=cache is not None, count=count, cache=cache)
        hide.check()
        return output.logits[:, -1]

    def _run(self, tokens: list[int], *, cached: bool, count: int = 1, cache: Any = None) -> Any:
        """The model run over tokens, or over the last of them where a cache holds the others."""
        device = next((each.device for each in self.module.parameters() if each.device.type != "meta"), None)
        ids = torch.tensor([tokens if cache is None else tokens[-1:]], device=device).expand(count, -1)
        return run_foreign(self.module, ids, cache, caches=cached, last=1)

    def _of_own(self, row: int, spans: Sequence[Span]) -> Iterator[Tensor]:
        """Each span hidden from a query of its own at the row's position; all look at one copy of the other keys."""
        module, device = self.module, self.module.embedding.weight.device
        # scores and logits of a query in float32 and float64
        size = max(1, BYTES // (12 * (module.embedding.num_embeddings + module.config.num_heads * (row + 1))))
        past = KeyValues(row + min(size, len(spans)))
        module(torch.tensor([self.tokens[:row]], device=device), past, last=1)
        x, places = module.embedded(torch.tensor([[self.tokens[row]]], device=device), past)
        seen = torch.ones(1, row + 1, dtype=torch.bool, device=device) if places.mask is None else places.mask[0, 0]
        for index in range(0, len(spans), size):
            some = spans[index : index + size]
            mask = seen.repeat(len(some), 1)
            for query, (start, end) in enumerate(some):
                mask[query, start:end] = False
                if not mask[query].any():
                    raise RegardError(
                        f"the span {start}:{end} is all that row {row} sees in its window; hide less of it"
                    )
            # each query has a key of its own, and all are at one position
            mask = torch.cat([mask[:, :row], mask[:, row].diag()], dim=1)[None, None]
            angles = places.angles and (places.angles[0].expand(len(some), -1), places.angles[1].expand(len(some), -1))
            yield module.through(x.repeat(1, len(some), 1), replace(places, angles=angles, mask=mask), past).logits[0]


def _size(cache: Any) -> int:
    """Bytes of the keys and values of one sequence."""
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values) if part is not None)


def effects_of(module: nn.Module, ids: Sequence[int]) -> Effects | None:
    """Effects on a sequence that a model was fed as these ids and nothing else; None where it takes more, or other.

    That is: for a language model of one sequence with ids that it has embeddings for. Whether it is causal, and whether
    a span can be hidden in it, is proved when an effect is asked for.
    """
    if len(ids) < 2 or min(ids) < 0:
        return None
    if isinstance(module, GPT):
        return Effects(module, list(ids))
    config: Any = getattr(module, "config", None)
    writes = getattr(module, "can_generate", None)
    if config is None or writes is None or getattr(config, "is_encoder_decoder", False) or not writes():
        return None
    if getattr(module, "main_input_name", None) != "input_ids":
        return None
    embedding = next((each for each in module.modules() if isinstance(each, nn.Embedding)), None)
    return Effects(module, list(ids)) if embedding is None or max(ids) < embedding.num_embeddings else None
