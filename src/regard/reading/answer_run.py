"""A causal language model run over a prompt and an answer, for log-probabilities, also with parts of it removed."""

import copy
import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.attention.key_values import KeyValues
from regard.errors import RegardError
from regard.generation.steps import cache_name
from regard.models.gpt import GPT
from regard.reading.capture import session
from regard.reading.record import Span

# what a foreign model may raise where its tokens are not all that it needs
FOREIGN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, OSError)


def run_foreign(
    module: Any,
    ids: Int[Tensor, "item new"],
    cache: Any,
    *,
    caches: bool,
    last: int,
    positions: Int[Tensor, "item new"] | None = None,
) -> Any:
    """A model of transformers run over tokens, after those that `cache` has where it is not None.

    Its logits are those after the last so many tokens, or more. `positions` are those of the tokens, where a model
    takes them. Raises RegardError where it takes more than tokens, or gives no logits of them.
    """
    parameters = inspect.signature(module.forward).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    before, name = 0 if cache is None else cache.get_seq_length(), type(module).__name__
    mask = torch.ones(len(ids), before + ids.shape[1], dtype=torch.int64, device=ids.device)
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": caches, "logits_to_keep": last}
    inputs |= {} if cache is None else {cache_name(module): cache}
    inputs |= {} if positions is None else {"position_ids": positions}
    optional = {"attention_mask": takes_any, "use_cache": takes_any, "logits_to_keep": False}
    inputs = {name: value for name, value in inputs.items() if name in parameters or optional.get(name, True)}
    try:
        output = module(**inputs)
    except FOREIGN as error:
        raise RegardError(f"{name} does not run on tokens alone: {type(error).__name__}: {error}") from error
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or len(logits) != len(ids):
        raise RegardError(f"{name} gives no logits of tokens; a language model is needed")
    return output


@dataclass(eq=False)
class AnswerRun:
    """The model, the tokens of a prompt and of an answer to it, both at least one.

    `passes` counts what was run, in passes over prompt and answer.
    """

    module: Any
    prompt: list[int]
    answer: list[int]
    passes: float = 0.0
    _cache: Any = field(default=None, repr=False)
    # tokens that the cache has before `run`
    _begun: int = 0

    @property
    def fed(self) -> list[int]:
        """All tokens that a run is fed: nothing is asked of the last."""
        return [*self.prompt, *self.answer[:-1]]

    @torch.no_grad()
    def begin(self, count: int) -> int:
        """Run the first tokens by themselves, so that gradients stop there; how many, 0 where no cache can hold them.

        At least two tokens, and those that write the answer, are left to `run`.
        """
        count = min(count, len(self.prompt) - 1, len(self.fed) - 2)
        self._cache = self._new_cache()
        if self._cache is None or count < 1:
            return 0
        with session.only():
            self._feed(self.fed[:count], self._cache, last=1)
        self._begun = count
        return count

    def run(self) -> Float[Tensor, " answer"]:
        """log p of each token of the answer; the cache of it is kept for `without`."""
        begun, self._begun = self._begun, 0
        if not begun:
            self._cache = self._new_cache()
        found = self._run(self.fed[begun:], self._cache)
        if self._cache is not None and not isinstance(self._cache, KeyValues):
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
        return found

    @torch.inference_mode()
    def without(self, spans: list[Span]) -> Float[Tensor, " answer"]:
        """The same with these positions of the prompt removed, in order; what stands before them is not run anew.

        Raises RegardError where no token of the prompt is left.
        """
        first = spans[0][0]
        gone = {position for start, end in spans for position in range(start, end)}
        kept = [token for position, token in enumerate(self.fed) if position not in gone]
        if len(kept) < len(self.answer):
            raise RegardError("nothing of the prompt is left without these passages; split it into smaller ones")
        # at least one token of the prompt is run, for the logits of the answer's first
        first = min(first, len(kept) - len(self.answer))
        cache = self._cut(first)
        # it is no run of the user's, whose watch may be open
        with session.only():
            return self._run(kept if cache is None else kept[first:], cache)

    def _new_cache(self) -> Any:
        if isinstance(self.module, GPT):
            return KeyValues(len(self.fed))
        parameters = inspect.signature(self.module.forward).parameters
        if cache_name(self.module) not in parameters or "use_cache" not in parameters:
            return None
        from transformers import DynamicCache

        try:
            cache = DynamicCache(config=self.module.config)
        except FOREIGN:
            return None
        return cache if {type(layer).__name__ for layer in cache.layers} == {"DynamicLayer"} else None

    def _cut(self, length: int) -> Any:
        """A copy of the first tokens of the cache; None where there is none."""
        if self._cache is None or length == 0:
            return None
        if isinstance(self._cache, KeyValues):
            cut = KeyValues(len(self.fed))
            cut.layers = [(key.clone(), value.clone()) for key, value in self._cache.layers]
            cut.length = length
            return cut
        cut = copy.deepcopy(self._cache)
        # below 0 it is how many tokens go, in every version
        cut.crop(length - cut.get_seq_length())
        return cut

    def _run(self, tokens: list[int], cache: Any) -> Float[Tensor, " answer"]:
        """log p of the answer after these tokens, which follow what a cache holds."""
        count = len(self.answer)
        logits = self._feed(tokens, cache, last=count)
        found = logits[0, -count:].double().log_softmax(-1)
        found = found.gather(1, torch.tensor(self.answer, device=logits.device)[:, None])[:, 0]
        if not found.isfinite().all():
            raise RegardError(f"{type(self.module).__name__} gives no finite probability of the answer")
        return found

    def _feed(self, tokens: list[int], cache: Any, *, last: int) -> Float[Tensor, "1 last vocabulary"]:
        """The last logits of a run over these tokens, or more of them."""
        self.passes += len(tokens) / len(self.fed)
        device = next((each.device for each in self.module.parameters() if each.device.type != "meta"), None)
        ids = torch.tensor([tokens], device=device)
        if isinstance(self.module, GPT):
            return self.module(ids, cache, last=last).logits
        return run_foreign(self.module, ids, cache, caches=cache is not None, last=last).logits
