"""How likely a model holds the reference translations, or a text, to be."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.data.batch import Batch, Frames, TextBatch
from regard.data.conversations import Conversations
from regard.data.packed import PackedText
from regard.data.prepare import TokenizedCorpus

BATCH_TOKENS = 4096


class Likelihood(NamedTuple):
    """Natural log-probability of each target, or window, and the tokens that it sums over, its end counted."""

    log_probs: Float[np.ndarray, " row"]
    token_counts: Int[np.ndarray, " row"]

    @property
    def loss(self) -> float:
        """Mean negative log-probability of a token; exp of it is the perplexity."""
        return float(-self.log_probs.sum() / self.token_counts.sum())


@torch.inference_mode()
def likelihood(
    model: nn.Module,
    corpus: TokenizedCorpus | PackedText | Conversations,
    *,
    batch_tokens: int = BATCH_TOKENS,
    device: torch.device | str = "cpu",
    rank: int = 0,
    size: int = 1,
) -> Likelihood:
    """Teacher-forced log-probabilities, in the order of the corpus: of its targets, of the answers in
    its conversations, or of a text's windows.

    Of `size` processes each computes the batches of its `rank`; for the rows of the others it has zeros.
    """
    was_training = model.training
    model.eval()
    is_text = isinstance(corpus, PackedText)
    order = (
        corpus.in_order(batch_tokens=batch_tokens)
        if is_text
        # a row longer than a batch is a batch of its own
        else corpus.order(batch_tokens=max(batch_tokens, corpus.longest), seed=0, epoch=0)
    )
    starts = np.cumsum([0, *map(len, order)])
    log_probs, counts = np.zeros(starts[-1]), np.zeros(starts[-1], dtype=np.int64)
    for turn in range(rank, -(-len(order) // size) * size, size):
        # processes that share the weights must run the model equally often: the last batch once more, in vain
        index = min(turn, len(order) - 1)
        rows = order[index]
        batch = (corpus.batch(rows, once=True) if is_text else corpus.batch(rows.tolist())).to(device)
        asked = batch.label_mask
        if isinstance(batch, Batch) and isinstance(corpus, TokenizedCorpus):
            asked = _chosen(batch, corpus.frames)
        found = _log_probs(model, batch, asked)
        if index == turn:
            places = slice(*starts[index : index + 2]) if is_text else rows
            log_probs[places], counts[places] = found, asked.sum(dim=1).cpu().numpy()
    model.train(was_training)
    return Likelihood(log_probs=log_probs, token_counts=counts)


def _chosen(batch: Batch, frames: Frames) -> Bool[Tensor, "batch step"]:
    """The labels of the text and its end: a language tag is given to the model, not chosen by it."""
    place = torch.arange(batch.target.shape[1] - 1, device=batch.target.device)
    return (place >= frames.given) & (place < batch.target_lengths[:, None] - len(frames.target.after))


def _log_probs(
    model: nn.Module, batch: Batch | TextBatch, counts: Bool[Tensor, "batch step"]
) -> Float[np.ndarray, " row"]:
    logits = model(*batch.arguments).logits
    # row by row: a large vocabulary's scores of a whole batch would take as much memory again
    scores = (row.float().log_softmax(dim=-1) for row in logits)
    chosen = torch.stack(
        [row.gather(1, labels[:, None])[:, 0] for row, labels in zip(scores, batch.labels.clamp(min=0), strict=True)]
    )
    return chosen.masked_fill(~counts, 0.0).double().sum(dim=1).cpu().numpy()
