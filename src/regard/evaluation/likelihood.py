"""How likely a model holds the reference translations to be."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from regard.data.bucketing import batches
from regard.data.prepare import TokenizedCorpus


class Likelihood(NamedTuple):
    """Natural log-probability of each target and the tokens that it sums over, EOS counted."""

    log_probs: Float[np.ndarray, " pair"]
    token_counts: Int[np.ndarray, " pair"]

    @property
    def loss(self) -> float:
        """Mean negative log-probability of a token; exp of it is the perplexity."""
        return float(-self.log_probs.sum() / self.token_counts.sum())


@torch.inference_mode()
def likelihood(
    model: nn.Module, corpus: TokenizedCorpus, *, batch_tokens: int = 4096, device: torch.device | str = "cpu"
) -> Likelihood:
    """Teacher-forced log-probabilities of the targets, in the order of the corpus."""
    was_training = model.training
    model.eval()
    log_probs = np.zeros(len(corpus))
    # a pair longer than a batch is a batch of its own
    batch_tokens = max(batch_tokens, int(corpus.source_lengths.max()), int(corpus.target_lengths.max()))
    for rows in batches(corpus.source_lengths, corpus.target_lengths, batch_tokens=batch_tokens, seed=0, epoch=0):
        batch = corpus.batch(rows).to(device)
        scores = model(batch).logits.float().log_softmax(dim=-1)
        chosen = scores.gather(2, batch.labels[:, :, None]).squeeze(2)
        log_probs[rows] = chosen.masked_fill(~batch.label_mask, 0.0).double().sum(dim=1).cpu().numpy()
    model.train(was_training)
    return Likelihood(log_probs=log_probs, token_counts=np.asarray(corpus.target_lengths) - 1)
