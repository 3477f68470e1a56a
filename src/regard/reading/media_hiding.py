"""Hiding a part of a picture or sound while a model runs: no other position of its text looks at it any more.

A patch or frame cannot be taken out as a sentence is out of a page. In every layer its weights become 0 and all others
keep their proportions. What an encoder spread over other patches or frames stays in sight.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.call import AttentionCall, Visibility, contexts, exact_weights
from regard.reading.capture import patches, session
from regard.reading.compute.rows import unflattened
from regard.reading.compute.tiles import Text, rows_of, tiles
from regard.reading.compute.verify import SAMPLE, check_rows, complaint
from regard.reading.layers import crosses
from regard.reading.layouts import Layout


@final
class MediaHiding(session.CallWatch):
    """A watch on one run over `total` tokens that hides the keys at these positions from all other positions.

    With `across`, the number of keys of another sequence, they are positions of that, and hidden from cross-attention.
    """

    def __init__(self, module: nn.Module, positions: Sequence[int], total: int, *, across: int | None = None) -> None:
        super().__init__(module)
        self._positions = torch.tensor(sorted(positions))
        self._total, self._across = total, across
        self._calls = 0
        self._why: str | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, runs of the model in this thread hide them."""
        with patches.opened(self, [self.module]), session.only(self):
            yield

    def check(self) -> None:
        """Raises RegardError where they could not be hidden."""
        why = self._why or ("" if self._calls else "it attends in no way that is known here")
        if why:
            raise RegardError(f"a part of a picture or sound cannot be hidden from the model: {why}")

    # what capture asks of a watch

    def failed(self, path: str, error: Exception) -> None:
        self._why = self._why or f"{path}: {type(error).__name__}: {error}"

    def saw(self, call: AttentionCall) -> None:
        if self._across is not None and not crosses(call):
            return
        self._calls += 1
        if self._why is None and (why := self._hide(call)) is not None:
            self._why = f"{call.path}: {why}"

    def _hide(self, call: AttentionCall) -> str | None:
        """Write the context without the hidden keys over the call's own; why that cannot be done."""
        if call.refused is not None:
            return call.refused
        if call.flat:
            call = unflattened(call, 1)
        size = self._total if self._across is None else self._across
        if len(call.context) != 1 or (call.num_queries, call.num_keys) != (self._total, size):
            return f"its {call.num_queries} queries and {call.num_keys} keys are not those of the text"
        proved = _proved(call)
        if isinstance(proved, str):
            return proved
        gone = torch.zeros(size, dtype=torch.bool, device=call.value.device)
        gone[self._positions.to(gone.device)] = True
        # positions of the part itself still see it
        rows = ~gone if self._across is None else torch.ones(self._total, dtype=torch.bool, device=gone.device)
        found = _contexts(call, proved, gone, rows)
        if found is None:
            return "the hidden part is all that some position sees"
        call.context[0][:, rows] = found[:, rows].to(call.context.dtype)
        return None


def _proved(call: AttentionCall) -> Visibility | str:
    """The mask that reproduces the call's context, on a sample of its rows."""
    queries = torch.arange(0, call.num_queries, max(1, call.num_queries // SAMPLE), device=call.value.device)
    why = ""
    for visibility in call.visibilities:
        weights, outside = exact_weights(call, visibility, item=0, queries=queries)
        keys = slice(0, call.num_keys)
        check = check_rows(call, visibility, weights, outside, item=0, queries=queries, keys=keys)
        if (complained := complaint(check, call.value.dtype)) is None:
            return visibility
        why = why or complained
    return why


def _contexts(
    call: AttentionCall, visibility: Visibility, gone: Bool[Tensor, " key"], rows: Bool[Tensor, " query"]
) -> Float[Tensor, "head query value_dim"] | None:
    """The context of every query over the keys that are left; None where one of these rows has none left."""
    none = torch.zeros(0, dtype=torch.int64)
    layout = Layout(0, slice(0, call.num_queries), slice(0, call.num_keys), 0, 0)
    text = Text(none, none, none, none, 0)
    softmax = rows_of(call, visibility, layout, k=0)
    group = call.num_heads // len(call.value[0])
    dtype = torch.promote_types(call.value.dtype, torch.float32)
    found = torch.zeros(call.num_heads, call.num_queries, call.value.shape[-1], dtype=dtype, device=call.value.device)
    for tile in tiles(call, visibility, layout, softmax, item=0, text=text):
        hidden = gone[tile.columns]
        lost = (tile.numerators * hidden).sum(-1)
        left = tile.totals - lost if tile.has_sinks else (tile.numerators * ~hidden).sum(-1)
        if (left[:, rows[tile.rows]] <= 0).any():
            return None
        weights = (tile.numerators * ~hidden) / left.clamp(min=1e-30)[..., None]
        keys = slice(tile.heads.start // group, (tile.heads.stop - 1) // group + 1)
        found[tile.heads, tile.rows] = contexts(weights.to(dtype), call.value[0][keys, tile.columns])
    return found
