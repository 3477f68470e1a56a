"""Greedy search, sampling and beam search over a model that takes one step at a time.

Log-probabilities are summed in float32, or in float64 where the model has it; among equal sums the earlier hypothesis
wins, then the smaller token id. Finished sentences leave the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.attention.output import ModelOutput
from regard.data.batch import OWN_FRAMES, Frames
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.sampling import draw, sampling_probabilities, uniform_numbers
from regard.generation.spelling import TextConstraint
from regard.models import TranslatorModule


@dataclass(frozen=True)
class Hypothesis:
    """Written tokens without the end, their log-probability with it, and the score that decoding's settings make of it.

    `finished` is False where the limit came before the end.
    """

    tokens: list[int]
    log_probability: float
    score: float
    finished: bool


@torch.inference_mode()
def sequence_search(
    model: TranslatorModule,
    source: Int[Tensor, "batch source"],
    lengths: Int[Tensor, " batch"],
    *,
    limits: Int[Tensor, " batch"],
    decoding: Decoding,
    constraint: TextConstraint,
    numbers: Sequence[int] = (),
    frames: Frames = OWN_FRAMES,
) -> list[list[Hypothesis]]:
    """At every step the most likely token that the constraint allows or, with `do_sample`, `n_best` times a sample.

    At most `limits[i]` tokens, EOS counted. The samples of sentence i follow from `numbers[i]`.
    """
    samples = decoding.n_best
    uniforms = None
    if decoding.do_sample:
        uniforms = uniform_numbers(decoding.seed, numbers, samples, constraint.longest(limits)).to(source.device)
    cache = model.encode(source, lengths)
    results: list[list[Hypothesis | None]] = [[None] * samples for _ in range(len(source))]
    sentences, limits = torch.arange(len(source), device=source.device), limits.to(source.device)[:, None]
    tokens = torch.full_like(source[:, :1], frames.start)
    states = constraint.start(tokens)
    # -inf is the sum of a hypothesis that goes on no more
    sums, written = torch.zeros_like(tokens, dtype=torch.float32), tokens[:, :, None][:, :, :0]
    while len(sentences):
        step = written.shape[2]
        limits = constraint.limits(limits, states)
        log_probs = _wide(model.decode_step(tokens, cache).logits).log_softmax(dim=-1)
        log_probs = constraint.close(log_probs, sentences, states, limits, step).expand(-1, samples, -1)
        if uniforms is None:
            # argmax gives the first of equal maxima, hence the smaller id
            tokens = log_probs.argmax(dim=-1)
        else:
            tokens = draw(sampling_probabilities(log_probs, decoding), uniforms[sentences, :, step])
        sums = sums + log_probs.gather(2, tokens[:, :, None]).squeeze(2)
        written = torch.cat([written.expand(-1, samples, -1), tokens[:, :, None]], dim=2)
        scores = sums / decoding.normalizer(step + 1)
        limits, states = limits.expand_as(tokens), constraint.after(sentences, states.expand_as(tokens), tokens)
        ended = ((tokens == frames.end) | constraint.cut(limits, states, step)) & sums.isfinite()
        total, sums = sums, sums.masked_fill(ended, -torch.inf)
        ends, going = _look(ended, sums.isfinite())
        for row, sample in ends.nonzero().tolist():
            at = row, sample
            results[int(sentences[row])][sample] = _hypothesis(written[at].tolist(), total[at], scores[at], frames.end)
        kept = going.any(dim=1).nonzero().flatten().to(source.device)
        beams = torch.arange(samples, device=source.device) if step else torch.zeros_like(tokens[0])
        cache.select(kept, beams.expand(len(kept), -1))
        sentences, limits, states, tokens, sums, written = (
            x[kept] for x in (sentences, limits, states, tokens, sums, written)
        )
    return [[hypothesis for hypothesis in found if hypothesis is not None] for found in results]


@torch.inference_mode()
def beam_search(
    model: TranslatorModule,
    source: Int[Tensor, "batch source"],
    lengths: Int[Tensor, " batch"],
    *,
    limits: Int[Tensor, " batch"],
    decoding: Decoding,
    constraint: TextConstraint,
    frames: Frames = OWN_FRAMES,
) -> list[list[Hypothesis]]:
    """The `n_best` hypotheses of each sentence, best first, that a search with `num_beams` of them finishes.

    No two of them have the same text: of several spellings of one the best is kept. A sentence ends when it has
    finished `num_beams` texts and the most likely of the others, at its present length, could not enter among them; or
    at its limit, where what is unfinished is ranked behind what is finished.
    """
    num_beams = decoding.num_beams
    cache = model.encode(source, lengths)
    results: list[list[Hypothesis]] = [[] for _ in range(len(source))]
    texts: list[set[object]] = [set() for _ in range(len(source))]
    sentences, limits = torch.arange(len(source), device=source.device), limits.to(source.device)[:, None]
    tokens = torch.full_like(source[:, :1], frames.start)
    states = constraint.start(tokens)
    # -inf is the sum of a hypothesis that goes on no more
    sums, written = torch.zeros_like(tokens, dtype=torch.float32), tokens[:, :, None][:, :, :0]
    # the scores of the best finished ones, best first; -inf where there is none yet
    best = torch.full((len(source), num_beams), -torch.inf, device=source.device)
    # how much each token of the source was looked at; special tokens and padding need not be
    position = torch.arange(source.shape[1], device=source.device)
    before, after = map(len, frames.source)
    outside = (position < before) | (position >= lengths[:, None] - after)
    coverage = outside[:, None].to(sums.dtype)
    while len(sentences):
        step = written.shape[2]
        limits = constraint.limits(limits, states)
        output = model.decode_step(tokens, cache, read=decoding.coverage_penalty > 0)
        log_probs = _wide(output.logits).log_softmax(dim=-1)
        log_probs = constraint.close(log_probs, sentences, states, limits, step)
        values, index = top_candidates(log_probs.add_(sums[:, :, None]).flatten(1), 2 * num_beams)
        beams, tokens = index // log_probs.shape[2], index % log_probs.shape[2]
        normalizer = decoding.normalizer(step + 1)
        scores = values / normalizer
        if decoding.coverage_penalty:
            coverage = coverage + _cross_attention(output)
            scores = scores + (decoding.coverage_penalty * log_coverage(coverage)).gather(1, beams)

        ends = tokens == frames.end
        finished = ends & (torch.arange(ends.shape[1], device=ends.device) < num_beams) & values.isfinite()
        # among the 2 × num_beams best at most num_beams end, so that enough go on
        onward = ends.int().argsort(dim=1, stable=True)[:, :num_beams]
        sums = values.gather(1, onward).masked_fill(ends.gather(1, onward), -torch.inf)
        limits, states = (x.gather(1, beams.gather(1, onward)) for x in (limits, states))
        states = constraint.after(sentences, states, tokens.gather(1, onward))
        cut = constraint.cut(limits, states, step) & sums.isfinite()
        done = (finished | torch.zeros_like(ends).scatter(1, onward, cut)).cpu()
        for row, column in done.nonzero().tolist():
            at, sentence = (row, column), int(sentences[row])
            tokens_written = [*written[row, beams[at]].tolist(), int(tokens[at])]
            hypothesis = _hypothesis(tokens_written, values[at], scores[at], frames.end)
            results[sentence].append(hypothesis)
            if hypothesis.finished:
                # another spelling of a text that was finished before does not count
                finished[at] = (text := constraint.text(hypothesis.tokens)) not in texts[sentence]
                texts[sentence].add(text)

        best = torch.cat([best, scores.masked_fill(~finished, -torch.inf)], dim=1).topk(num_beams).values
        # what coverage costs may yet vanish, so that nothing is counted for what goes on
        surpassed = best[:, -1:] >= sums[:, :1] / normalizer
        sums = sums.masked_fill(cut | surpassed, -torch.inf)
        kept = sums.isfinite().any(dim=1).nonzero().flatten()
        beams, tokens = beams.gather(1, onward)[kept], tokens.gather(1, onward)[kept]
        cache.select(kept, beams)
        written = torch.cat([written[kept[:, None], beams], tokens[:, :, None]], dim=2)
        coverage = coverage[kept[:, None], beams]
        sentences, limits, states, sums, best = (x[kept] for x in (sentences, limits, states, sums, best))
    return [_distinct(hypotheses, constraint)[: decoding.n_best] for hypotheses in results]


def top_candidates(
    scores: Float[Tensor, "batch candidate"], count: int
) -> tuple[Float[Tensor, "batch count"], Int[Tensor, "batch count"]]:
    """The `count` highest, or all, highest first; of equal ones, unless they are -inf, that with the lower index."""
    values, index = scores.topk(min(count + 1, scores.shape[1]))
    # topk leaves the order of equal scores open; they are rare, so only those rows are sorted in full
    tied = ((values[:, :-1] == values[:, 1:]) & values[:, 1:].isfinite()).any(dim=1).nonzero().flatten()
    if len(tied):
        ordered = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], index[tied] = ordered.values[:, : values.shape[1]], ordered.indices[:, : values.shape[1]]
    return values[:, :count], index[:, :count]


def log_coverage(coverage: Float[Tensor, "row beam source"]) -> Float[Tensor, "row beam"]:
    """The sum over source tokens of log(min(weight received, 1)): Wu et al. 2016, equation 14, without its β.

    "Google's neural machine translation system: bridging the gap between human and machine translation".
    """
    # a weight may round to zero, whose logarithm would rule the hypothesis out
    return coverage.clamp(min=torch.finfo(coverage.dtype).tiny, max=1).log().sum(dim=2)


def _cross_attention(output: ModelOutput) -> Float[Tensor, "row beam source"]:
    """The last layer's, mean of its heads."""
    if not output.attention:
        raise RegardError(
            "coverage_penalty asks how much each source token was looked at, and this model has no attention; leave it "
            "out"
        )
    return _wide(output.attention[-1].weights).mean(dim=1)


def _look(*masks: Bool[Tensor, "row _"]) -> list[Bool[Tensor, "row _"]]:
    """These masks where Python can see them, with a single wait for the device."""
    return list(torch.cat(masks, dim=1).cpu().split([mask.shape[1] for mask in masks], dim=1))


def _hypothesis(written: list[int], log_probability: Tensor, score: Tensor, end: int) -> Hypothesis:
    finished = written[-1] == end
    return Hypothesis(written[:-1] if finished else written, float(log_probability), float(score), finished)


def _wide(numbers: Tensor) -> Tensor:
    return numbers if numbers.dtype == torch.float64 else numbers.float()


def _distinct(hypotheses: list[Hypothesis], constraint: TextConstraint) -> list[Hypothesis]:
    """The best one of each text, finished before unfinished, then by score; of equal ones the earlier stays first."""
    ranked = sorted(hypotheses, key=lambda hypothesis: (not hypothesis.finished, -hypothesis.score))
    texts: dict[object, Hypothesis] = {}
    for hypothesis in ranked:
        texts.setdefault(constraint.text(hypothesis.tokens), hypothesis)
    return list(texts.values())
