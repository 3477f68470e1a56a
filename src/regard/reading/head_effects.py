"""What every head did for the likelihood of texts: each head ablated in turn, one in each item of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.ablation import WAYS, Ablation
from regard.reading.interventions import Head, module_of, run_over
from regard.reading.layer_watch import LayerWatch

if TYPE_CHECKING:
    import pandas

# bytes of the logits of a batch
BYTES = 256 << 20
LOG_PROBABILITY = "log_probability"
# logits [item, token, vocabulary] and ids [token]: a number for each item
Metric = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, eq=False)
class HeadEffects:
    """How much ablating each head changes a metric, with it ablated minus without; below 0 the head raised it.

    `values` are [prompt, layer, head], and `layers` numbers the layers; NaN where a layer has fewer heads than others.
    `metric` is named, and the log-probability is in nats, summed over the tokens that are judged.
    """

    values: Float[np.ndarray, "prompt layer head"]
    layers: list[int]
    metric: str

    def __repr__(self) -> str:
        prompts, layers, heads = self.values.shape
        return f"<HeadEffects on {self.metric}: {prompts} prompts, {layers} layers × {heads} heads>"

    @property
    def mean(self) -> Float[np.ndarray, "layer head"]:
        """The mean over prompts."""
        return self.values.mean(0)

    def strongest(self, count: int = 10) -> list[Head]:
        """The heads whose ablation lowers the metric most, as `(layer, head)`."""
        order = np.argsort(np.where(np.isnan(self.mean), np.inf, self.mean), axis=None)[:count]
        places = zip(*np.unravel_index(order, self.mean.shape), strict=True)
        return [(self.layers[layer], int(head)) for layer, head in places]

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each prompt, layer and head. Raises RegardError without pandas (`regard[frames]`)."""
        from regard.reading.frames import library

        prompts, layers, heads = (axis.ravel() for axis in np.indices(self.values.shape))
        columns = {"prompt": prompts, "layer": np.array(self.layers)[layers], "head": heads}
        return library("pandas", "to_frame").DataFrame(columns | {"effect": self.values.ravel()})


class _Heads(LayerWatch):
    """Counts layers and heads."""

    def layer(self, layer: int, call: Any, part: Any) -> str | None:
        """Why the layer's heads cannot be ablated."""
        return call.refused


def effects_of_heads(
    model: Any,
    prompts: Sequence[str | tuple[str, str] | Sequence[int]],
    metric: str | Metric = LOG_PROBABILITY,
    *,
    by: str = "zero",
    progress: Callable[[int], None] = lambda heads: None,
) -> HeadEffects:
    """How much less likely each text becomes without each head (Michel et al. 2019, "Are sixteen heads really better").

    A prompt is a text, whose tokens after the first are judged; a pair of prompt and answer, of which the answer is; or
    ids. `metric` is the log-probability, or a function of logits [item, token, vocabulary] and ids [token] that gives a
    number for each item. A head gives 0, or its mean over the text with `by="mean"`. Heads are ablated in batches, one
    in each item. `progress` hears how many heads are done.
    Raises RegardError for prompts of one token, a model that is no causal language model, and heads that cannot be told
    apart.
    """
    module = module_of(model)
    if by not in WAYS:
        raise RegardError(f"by must be {' or '.join(map(repr, WAYS))}, not {by!r}")
    if isinstance(metric, str) and metric != LOG_PROBABILITY:
        raise RegardError(f"metric must be {LOG_PROBABILITY!r} or a function, not {metric!r}")
    if isinstance(prompts, str) or not len(prompts):
        raise RegardError("prompts must be a list of at least one text, pair of prompt and answer, or ids")
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "a metric")
    given = [_given(model, prompt, number) for number, prompt in enumerate(prompts)]
    counting = _Heads(module, "decoder")
    with counting.open():
        run_over(module, [given[0][0]])
    shapes = counting.shapes
    if not shapes:
        raise RegardError(f"{type(module).__name__} attends in no way that is known here")
    layers = sorted(shapes)
    values = np.full((len(given), len(layers), max(shapes.values())), np.nan)
    for number, (ids, first) in enumerate(given):
        for (layer, head), value in _of_prompt(module, ids, first, shapes, metric, by, progress).items():
            values[number, layers.index(layer), head] = value
    return HeadEffects(values, layers, name)


def _given(model: Any, prompt: Any, number: int) -> tuple[list[int], int]:
    """The ids of a prompt, and which of them is the first to be judged."""
    answer = None
    if isinstance(prompt, tuple) and len(prompt) == 2 and all(isinstance(each, str) for each in prompt):
        prompt, answer = prompt
    if isinstance(prompt, str):
        if not hasattr(model, "encode"):
            raise RegardError("a bare module has no tokenizer: give ids, or a loaded model")
        prompt = model.encode(prompt)[0]
    ids = [*prompt]
    first = len(ids) if answer is not None else 1
    if answer is not None:
        ids += model._texts().encode_answer(answer)
    if len(ids) < 2 or first >= len(ids) or not first:
        raise RegardError(f"prompt {number} is too short ({len(ids)} tokens): what is judged comes after the first")
    return ids, first


def _of_prompt(
    module: nn.Module,
    ids: list[int],
    first: int,
    shapes: dict[int, int],
    metric: str | Metric,
    by: str,
    progress: Callable[[int], None],
) -> dict[Head, float]:
    def judged(logits: Float[Tensor, "item token vocabulary"]) -> Float[Tensor, " item"]:
        tokens = torch.tensor(ids, device=logits.device)
        if not isinstance(metric, str):
            return metric(logits, tokens)
        found = logits[:, first - 1 : -1].double().log_softmax(-1)
        return found.gather(-1, tokens[first:].expand(len(found), -1)[..., None]).sum((1, 2))

    logits = run_over(module, [ids])
    plain = judged(logits)
    size = max(1, BYTES // (logits.nbytes or 1))
    heads = [(layer, head) for layer in sorted(shapes) for head in range(shapes[layer])]
    found: dict[Head, float] = {}
    for start in range(0, len(heads), size):
        some = heads[start : start + size]
        with Ablation(module, some, by=by, by_item=True).open():
            values = judged(run_over(module, [ids] * len(some)))
        if values.shape != (len(some),) or not values.isfinite().all():
            raise RegardError("the metric must be one finite number for each item")
        found |= dict(zip(some, (values - plain).tolist(), strict=True))
        progress(len(some))
    return found
