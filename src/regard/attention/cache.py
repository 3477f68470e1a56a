"""What decoding keeps between steps: one row a sentence of the source, one row a hypothesis of the target."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass
class Cache:
    """Tensors whose first axis is the sentence (`source`) or sentence × beam (`hypotheses`).

    The source is stored once however many beams look at it.
    """

    source: list[Tensor]
    hypotheses: list[Tensor]
    batch_size: int

    def select(self, sentences: Int[Tensor, " kept"], beams: Int[Tensor, "kept beam"]) -> None:
        """Keep these sentences, in rising order; hypothesis j of the i-th kept goes on from its beam `beams[i, j]`."""
        num_beams = self.hypotheses[0].shape[0] // self.batch_size
        rows = (sentences[:, None] * num_beams + beams).flatten()
        self.hypotheses = [tensor.index_select(0, rows) for tensor in self.hypotheses]
        if len(sentences) < self.batch_size:
            self.source = [tensor.index_select(0, sentences) for tensor in self.source]
            self.batch_size = len(sentences)
