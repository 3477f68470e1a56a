"""Sampling tokens by their probability, from all of them or from the more likely ones.

Holtzman et al. 2020, "The curious case of neural text degeneration" (top_p); Nguyen et al. 2024, "Turning up the heat:
min-p sampling" (min_p). Applied in Hugging Face's order: temperature, top_k, top_p, min_p, each to what those before
left.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.generation.options import SamplingOptions


def sampling_probabilities(
    log_probs: Float[Tensor, "*row vocabulary"], options: SamplingOptions
) -> Float[Tensor, "*row vocabulary"]:
    """The probabilities that tokens are sampled by, in float64; zero for those filtered out."""
    # the largest is 0 before the division, so that a small temperature gives -inf at worst
    logits = (log_probs.double() - log_probs.double().amax(dim=-1, keepdim=True)) / options.temperature
    if options.top_k is not None:
        least = logits.topk(min(options.top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if options.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        # a token stays while those before it fall short: that which reaches the sum stays too
        short = ranked.cumsum(dim=-1) - ranked < options.top_p
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked * short)
    likely = probabilities >= options.min_p * probabilities.amax(dim=-1, keepdim=True)
    probabilities = probabilities * likely
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def draw(probabilities: Float[Tensor, "*row vocabulary"], uniforms: Float[Tensor, "*row"]) -> Int[Tensor, "*row"]:
    """The token at which the sum of probabilities passes a number drawn evenly from [0, 1)."""
    sums = probabilities.cumsum(dim=-1)
    total = sums[..., -1:]
    # rounding must not lift the number to the very end, where no token is left
    reached = torch.minimum(uniforms[..., None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, reached, right=True).squeeze(-1)


def uniform_numbers(
    seed: int, sentences: Sequence[int], samples: int, steps: int
) -> Float[Tensor, "sentence sample step"]:
    """Numbers drawn evenly from [0, 1): a stream for each sample of each sentence, whatever others are drawn beside."""
    streams = [
        [np.random.default_rng([seed, sentence, sample]).random(steps) for sample in range(samples)]
        for sentence in sentences
    ]
    return torch.from_numpy(np.array(streams))
