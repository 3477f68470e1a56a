"""What an atlas measures of every row of every head, by which it says what heads do.

Each measure has a source that defined it. A head that looks everywhere alike shows what chance gives; rows on which it
gives nothing or everything say nothing about a head and are left out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from regard.reading.compute.statistics import STATISTICS

# the whole part and the parts of a row's number that are kept: sums of whole numbers are exact in any order
UNIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number for each row of each head.

    `role` is what a head is called that has much of it, "" where that names none. Where `unit` is "share" it is a part
    of a row's weight. Quantiles are known to within `edges`, the bounds of fixed bins.
    """

    label: str
    label_zh: str
    meaning: str
    source: str
    unit: str
    edges: Float[np.ndarray, " edge"]
    role: str = ""
    role_zh: str = ""
    # the measure whose rows are shown where rows of this one say nothing to a reader
    shown_by: str = ""

    @property
    def bins(self) -> int:
        return len(self.edges) - 1

    def bin_of(self, values: Float[np.ndarray, "*axes"]) -> Int[np.ndarray, "*axes"]:
        """The bin of each value; what is beyond the last edge is in the last."""
        return np.searchsorted(self.edges[1:-1], values, side="right")


SHARES = np.linspace(0, 1, 101)
# a tenth of a nat, up to the entropy of a hundred million keys alike
NATS = np.linspace(0, 18.4, 185)
# a quarter of an octave, up to a million tokens
TOKENS = np.concatenate([[0], 2 ** (np.arange(81) / 4)])
ROLES = {
    "duplicate_token": ("duplicate token", "重复词元"),
    "previous_token": ("previous token", "前一词元"),
    "local": ("local", "近处"),
    "own_segment": ("segment", "本段"),
    "first_token": ("sink", "注意力汇"),
}
EDGES = {"share": SHARES, "nats": NATS, "tokens": TOKENS}
RETRIEVAL, PREFIX_MATCHING = "retrieval", "prefix_matching"


def _of_statistic(name: str) -> Measure:
    own = STATISTICS[name]
    facts = {"label": own.label, "label_zh": own.label_zh, "meaning": own.meaning, "source": own.source}
    role, role_zh = ROLES.get(name, ("", ""))
    return Measure(**facts, unit=own.unit, edges=EDGES[own.unit], role=role, role_zh=role_zh)


# in the order in which heads are named: what few heads do comes first
MEASURES: dict[str, Measure] = {
    PREFIX_MATCHING: Measure(
        label="prefix matching",
        label_zh="前缀匹配",
        meaning="induction on random tokens given twice: the weight on what followed the token the first time",
        source="Olsson et al. 2022",
        unit="share",
        edges=SHARES,
        role="induction",
        role_zh="归纳",
        shown_by="induction",
    ),
    RETRIEVAL: Measure(
        label="retrieval",
        label_zh="检索",
        meaning="whether the strongest key of row i is the token that comes next, i + 1: 1 or 0",
        source="Wu et al. 2024",
        unit="share",
        edges=SHARES,
        role="retrieval",
        role_zh="检索",
    ),
    **{name: _of_statistic(name) for name in (*ROLES, "induction", "entropy", "distance")},
}
# those that a pass over all rows gives
SWEPT = tuple(name for name in MEASURES if name in STATISTICS)
# of which examples are kept
SHOWN = tuple(name for name, measure in MEASURES.items() if measure.unit == "share" and not measure.shown_by)


def retrieved(
    strongest: Int[np.ndarray, "head query"], tokens: Int[np.ndarray, " query"]
) -> Float[np.ndarray, "head query"]:
    """Where the strongest key is the token that comes next; NaN in the last row.

    Wu et al. 2024, "Retrieval head mechanistically explains long-context factuality", section 2.
    """
    found = np.full(strongest.shape, np.nan, np.float32)
    found[:, :-1] = tokens[strongest[:, :-1]] == tokens[1:]
    return found


def retrieved_by_chance(tokens: Int[np.ndarray, " query"]) -> Float[np.ndarray, " query"]:
    """What `retrieved` is on average where every key up to the row's own is as likely to be the strongest."""
    found = np.full(len(tokens), np.nan, np.float32)
    counts: dict[int, int] = {}
    for row, (own, following) in enumerate(zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True)):
        counts[own] = counts.get(own, 0) + 1
        found[row] = counts.get(following, 0) / (row + 1)
    return found
