"""Greedy and beam search over a model that takes one step at a time.

Scores are sums of log-probabilities in float32; among equal scores the earlier hypothesis wins, then the
smaller token id. A finished sentence leaves the batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.data.batch import BOS, EOS, PAD
from regard.models import TranslatorModule


@dataclass(frozen=True)
class Hypothesis:
    """Written tokens without EOS; `score` is log-probability / length ** length_penalty, EOS counted.

    `finished` is False where the limit came before EOS.
    """

    tokens: list[int]
    score: float
    finished: bool


@torch.inference_mode()
def greedy_search(
    model: TranslatorModule,
    source: Int[Tensor, "batch source"],
    lengths: Int[Tensor, " batch"],
    *,
    limits: Int[Tensor, " batch"],
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The likeliest token at every step, at most `limits[i]` of them, EOS counted."""
    cache = model.encode(source, lengths)
    results: list[list[Hypothesis]] = [[] for _ in range(len(source))]
    alive = torch.arange(len(source), device=source.device)
    limits = limits.to(source.device)
    tokens = torch.full_like(source[:, :1], BOS)
    scores = torch.zeros(len(source), device=source.device)
    written = tokens[:, :0]
    while len(alive):
        log_probs = _log_probs(model.decode_step(tokens, cache)).squeeze(1)
        # argmax gives the first of equal maxima, hence the smaller id
        tokens = log_probs.argmax(dim=-1, keepdim=True)
        scores = scores + log_probs.gather(1, tokens).squeeze(1)
        written = torch.cat([written, tokens], dim=1)
        finished = tokens.squeeze(1) == EOS
        ended = finished | (limits <= written.shape[1])
        if ended.any():
            for row in ended.nonzero().flatten().tolist():
                results[int(alive[row])] = [
                    _hypothesis(written[row].tolist(), float(scores[row]), length_penalty, bool(finished[row]))
                ]
            kept = (~ended).nonzero().flatten()
            cache.select(kept, torch.zeros_like(kept)[:, None])
            alive, limits, tokens, scores, written = (x[kept] for x in (alive, limits, tokens, scores, written))
    return results


@torch.inference_mode()
def beam_search(
    model: TranslatorModule,
    source: Int[Tensor, "batch source"],
    lengths: Int[Tensor, " batch"],
    *,
    limits: Int[Tensor, " batch"],
    num_beams: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The `num_beams` best finished hypotheses of each sentence, best first.

    A sentence ends when it has that many and its best unfinished one, at its present length, could not
    enter among them; or at its limit, where what is unfinished is ranked behind what is finished.
    """
    cache = model.encode(source, lengths)
    results: list[list[Hypothesis]] = [[] for _ in range(len(source))]
    alive = torch.arange(len(source), device=source.device)
    limits = limits.to(source.device)
    tokens = torch.full_like(source[:, :1], BOS)
    scores = torch.zeros(tokens.shape, device=source.device)
    written = tokens[:, :, None][:, :, :0]
    # the scores of the best finished ones, best first; -inf where there is none yet
    best = torch.full((len(source), num_beams), -torch.inf, device=source.device)
    while len(alive):
        log_probs = _log_probs(model.decode_step(tokens, cache))
        vocab_size = log_probs.shape[-1]
        candidates = (scores[:, :, None] + log_probs).flatten(1)
        values, index = top_candidates(candidates, min(2 * num_beams, candidates.shape[1]))
        beams, tokens = index // vocab_size, index % vocab_size
        length = written.shape[2] + 1
        ends = tokens == EOS

        done = ends & (torch.arange(ends.shape[1], device=ends.device) < num_beams) & values.isfinite()
        for row, column in done.nonzero().tolist():
            prefix = written[row, beams[row, column]].tolist()
            total = float(values[row, column])
            results[int(alive[row])].append(_hypothesis([*prefix, EOS], total, length_penalty, True))
        finished = (values / length**length_penalty).masked_fill(~done, -torch.inf)
        best = torch.cat([best, finished], dim=1).sort(dim=1, descending=True).values[:, :num_beams]

        # among the 2 × num_beams best at most num_beams end, so that enough go on
        going = ends.int().argsort(dim=1, stable=True)[:, :num_beams]
        scores, beams, tokens = (part.gather(1, going) for part in (values, beams, tokens))
        scores = scores.masked_fill(tokens == EOS, -torch.inf)
        written = torch.cat([written[torch.arange(len(alive))[:, None], beams], tokens[:, :, None]], dim=2)

        at_limit = limits <= length
        ended = (best[:, -1] >= scores[:, 0] / length**length_penalty) | at_limit
        for row in (at_limit & ended).nonzero().flatten().tolist():
            _add_unfinished(results[int(alive[row])], written[row], scores[row], length_penalty)
        kept = (~ended).nonzero().flatten()
        cache.select(kept, beams[kept])
        alive, limits, tokens, scores, written, best = (x[kept] for x in (alive, limits, tokens, scores, written, best))
    return [_ranked(hypotheses)[:num_beams] for hypotheses in results]


def top_candidates(
    scores: Float[Tensor, "batch candidate"], count: int
) -> tuple[Float[Tensor, "batch count"], Int[Tensor, "batch count"]]:
    """The `count` highest, highest first; of equal ones that with the lower index."""
    values, index = scores.topk(min(count + 1, scores.shape[1]))
    # topk leaves the order of equal scores open; they are rare, so only those rows are sorted in full
    tied = (values[:, :-1] == values[:, 1:]).any(dim=1).nonzero().flatten()
    if len(tied):
        ordered = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], index[tied] = ordered.values[:, : values.shape[1]], ordered.indices[:, : values.shape[1]]
    return values[:, :count], index[:, :count]


def _log_probs(logits: Float[Tensor, "batch beam vocabulary"]) -> Float[Tensor, "batch beam vocabulary"]:
    log_probs = logits.float().log_softmax(dim=-1)
    log_probs[..., [PAD, BOS]] = -torch.inf
    return log_probs


def _hypothesis(tokens: list[int], total: float, length_penalty: float, finished: bool) -> Hypothesis:
    score = total / len(tokens) ** length_penalty
    return Hypothesis(tokens=tokens[:-1] if finished else tokens, score=score, finished=finished)


def _add_unfinished(
    hypotheses: list[Hypothesis],
    written: Int[Tensor, "beam step"],
    scores: Float[Tensor, " beam"],
    length_penalty: float,
) -> None:
    for tokens, total in zip(written.tolist(), scores.tolist(), strict=True):
        if total > float("-inf"):
            hypotheses.append(_hypothesis(tokens, total, length_penalty, False))


def _ranked(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """Finished before unfinished, then by score; sorting is stable, so that of equal ones the earlier stays first."""
    return sorted(hypotheses, key=lambda hypothesis: (not hypothesis.finished, -hypothesis.score))
