"""A mechanism of your own: one entry in MECHANISMS, and a recipe may name it."""

import itertools
from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

import regard
from regard.attention import MECHANISMS
from regard.attention.mechanism import AttentionMechanism


@final
class CosineAttention(AttentionMechanism):
    """score = 10 · cos(query, W key)."""

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Linear(key_dim, query_dim, bias=False)

    def prepare(self, key: Float[Tensor, "batch key key_dim"]) -> Float[Tensor, "batch key query_dim"]:
        return normalize(self.key_proj(key), dim=-1)

    def scores(
        self, query: Float[Tensor, "batch query dim"], prepared: Float[Tensor, "batch key dim"]
    ) -> Float[Tensor, "batch query key"]:
        return 10 * normalize(query, dim=-1) @ prepared.mT


MECHANISMS["cosine"] = CosineAttention

orders = itertools.permutations(("one", "two", "three", "four", "five"), 3)
pairs = "".join(f"{a} {b} {c}\t{c} {b} {a}\n" for a, b, c in orders)
Path("backwards.tsv").write_text(pairs, encoding="utf-8")
changes = {"model.attention": "cosine", "data.train": "backwards.tsv", "train.steps": 100}
translator = regard.train("numbers-bahdanau", out="runs/cosine", changes=changes)
print(translator.read("two four one").alignment().round(2))
