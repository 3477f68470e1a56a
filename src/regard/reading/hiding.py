"""Hiding keys from a query while a model runs: its context is replaced by the one that the other keys give.

Without the keys of a span S the weights of a row are weights[j] / (1 − Σ over S of weights), whatever masks, biases,
soft caps and sinks they came from. Nothing that goes into the attention changes.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.call import AttentionCall, contexts, exact_weights
from regard.reading.capture import patches, session
from regard.reading.compute.rows import unflattened
from regard.reading.compute.verify import check_rows, complaint
from regard.reading.record import Span


class Hiding(session.CallWatch):
    """A watch on one run of a model over `total` tokens that hides a span from the last query, one in each batch item.

    With `last_only` the run is fed the last token, and a cache has the others. With `mark` the context of the last
    query is filled with NaN instead, in item k + 1 for the k-th call.
    """

    def __init__(
        self, module: nn.Module, total: int, spans: Sequence[Span], *, last_only: bool = False, mark: bool = False
    ) -> None:
        super().__init__(module)
        self.spans = list(spans)
        self.calls = 0
        self._total = total
        self._fed = 1 if last_only else total
        self._mark = mark
        self._why: str | None = None

    def check(self) -> None:
        """Raises RegardError if something could not be hidden."""
        if self._why is not None:
            raise RegardError(self._why)

    # what capture asks of a watch

    def failed(self, path: str, error: Exception) -> None:
        self._why = self._why or f"a span cannot be hidden from {path}: {type(error).__name__}: {error}"

    def saw(self, call: AttentionCall) -> None:
        self.calls += 1
        if self._why is None and (why := self._hide(call)) is not None:
            self._why = f"a span cannot be hidden from {call.path}: {why}"

    def _hide(self, call: AttentionCall) -> str | None:
        """Write the context without the spans over the call's own; why that cannot be done."""
        if call.refused is not None:
            return call.refused
        if call.flat:
            call = unflattened(call, len(self.spans))
        if isinstance(call.module, nn.MultiheadAttention):
            return "torch's own module keeps its context to itself"
        if len(call.context) != len(self.spans) or call.num_queries != self._fed:
            return f"its {call.num_queries} queries are not the {self._fed} tokens that it was fed"
        # a window's cache has kept the last keys
        first = self._total - call.num_keys
        if first < 0 or (first > 0 and self._fed == self._total):
            return f"its {call.num_keys} keys are not the {self._total} tokens"
        for item, (start, end) in enumerate(self.spans):
            if self._mark:
                if item == self.calls:
                    call.context[item, :, -1] = torch.nan
                continue
            row = self._row(call, item, self._fed - 1)
            if isinstance(row, str):
                return row
            weights, outside = row
            if item == 0 and self._fed > 1:
                before = self._row(call, item, 0)
                if isinstance(before, str) or before[0][..., 1:].any():
                    return "its first query looks at later keys; effects need a causal language model"
            span = slice(max(0, start - first), max(0, end - first))
            if not weights[..., span].any():
                continue
            weights[..., span] = 0
            rest = weights.sum(-1, keepdim=True) + outside[..., None]
            if not (rest > 0).all():
                return f"the span {start}:{end} is all that it sees"
            call.context[item, :, -1] = contexts(weights / rest, call.value[item])[:, 0].to(call.context.dtype)
        return None

    def _row(
        self, call: AttentionCall, item: int, query: int
    ) -> tuple[Float[Tensor, "head 1 key"], Float[Tensor, "head 1"]] | str:
        """The weights of a query and its share for sinks, proved by the context; why there are none."""
        queries = torch.tensor([query], device=call.value.device)
        why = ""
        for visibility in call.visibilities:
            weights, outside = exact_weights(call, visibility, item=item, queries=queries)
            keys = slice(0, call.num_keys)
            found = check_rows(call, visibility, weights, outside, item=item, queries=queries, keys=keys)
            if (complained := complaint(found, call.value.dtype)) is None:
                return weights, outside
            why = why or complained
        return why


@contextlib.contextmanager
def hiding(hide: Hiding) -> Iterator[None]:
    """While this is open, runs of the model in this thread hide what `hide` says."""
    session.refuse_changed(hide.module)
    with patches.opened(hide, [hide.module]), session.only(hide):
        yield
