"""Greedy and beam search find what trying everything finds, rank it rightly, and break ties by rule."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.cache import Cache
from regard.attention.output import ModelOutput
from regard.data.batch import BOS, EOS, PAD, UNKNOWN, collate, pad
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.search import Hypothesis, beam_search, log_coverage, sequence_search, top_candidates
from regard.generation.spelling import TextConstraint
from regard.models import build
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig

# two words beside the special tokens
VOCAB_SIZE = 6
WORDS = [UNKNOWN, 4, 5]
SOURCES = [[4, 5, 4], [5], [], [5, 5, 4, 4, 5]]
PENALTIES = [0.0, 0.7, 1.5]
CONFIGS = {
    "rnn": RNNConfig(embedding_dim=8, hidden_dim=8),
    "additive": RNNConfig(embedding_dim=8, hidden_dim=8, attention="additive"),
    "input feeding": RNNConfig(embedding_dim=8, hidden_dim=8, attention="general", cell="lstm", input_feeding=True),
    "transformer": TransformerConfig(model_dim=8, num_heads=2, num_layers=2, feed_forward_dim=16, max_length=32),
}


class Stub:
    """A model whose logits are any function of a source and of what was written after it."""

    def __init__(self, logits):
        self.logits = logits
        self.rows = []

    def __call__(self, batch, read=False):
        raise NotImplementedError

    def encode(self, source, lengths):
        return Cache(source=[source, lengths], hypotheses=[source[:, :0]], batch_size=len(source))

    def decode_step(self, tokens, cache, read=False):
        self.rows.append(tuple(tokens.shape))
        written = torch.cat([cache.hypotheses[0], tokens.reshape(-1, 1)], dim=1)
        cache.hypotheses = [written]
        source, lengths = cache.source
        sources = [row[: length - 1] for row, length in zip(source.tolist(), lengths.tolist(), strict=True)]
        per_sentence = tokens.shape[1]
        rows = [self.logits(sources[row // per_sentence], past[1:]) for row, past in enumerate(written.tolist())]
        return ModelOutput(logits=torch.tensor(rows).reshape(*tokens.shape, -1), attention=[])


def chance(seed, *, levels=None):
    """Logits at random, the same for the same source and past; of few `levels`, they tie often."""

    def logits(source, past):
        draw = random.Random(repr((seed, source, past)))
        return [draw.choice(levels) if levels else draw.gauss(0, 2) for _ in range(VOCAB_SIZE)]

    return logits


def model_of(name):
    model = build(CONFIGS[name], VOCAB_SIZE).double().eval()
    with torch.no_grad():
        # fresh models are nearly indifferent
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def search(model, sources, *, limit, num_beams=None, **settings):
    """Greedy search, or all that a beam search finds."""
    source, lengths = pad([[*ids, EOS] for ids in sources])
    limits = torch.tensor([limit] * len(sources) if isinstance(limit, int) else limit)
    constraint = TextConstraint(None, None, room=100, apart=False, device=torch.device("cpu"))
    if num_beams is None:
        decoding = Decoding(**settings)
        return sequence_search(model, source, lengths, limits=limits, decoding=decoding, constraint=constraint)
    decoding = Decoding(num_beams=num_beams, n_best=num_beams, **settings)
    return beam_search(model, source, lengths, limits=limits, decoding=decoding, constraint=constraint)


@torch.no_grad()
def log_probability(model, source, written):
    """Of these tokens, EOS among them if it was written, by one teacher-forced run."""
    batch = collate([source], [written])
    log_probs = model(batch).logits.log_softmax(-1)[0]
    return sum(float(log_probs[step, token]) for step, token in enumerate(written))


def everything(model, source, *, limit, length_penalty):
    """Every translation of at most `limit` tokens, EOS counted, best first; unfinished ones behind."""
    found = []
    for length in range(limit + 1):
        for words in itertools.product(WORDS, repeat=length):
            written = [*words] if length == limit else [*words, EOS]
            total = log_probability(model, source, written)
            score = total / len(written) ** length_penalty
            found.append(Hypothesis([*words], log_probability=total, score=score, finished=length < limit))
    return sorted(found, key=lambda hypothesis: (not hypothesis.finished, -hypothesis.score))


def assert_same(found, expected):
    assert [(one.tokens, one.finished) for one in found] == [(one.tokens, one.finished) for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.score == pytest.approx(theirs.score, rel=1e-5, abs=1e-5)
        assert ours.log_probability == pytest.approx(theirs.log_probability, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("name", CONFIGS)
def test_beams_enough_for_everything_find_and_rank_everything(name, length_penalty):
    model, limit = model_of(name), 3
    expected = [everything(model, source, limit=limit, length_penalty=length_penalty) for source in SOURCES]
    found = search(model, SOURCES, limit=limit, num_beams=100, length_penalty=length_penalty)
    # 1 + 3 + 9 that end, 27 that do not
    assert {len(hypotheses) for hypotheses in found} == {40}
    for ours, all_of_them in zip(found, expected, strict=True):
        assert_same(ours, all_of_them)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_search_takes_the_likeliest_token_at_every_step(name):
    model, limit = model_of(name), 6
    found = search(model, SOURCES, limit=limit, length_penalty=0.7)
    for source, (hypothesis,) in zip(SOURCES, found, strict=True):
        words, finished = [], False
        while len(words) < limit and not finished:
            best = max([EOS, *WORDS], key=lambda token: log_probability(model, source, [*words, token]))
            finished = best == EOS
            words += [] if finished else [best]
        written = [*words, EOS] if finished else words
        total = log_probability(model, source, written)
        assert_same([hypothesis], [Hypothesis(words, total, total / len(written) ** 0.7, finished)])


@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("num_beams", [None, 1, 2, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_score_is_the_teacher_forced_log_probability_over_the_length(name, num_beams, length_penalty):
    model = model_of(name)
    found = search(model, SOURCES, limit=7, num_beams=num_beams, length_penalty=length_penalty)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        for one in hypotheses:
            written = [*one.tokens, EOS] if one.finished else one.tokens
            truth = log_probability(model, source, written)
            assert one.log_probability == pytest.approx(truth, rel=1e-5)
            assert one.score == pytest.approx(truth / len(written) ** length_penalty, rel=1e-5)


@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("seed", range(5))
def test_hypotheses_are_distinct_and_sorted_and_as_many_as_beams(seed, length_penalty):
    for hypotheses in search(Stub(chance(seed)), SOURCES, limit=8, num_beams=4, length_penalty=length_penalty):
        assert len(hypotheses) == 4
        assert len({tuple(one.tokens) for one in hypotheses}) == 4
        order = [(not one.finished, -one.score) for one in hypotheses]
        assert order == sorted(order)
        assert not {PAD, BOS, EOS} & {token for one in hypotheses for token in one.tokens}


@pytest.mark.parametrize("seed", range(20))
def test_one_beam_is_greedy_search(seed):
    stub = Stub(chance(seed, levels=[0.0, 1.0, 2.0]))
    assert search(stub, SOURCES, limit=6, num_beams=1) == search(stub, SOURCES, limit=6)


def plain_beam_search(logits, source, *, limit, num_beams, length_penalty, early=True):
    """One sentence, a list of hypotheses, no cache; sorting keeps the order of equals: earlier beam, smaller id."""
    beams, finished = [(np.float32(0), [])], []
    for length in range(1, limit + 1):
        candidates = []
        for score, past in beams:
            log_probs = torch.tensor(logits(source, past)).log_softmax(-1).numpy()
            candidates += [(score + log_probs[token], past, token) for token in [EOS, *WORDS]]
        candidates.sort(key=lambda candidate: -candidate[0])
        for score, past, token in candidates[:num_beams]:
            if token == EOS:
                finished.append(Hypothesis(past, float(score), float(score) / length**length_penalty, True))
        beams = [(score, [*past, token]) for score, past, token in candidates if token != EOS][:num_beams]
        ranked = sorted((one.score for one in finished), reverse=True)
        if early and len(ranked) >= num_beams and ranked[num_beams - 1] >= float(beams[0][0]) / length**length_penalty:
            break
    else:
        finished.sort(key=lambda one: -one.score)
        finished += [
            Hypothesis(past, float(score), float(score) / limit**length_penalty, False) for score, past in beams
        ]
    finished.sort(key=lambda one: (not one.finished, -one.score))
    return finished[:num_beams]


@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("levels", [None, [0.0, 1.0], [0.0, 0.0, 0.0, 3.0]], ids=["no ties", "many ties", "some ties"])
@pytest.mark.parametrize("num_beams", [2, 3, 6])
def test_narrow_beams_are_those_of_a_plain_search_over_lists(num_beams, levels, length_penalty):
    for seed in range(4):
        logits = chance(seed, levels=levels)
        options = {"limit": 6, "num_beams": num_beams, "length_penalty": length_penalty}
        found = search(Stub(logits), SOURCES, **options)
        for source, hypotheses in zip(SOURCES, found, strict=True):
            assert_same(hypotheses, plain_beam_search(logits, source, **options))


@pytest.mark.parametrize("levels", [None, [0.0, 1.0]], ids=["no ties", "many ties"])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_without_a_length_penalty_ending_early_misses_nothing(num_beams, levels):
    for seed in range(8):
        logits = chance(seed, levels=levels)
        options = {"limit": 7, "num_beams": num_beams, "length_penalty": 0.0}
        stub = Stub(logits)
        found = search(stub, SOURCES, **options)
        for source, hypotheses in zip(SOURCES, found, strict=True):
            assert_same(hypotheses, plain_beam_search(logits, source, **options, early=False))


def ends_after(length):
    """Every word is as good as another, and after so many of them comes EOS, and not before."""

    def logits(source, past):
        over = len(past) == (length if isinstance(length, int) else length(source))
        return [0.0 if (token == EOS) == over else -torch.inf for token in range(VOCAB_SIZE)]

    return logits


def test_of_equal_tokens_the_smallest_comes_first():
    ((greedy,),) = search(Stub(lambda source, past: [0.0] * VOCAB_SIZE), [[4]], limit=5)
    assert (greedy.tokens, greedy.finished) == ([], True)
    ((greedy,),) = search(Stub(ends_after(2)), [[4]], limit=5)
    assert (greedy.tokens, greedy.finished) == ([UNKNOWN, UNKNOWN], True)


def test_of_equal_hypotheses_the_earlier_comes_first():
    # step 1 keeps the first two words; all pairs being equal, step 2 keeps those of the first beam
    (found,) = search(Stub(ends_after(2)), [[4]], limit=3, num_beams=2)
    assert [one.tokens for one in found] == [[UNKNOWN, UNKNOWN], [UNKNOWN, 4]]
    (found,) = search(Stub(ends_after(1)), [[4]], limit=2, num_beams=3)
    assert [one.tokens for one in found] == [[UNKNOWN], [4], [5]]


def test_padding_and_the_begin_of_a_sentence_are_never_written():
    def likes_specials(source, past):
        return [9.0, 9.0, 0.0, 1.0, 1.0, 1.0]

    for num_beams in (None, 3):
        for one in search(Stub(likes_specials), [[4]], limit=4, num_beams=num_beams)[0]:
            assert not {PAD, BOS} & {*one.tokens}


def test_a_finished_sentence_leaves_the_greedy_batch():
    sources = [[4] * length for length in (3, 0, 4, 1, 1)]
    stub = Stub(ends_after(len))
    found = search(stub, sources, limit=9)
    assert [len(one.tokens) for (one,) in found] == [3, 0, 4, 1, 1]
    assert stub.rows == [(5, 1), (4, 1), (2, 1), (2, 1), (1, 1)]


def test_a_finished_sentence_leaves_the_batch_of_beams():
    sources = [[4] * length for length in (3, 1, 4, 2, 2)]
    stub = Stub(ends_after(len))
    found = search(stub, sources, limit=9, num_beams=2)
    assert [[len(one.tokens) for one in hypotheses] for hypotheses in found] == [
        [length] * 2 for length in (3, 1, 4, 2, 2)
    ]
    assert stub.rows == [(5, 1), (5, 2), (4, 2), (2, 2), (1, 2)]


@pytest.mark.parametrize("num_beams", [None, 1, 2, 4])
def test_what_does_not_end_is_cut_at_its_own_limit_and_flagged(num_beams):
    found = search(Stub(ends_after(-1)), [[4]] * 3, limit=[2, 5, 1], num_beams=num_beams)
    for limit, hypotheses in zip([2, 5, 1], found, strict=True):
        assert hypotheses
        assert all(len(one.tokens) == limit and not one.finished for one in hypotheses)


@pytest.mark.parametrize("num_beams", [None, 2])
def test_the_end_of_sentence_counts_towards_the_limit(num_beams):
    (found,) = search(Stub(ends_after(2)), [[4]], limit=3, num_beams=num_beams)
    assert all(one.finished for one in found)
    (found,) = search(Stub(ends_after(2)), [[4]], limit=2, num_beams=num_beams)
    assert not any(one.finished for one in found)


def test_what_is_unfinished_stands_behind_what_is_finished():
    def unlikely_end(source, past):
        return [0.0, 0.0, -6.0, 0.0, -1.0, -2.0]

    (found,) = search(Stub(unlikely_end), [[4]], limit=2, num_beams=8, length_penalty=0.0)
    assert [one.finished for one in found] == sorted((one.finished for one in found), reverse=True)
    assert {one.finished for one in found} == {True, False}
    assert found[0].score < max(one.score for one in found if not one.finished)


@given(
    st.lists(st.lists(st.sampled_from([0.0, -1.0, -1.5, -7.0, -torch.inf]), min_size=9, max_size=9), min_size=1),
    st.integers(1, 12),
)
def test_top_candidates_are_those_of_a_stable_sort(rows, count):
    values, index = top_candidates(torch.tensor(rows), count)
    for row, numbers in enumerate(rows):
        order = sorted(range(9), key=lambda i: -numbers[i])[:count]
        assert values[row].tolist() == [numbers[i] for i in order]
        possible = [i for i in order if numbers[i] > -torch.inf]
        assert index[row].tolist()[: len(possible)] == possible


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 3000), st.sampled_from([3, 50, 10**6]))
def test_top_candidates_of_many_are_those_of_a_stable_sort(seed, count, size, levels):
    scores = torch.randint(levels, (3, size), generator=torch.Generator().manual_seed(seed)).float()
    values, index = top_candidates(scores, count)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(index, expected.indices[:, :count])
    assert torch.equal(values, expected.values[:, :count])


@pytest.mark.parametrize("name", ["additive", "input feeding", "transformer"])
def test_a_coverage_penalty_costs_what_the_formula_of_wu_et_al_says(name):
    model, limit, weight = model_of(name), 3, 0.8
    settings = {"length_penalty": 0.6, "length_normalization": "gnmt"}
    plain = search(model, SOURCES, limit=limit, num_beams=100, **settings)
    found = search(model, SOURCES, limit=limit, num_beams=100, coverage_penalty=weight, **settings)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        assert len(hypotheses) == 40
        for one in hypotheses:
            written = [*one.tokens, EOS] if one.finished else one.tokens
            with torch.no_grad():
                maps = model(collate([source], [written]), read=True).attention
            # the row after the last token has written nothing
            weights = [map.weights[0] for map in maps if map.kind == "cross"][-1].mean(dim=0)[: len(written)]
            received = weights.sum(dim=0)[: len(source)].tolist()
            total = log_probability(model, source, written)
            score = total / ((5 + len(written)) / 6) ** 0.6 + weight * sum(math.log(min(p, 1.0)) for p in received)
            assert one.score == pytest.approx(score, rel=1e-9)
            assert one.log_probability == pytest.approx(total, rel=1e-9)
        assert [(not one.finished, -one.score) for one in hypotheses] == sorted(
            (not one.finished, -one.score) for one in hypotheses
        )
    assert [[one.tokens for one in each] for each in found] != [[one.tokens for one in each] for each in plain]


def test_source_words_that_nothing_looked_at_cost_much_but_not_everything():
    coverage = torch.tensor([[[0.0, 1.0, 2.0]], [[0.5, 0.25, 1.0]]])
    found = log_coverage(coverage)
    assert found[1].item() == pytest.approx(math.log(0.5 * 0.25))
    assert -100 < found[0].item() < -80


def test_a_model_without_attention_has_no_coverage():
    with pytest.raises(RegardError, match=r"coverage_penalty asks .* this model has no attention; leave it out"):
        search(model_of("rnn"), [[4]], limit=2, num_beams=2, coverage_penalty=0.2)


def test_a_double_is_searched_in_double_precision():
    # in float32 these two are equal, and the smaller id would win
    stub = Stub(lambda source, past: np.log([1, 1, 1, 2.0, 2.0 + 1e-12, 1]).tolist())
    stub.logits, double = stub.logits, stub.decode_step
    stub.decode_step = lambda tokens, cache, read=False: double(tokens, cache)._replace(
        logits=torch.tensor([[stub.logits([], [])]], dtype=torch.float64)
    )
    ((greedy,),) = search(stub, [[5]], limit=1)
    assert greedy.tokens == [4]
    assert search(stub, [[5]], limit=1, num_beams=2)[0][0].tokens == [4]
