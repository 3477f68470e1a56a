"""Why did it look there? The score of one weight, split by what earlier layers gave to the query and to the key.

A score is scale · query · key, and with norms frozen query and key are sums of what the embedding, each head and each
feed-forward before the layer gave them. So a score is a sum over pairs: what a part on the query's side met on the
key's side. Elhage et al. 2021, "A mathematical framework for transformer circuits", on Q- and K-composition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float

from regard.errors import RegardError
from regard.reading.call import AttentionCall, exact_scores, exact_weights
from regard.reading.capture import session
from regard.reading.compute.verify import check_rows, complaint
from regard.reading.contributions import Component, Stream
from regard.reading.options import refuse_compiled
from regard.reading.record import Token

if TYPE_CHECKING:
    import pandas

# largest error of the sum, relative where the score is above 1
TOLERANCE = 1e-4
# how far a weight may be from that of the reading, which was taken before
SAME = 1e-2
BIAS = Component("bias")


class Share(NamedTuple):
    """What a component on the query's side and one on the key's side give to the score together."""

    query: Component
    key: Component
    score: float


@final
@dataclass(frozen=True, eq=False)
class QKAttribution:
    """The score of one weight as a table over pairs of `components`: of the query, row by row, and of the key.

    Components are the embedding, each head and each feed-forward of the layers before, `attention bias` where output
    projections have one, and last `bias`, what the layer's own norm and projections add to query and key whatever they
    are given. `score` is scale · query · key of the real run, which the table sums to within 1e-4 (relative above 1).
    `softcap` is applied to it after that, and `added` is what a bias of positions such as ALiBi adds after both;
    `weight` is what the softmax makes of the row. Norms are frozen: they scale each component as they scaled the sum.
    A softmax compares keys, and what a row gives to all keys alike cancels: compare with the table of another key.
    """

    layer: int
    head: int
    row: int
    key: int
    row_token: str
    key_token: str
    components: list[Component]
    table: Float[np.ndarray, "query_component key_component"]
    score: float
    weight: float
    added: float = 0.0
    softcap: float | None = None

    def __repr__(self) -> str:
        pairs = ", ".join(f"{query} × {key} {score:+.2f}" for query, key, score in self.strongest(3))
        return (
            f"<QKAttribution of layer {self.layer} head {self.head}: {self.row_token!r} at {self.row} looked at "
            f"{self.key_token!r} at {self.key} with weight {self.weight:.3f}, score {self.score:.2f}; most from "
            f"{pairs}>"
        )

    @property
    def by_query(self) -> dict[Component, float]:
        """What each component on the query's side gives to the score, whatever it meets."""
        return dict(zip(self.components, self.table.sum(1).tolist(), strict=True))

    @property
    def by_key(self) -> dict[Component, float]:
        """What each component on the key's side gives to the score, whatever it meets."""
        return dict(zip(self.components, self.table.sum(0).tolist(), strict=True))

    def strongest(self, count: int = 10) -> list[Share]:
        """The pairs that raise or lower the score most, the strongest first."""
        order = np.argsort(-np.abs(self.table), axis=None, kind="stable")[:count]
        places = zip(*np.unravel_index(order, self.table.shape), strict=True)
        return [Share(self.components[q], self.components[k], float(self.table[q, k])) for q, k in places]

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each pair of components: `query`, `key` and `score`. Raises RegardError without pandas."""
        from regard.reading.frames import library

        names = np.array([str(each) for each in self.components])
        query, key = (axis.ravel() for axis in np.indices(self.table.shape))
        columns = {"query": names[query], "key": names[key], "score": self.table.ravel()}
        return library("pandas", "to_frame").DataFrame(columns)

    def to_json(self, count: int = 20) -> dict[str, Any]:
        """As plain data: of the table the strongest pairs and the sums over its rows and columns."""
        return {
            **{name: getattr(self, name) for name in ("layer", "head", "row", "key", "row_token", "key_token")},
            **{name: getattr(self, name) for name in ("score", "weight", "added", "softcap")},
            "strongest": [
                {"query": share.query._asdict(), "key": share.key._asdict(), "score": share.score}
                for share in self.strongest(count)
            ],
            "by_query": [each._asdict() | {"score": score} for each, score in self.by_query.items()],
            "by_key": [each._asdict() | {"score": score} for each, score in self.by_key.items()],
        }


@torch.no_grad()
def attribute(
    module: Any,
    tokens: Sequence[Token],
    layer: int,
    head: int,
    row: int,
    key: int,
    *,
    known: float | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> QKAttribution:
    """Split the score of a head between two positions of a text; `known` is the weight that was read, if it was.

    `progress` hears of the real run, of the parts of the residual stream, and of those of query and key.

    Raises RegardError for a key that the row does not see, a model that is in training mode, runs in half precision or
    is not built of blocks that add to one residual stream, and where the parts do not sum to the score.
    """
    if not all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in (head, row, key)):
        raise RegardError(f"a head, a row and a key are whole numbers, not {head!r}, {row!r} and {key!r}")
    if not 0 <= row < len(tokens):
        raise RegardError(f"there is no row {row}; the text has positions 0 to {len(tokens) - 1}")
    if not 0 <= key <= row:
        raise RegardError(f"row {row} sees keys 0 to {row}, not {key}")
    if module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    refuse_compiled(module)
    session.refuse_changed(module)
    name = type(module).__name__
    stream = Stream(module, [token.id for token in tokens[: row + 1]], (key, row), layer)
    call = stream.call
    if (why := _unfit(call)) is not None:
        raise RegardError(f"the score cannot be split: {why}")
    if not 0 <= head < call.num_heads:
        raise RegardError(f"there is no head {head}; layer {layer} has heads 0 to {call.num_heads - 1}")
    weight, biased = _row(call, head, row, key)
    if known is not None and abs(weight - known) > SAME:
        raise RegardError(
            f"{name} gives the weight {weight:.3f} now, and {known:.3f} in the reading: it was changed since, or what "
            "it saw depends on the text after the row; take a new reading"
        )
    progress(1)
    components, parts = stream.contributions()
    progress(1)
    query, keys = stream.queries_and_keys(parts, head)
    progress(1)
    real_query, real_key = (each.double()[0] for each in stream.of_head(call, head, (key, row)))
    score = float(real_query @ real_key * call.scale)
    table = (query @ keys.T * call.scale).cpu().numpy()
    if not abs(error := float(table.sum()) - score) <= TOLERANCE * max(1.0, abs(score)):
        raise RegardError(
            f"the parts that {name} gives to query and key do not sum to the score {score:.4f}: off by {error:.1e}"
        )
    capped = score if call.softcap is None else call.softcap * float(np.tanh(score / call.softcap))
    return QKAttribution(
        layer, head, row, key, tokens[row].text, tokens[key].text, [*components, BIAS], table, score, weight,
        added=biased - capped, softcap=call.softcap,
    )  # fmt: skip


def _unfit(call: AttentionCall) -> str | None:
    if call.refused is not None:
        return call.refused
    if call.weights is not None:
        return f"{call.path} computes its weights in code of its own, whose queries and keys are not seen"
    if call.query.dtype.itemsize == 2:
        return (
            f"the model runs in {str(call.query.dtype).removeprefix('torch.')}, whose rounding is larger than many "
            'parts; load it with dtype="float32"'
        )
    if any(each.score_mod is not None for each in call.visibilities):
        return f"{call.path} changes scores by a function"
    return None


def _row(call: AttentionCall, head: int, row: int, key: int) -> tuple[float, float]:
    """The weight, proved by the context, and what the softmax is given for it."""
    queries = torch.tensor([row], device=call.value.device)
    why = None
    for visibility in call.visibilities:
        weights, outside = exact_weights(call, visibility, item=0, queries=queries)
        found = check_rows(call, visibility, weights, outside, item=0, queries=queries, keys=slice(0, call.num_keys))
        if (complained := complaint(found, call.value.dtype)) is None:
            biased = float(exact_scores(call, visibility, item=0, queries=queries)[head, 0, key])
            if biased == -np.inf:
                raise RegardError(f"row {row} does not see key {key} in this layer")
            return float(weights[head, 0, key]), biased
        why = why or complained
    raise RegardError(f"the score cannot be split: {why}")
