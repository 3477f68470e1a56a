"""Heads that give, in runs over one text, what they gave in a run over another."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.call import AttentionCall
from regard.reading.interventions import Head, Intervention, check_head, heads_of, module_of, run_over, written_over
from regard.reading.layer_watch import LayerWatch
from regard.reading.parts import Part


@dataclass(frozen=True)
class _Asked:
    """Which contexts are meant: those of these layers, or of these heads, at these positions."""

    layers: frozenset[int]
    heads: frozenset[Head] | None
    positions: list[int]

    def heads_of(self, layer: int, count: int) -> list[int]:
        if self.heads is None:
            return list(range(count)) if layer in self.layers else []
        return sorted(head for of, head in self.heads if of == layer)


@final
class _Taking(LayerWatch):
    """Keeps contexts."""

    def __init__(self, module: nn.Module, asked: _Asked) -> None:
        super().__init__(module, "decoder")
        self.asked = asked
        self.found: dict[int, Float[Tensor, "head position dim"]] = {}

    def layer(self, layer: int, call: AttentionCall, part: Part | None) -> str | None:
        """Keep what is asked for of a layer; why that cannot be done."""
        if call.refused is not None and layer in self.asked.layers:
            return call.refused
        if layer in self.asked.layers:
            self.found[layer] = call.context[0][:, self.asked.positions].clone()
        return None


@final
class _Patch(Intervention):
    """Contexts of a run over one text that are put into runs over another."""

    def __init__(self, module: nn.Module, asked: _Asked, found: Mapping[int, Tensor], tokens: Sequence[int]) -> None:
        super().__init__(module, "decoder")
        self.asked, self.found, self.tokens = asked, found, torch.tensor(tokens)

    def layer(self, layer: int, call: AttentionCall, part: Part | None) -> str | None:
        """Write what the other run gave over the contexts that are asked for; why that cannot be done."""
        if layer not in self.asked.layers:
            return None
        if (why := written_over(call)) is not None:
            return why
        if part is None or part.tokens is None or part.length != call.num_queries:
            return "the model did not run on tokens alone"
        end = min(part.start + part.length, len(self.tokens))
        if not (part.tokens[:, : max(0, end - part.start)] == self.tokens[part.start : end]).all():
            return "the model ran on another text than `to`"
        heads = self.asked.heads_of(layer, call.num_heads)
        for index, position in enumerate(self.asked.positions):
            if part.start <= position < end:
                call.context[:, heads, position - part.start] = self.found[layer][heads, index]
        return None


@contextlib.contextmanager
def patching(
    model: Any,
    *,
    from_: str | Sequence[int],
    to: str | Sequence[int],
    layers: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    positions: Sequence[int] | None = None,
) -> Iterator[None]:
    """While this is open, heads give in runs over `to` what they gave in a run over `from_`, at these positions.

    Both are texts of as many tokens, or their ids where `model` is a bare module; a position below 0 counts from the
    end, and without `positions` all are meant. Of `layers` all heads are patched, else `heads`, `(layer, head)` each.
    This is activation patching, or interchange intervention, on attention (Vig et al. 2020; Wang et al. 2022,
    "Interpretability in the wild"): what an answer to `to` becomes shows what those heads carry there. Afterwards the
    model is what it was.
    Raises RegardError at once for texts, layers and positions that do not fit, and at its end where the model ran on
    another text, or its heads cannot be told apart.
    """
    module = module_of(model)
    if (layers is None) == (heads is None):
        raise RegardError("say either layers or heads: those that are to be patched")
    source, target = (_ids(model, each, name) for each, name in ((from_, "from_"), (to, "to")))
    if len(source) != len(target):
        raise RegardError(
            f"from_ has {len(source)} tokens and to has {len(target)}; patching puts one position in the place of the "
            "same of the other, so that both must be as long"
        )
    pairs = (
        heads_of(heads, module, "decoder")
        if heads is not None
        else [*heads_of([(n, 0) for n in layers or ()], module, "decoder")]
    )
    places = range(len(target)) if positions is None else positions
    for place in places:
        if not isinstance(place, int) or not -len(target) <= place < len(target):
            raise RegardError(f"there is no position {place!r}; the texts have {len(target)} tokens")
    asked = _Asked(
        frozenset(layer for layer, _ in pairs),
        None if heads is None else frozenset(pairs),
        sorted({place % len(target) for place in places}),
    )
    taking = _Taking(module, asked)
    with taking.open():
        run_over(module, [source])
    for layer, head in pairs:
        check_head(layer, head, taking.shapes, "decoder")
    with _Patch(module, asked, taking.found, target).open():
        yield


def _ids(model: Any, text: Any, name: str) -> list[int]:
    if isinstance(text, str):
        if not hasattr(model, "encode"):
            raise RegardError(
                f"{name} is a text, and a bare module has no tokenizer; give ids, or what regard.load gives"
            )
        text = model.encode(text)[0]
    ids = [*text] if isinstance(text, Sequence) else []
    if not ids or not all(isinstance(each, int) for each in ids):
        raise RegardError(f"{name} must be a text of at least one token, or ids")
    return ids
