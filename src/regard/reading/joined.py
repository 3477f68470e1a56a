"""One layer of one sequence, put together of the pieces that its runs gave: prompt, steps, windows."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError
from regard.reading.compute.statistics import ROLLOUT, STATISTICS
from regard.reading.compute.verify import worst
from regard.reading.record import Check, Top
from regard.reading.runs import Piece


class JoinedLayer:
    """One layer of one sequence, of the pieces that its runs gave."""

    def __init__(self, kind: str, parts: list[tuple[Piece, int]]) -> None:
        self.parts = parts
        self.num_queries = min(parts[-1][1], parts[-1][0].first_query + parts[-1][0].num_queries)
        self.num_keys = max(piece.first_key + piece.num_keys for piece, _ in parts)
        if kind == "decoder":
            # beyond its queries are tokens that were tried and thrown away
            self.num_keys = min(self.num_keys, self.num_queries)
        self.left_out = {name: why for piece, _ in parts for name, why in piece.left_out.items()}
        self.check: Check = parts[0][0].check
        for piece, _ in parts[1:]:
            self.check = worst(self.check, piece.check)

    def rows(self) -> set[int]:
        """Positions of the rows that were kept."""
        return {row for piece, end in self.parts for row in piece.rows if row < end}

    def _over(self, pick: Callable[[Piece], Tensor | None], rows: list[int], *, unseen: float = 0.0) -> np.ndarray:
        """Rows, [head, row, key or not], from the pieces that have them; `unseen` where a piece has no such key."""
        if self._is_whole and self.parts[0][0].rows == rows and (values := pick(self.parts[0][0])) is not None:
            return values.numpy()
        place = {row: index for index, row in enumerate(rows)}
        found: Tensor | None = None
        for piece, end in self.parts:
            values = pick(piece)
            if values is None:
                continue
            by_key = values.dim() == 3
            if found is None:
                shape = len(values), len(rows), *([self.num_keys] if by_key else [])
                found = torch.full(shape, unseen, dtype=torch.float32)
            own = [(index, place[row]) for index, row in enumerate(piece.rows) if row in place and row < end]
            if not own:
                continue
            sources, targets = (torch.tensor(each) for each in zip(*own, strict=True))
            if by_key:
                stop = min(self.num_keys, piece.first_key + piece.num_keys)
                part = values[:, sources, : stop - piece.first_key]
                found[:, targets, piece.first_key : stop] = part
            else:
                found[:, targets] = values[:, sources]
        assert found is not None
        return found.numpy()

    def weights(self, rows: list[int]) -> np.ndarray:
        return self._over(lambda piece: piece.weights, rows)

    @property
    def has_scores(self) -> bool:
        return all(piece.scores is not None for piece, _ in self.parts)

    def scores(self, rows: list[int]) -> np.ndarray:
        return self._over(lambda piece: piece.scores, rows, unseen=-np.inf)

    @property
    def _is_whole(self) -> bool:
        """Whether one run gave all of it, so that nothing needs to be put together, or copied."""
        ((piece, end), *others) = self.parts
        starts_and_ends = piece.first_query == piece.first_key == 0 and piece.num_queries == self.num_queries <= end
        return not others and starts_and_ends and piece.num_keys == self.num_keys

    def top(self) -> Top:
        if self._is_whole:
            (piece, _) = self.parts[0]
            assert piece.top is not None
            return Top(*(table.numpy() for table in piece.top))
        shape = None
        positions = weights = None
        for piece, end in self.parts:
            assert piece.top is not None
            if positions is None or weights is None:
                shape = (len(piece.top[0]), self.num_queries, piece.top[0].shape[-1])
                positions, weights = torch.full(shape, -1), torch.zeros(shape, dtype=torch.float32)
            stop = min(end, piece.first_query + piece.num_queries)
            positions[:, piece.first_query : stop] = piece.top[0][:, : stop - piece.first_query]
            weights[:, piece.first_query : stop] = piece.top[1][:, : stop - piece.first_query]
        assert positions is not None
        assert weights is not None
        return Top(positions.numpy(), weights.numpy())

    def statistics(self, rows: list[int]) -> dict[str, np.ndarray]:
        found = {name: self._statistic(name) for name in self.parts[0][0].statistics}
        for name in self.parts[0][0].row_statistics:
            # a token that is fed by itself finds no layer's queries of those before it
            if name in self.left_out or (name == ROLLOUT and len(self.parts) > 1):
                continue
            found[name] = self._over(lambda piece, name=name: piece.row_statistics.get(name), rows)
        if ROLLOUT in found:
            found[ROLLOUT] = found[ROLLOUT][0]
        if any(piece.outside is not None for piece, _ in self.parts):
            found["sink_share"] = self._over(lambda piece: piece.outside, rows)
        return found

    def _statistic(self, name: str) -> np.ndarray:
        if self._is_whole:
            return self.parts[0][0].statistics[name].numpy()
        axis = STATISTICS[name].axis
        pieces = [(piece, piece.statistics[name], end) for piece, end in self.parts]
        heads = len(pieces[0][1])
        if axis == "query":
            total = torch.full((heads, self.num_queries), torch.nan, dtype=torch.float32)
        elif axis == "key":
            total = torch.zeros(heads, self.num_keys, dtype=torch.float32)
        elif axis == "query segment":
            total = torch.zeros(
                heads, self.num_queries, max(values.shape[2] for _, values, _ in pieces), dtype=torch.float32
            )
        else:
            total = torch.zeros(
                heads, max(values.shape[1] for _, values, _ in pieces), self.num_keys, dtype=torch.float32
            )
        for piece, values, end in pieces:
            if axis.startswith("query"):
                stop = min(end, piece.first_query + piece.num_queries)
                part = values[:, : stop - piece.first_query]
                total[(slice(None), slice(piece.first_query, stop), *(slice(size) for size in part.shape[2:]))] = part
            else:
                stop = min(self.num_keys, piece.first_key + piece.num_keys)
                if end < piece.first_query + piece.num_queries:
                    raise RegardError(f"{name} also sums over tokens that were tried and thrown away")
                part = values[..., : stop - piece.first_key]
                where = slice(piece.first_key, stop)
                if axis == "key":
                    total[:, where] += part
                else:
                    total[:, : part.shape[1], where] += part
        return total.numpy()
