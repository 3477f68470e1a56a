"""The effect of removing a span of a text: how much likelier or less likely the tokens after it become.

It is what confirms a source, asked of any span. Hiding a span from one row (`effects.py`) leaves what other rows have
gathered from it; without its tokens nothing of it is left.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.answer_run import AnswerRun
from regard.reading.capture import session
from regard.reading.record import Span

# tokens whose logits are held at once
AT_ONCE = 512


class Removal(NamedTuple):
    """The positions `start` to before `end` were removed.

    `effects` are in nats, log p without them minus log p with them, of the tokens from position `first` on: below 0 the
    span made the token likelier.
    """

    start: int
    end: int
    first: int
    effects: Float[np.ndarray, " token"]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**self._asdict(), "effects": self.effects.tolist()}


@torch.inference_mode()
def remove(module: Any, ids: Sequence[int], span: Span, *, first: int, progress: Callable[[int], None]) -> Removal:
    """Run a causal language model over tokens with and without a span, for its effect on those from `first` on.

    `progress` hears of each run as it is done: one with the span and one without, for every 512 tokens. Raises
    RegardError for a span that is not within the tokens, has no token after it that is judged, or leaves nothing before
    them.
    """
    start, end = span
    first = max(first, end)
    if not 0 <= start < end <= len(ids):
        raise RegardError(f"the text has positions 0 to {len(ids) - 1}, which the span {start}:{end} is not within")
    if first >= len(ids):
        raise RegardError(f"no token after the span {start}:{end} is judged; remove an earlier one, or read more rows")
    if end - start == first:
        raise RegardError(f"the span {start}:{end} is all that comes before token {first}; remove less of it")
    if module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    effects = []
    # they are no runs of the user's, whose watch may be open
    with session.only():
        for begin in range(first, len(ids), AT_ONCE):
            run = AnswerRun(module, list(ids[:begin]), list(ids[begin : begin + AT_ONCE]))
            before = run.run()
            progress(1)
            effects.append((run.without([span]) - before).cpu().numpy())
            progress(1)
    return Removal(start, end, first, np.concatenate(effects))
