"""Heads switched off while a model runs: what they give becomes 0, or its mean."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.call import AttentionCall
from regard.reading.interventions import Head, Intervention, check_head, heads_of, module_of, written_over
from regard.reading.parts import Part

WAYS = ("zero", "mean")


@final
class Ablation(Intervention):
    """Heads whose context is 0, or its mean; with `by_item` the first of `heads` in the first batch item, and so on."""

    def __init__(
        self, module: nn.Module, heads: Collection[Head], *, by: str, kind: str = "decoder", by_item: bool = False
    ) -> None:
        super().__init__(module, kind)
        self.heads, self.by, self.by_item = list(heads), by, by_item
        # of each layer the means of the sequences that a cache goes on with
        self._means: dict[int, Float[Tensor, "batch head dim"]] = {}

    def check(self) -> None:
        """Raises RegardError if a head could not be ablated, or the model, which ran, has no such head."""
        super().check()
        for layer, head in self.heads if self.shapes else ():
            check_head(layer, head, self.shapes, self.kind)

    def layer(self, layer: int, call: AttentionCall, part: Part | None) -> str | None:
        """Write over the contexts of this layer's heads; why that cannot be done."""
        own = [(item, head) for item, (of, head) in enumerate(self.heads) if of == layer]
        if not own:
            return None
        if (why := written_over(call)) is not None:
            return why
        own = [(item, head) for item, head in own if head < call.num_heads]
        if self.by_item and len(call.context) != len(self.heads):
            return f"the batch has {len(call.context)} items, and {len(self.heads)} heads were given one each"
        means = None
        if self.by == "mean":
            means = self._mean(layer, call, part)
            if isinstance(means, str):
                return means
        for item, head in own:
            items = slice(item, item + 1) if self.by_item else slice(None)
            call.context[items, head] = 0.0 if means is None else means[items, head, None]
        return None

    def _mean(self, layer: int, call: AttentionCall, part: Part | None) -> Float[Tensor, "batch head dim"] | str:
        """The mean of each head's contexts over the tokens of each sequence, those of the run that began it."""
        if part is not None and part.start:
            means = self._means.get(layer)
            if means is None or len(means) != len(call.context):
                return "the mean is over a sequence's first run, which was not changed, or had another batch"
            return means
        context = call.context.to(torch.promote_types(call.context.dtype, torch.float32))
        real = context.new_ones(len(context), call.num_queries)
        mask = None if part is None else part.mask
        if self.kind != "cross" and mask is not None and mask.shape == real.shape:
            real = mask.to(real)
        sums = (context * real[:, None, :, None]).sum(2)
        self._means[layer] = (sums / real.sum(1).clamp(min=1)[:, None, None]).to(call.context.dtype)
        return self._means[layer]


@contextlib.contextmanager
def ablating(model: Any, heads: Sequence[Head], by: str = "zero", *, kind: str = "decoder") -> Iterator[None]:
    """While this is open, these heads, `(layer, head)` each, give 0 or their mean in every run of the model.

    `model` is what `regard.load` gives, a model of transformers, or a torch module. Layers and heads are numbered as a
    reading's are, of the `kind` of attention. With `by="mean"` a head's context is the same at all positions: its mean
    over the tokens of the sequence's first run, which is the prompt where the model writes. Afterwards the model is
    what it was. Interventions may be nested: each changes what those opened before it left. Readings taken meanwhile
    are of the changed model, their layers as they attended, before their own heads were changed.
    Raises RegardError at once for heads and settings that make no sense, and at its end for heads that the model has
    not, or that cannot be told apart.
    """
    module = module_of(model)
    if by not in WAYS:
        raise RegardError(f"by must be {' or '.join(map(repr, WAYS))}, not {by!r}")
    with Ablation(module, heads_of(heads, module, kind), by=by, kind=kind).open():
        yield
