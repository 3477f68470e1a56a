"""What is drawn has the distribution that the settings say, and follows from seed and place alone."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.data.batch import BOS, EOS, PAD, collate
from regard.generation.decoding import Decoding
from regard.generation.sampling import draw, sampling_probabilities, uniform_numbers
from regard.generation.translate import translate_tokens
from regard.models import build
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig

VOCAB_SIZE = 9
CONFIGS = {
    "rnn": RNNConfig(embedding_dim=8, hidden_dim=8, attention="additive"),
    "transformer": TransformerConfig(model_dim=8, num_heads=2, num_layers=2, feed_forward_dim=16, max_length=32),
}
SOURCES = [[4, 5, 4], [5], [], [5, 5, 4, 4, 5], [4, 5, 4], [8, 7]]


def sampled(model, sources=SOURCES, *, batch_size=64, numbers=None, **settings):
    decoding = Decoding.of(None, {"do_sample": True, "max_new_tokens": 12} | settings)
    return translate_tokens(model, sources, max_length=32, decoding=decoding, batch_size=batch_size, numbers=numbers)


@pytest.fixture(params=list(CONFIGS))
def model(request):
    return build(CONFIGS[request.param], VOCAB_SIZE).double().eval()


def hugging_face(logits, *, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """The four logits processors of Hugging Face's generate, one after the other, written down again in numpy."""
    scores = np.array(logits) / temperature
    if top_k is not None:
        scores[scores < np.sort(scores)[-min(top_k, len(scores))]] = -np.inf
    if top_p < 1:
        # from the least likely up, for as long as they sum to no more than 1 - top_p; the likeliest stays
        order = np.argsort(scores, kind="stable")
        remove = np.cumsum(softmax(scores)[order]) <= 1 - top_p
        remove[-1] = False
        scores[order[remove]] = -np.inf
    probabilities = softmax(scores)
    scores[probabilities < min_p * probabilities.max()] = -np.inf
    return softmax(scores)


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


@given(
    st.integers(0, 2**31),
    st.sampled_from([1.0, 0.3, 2.5]),
    st.sampled_from([None, 1, 3, 100]),
    st.sampled_from([1.0, 0.9, 0.5, 0.01]),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_filters_leave_what_hugging_face_leaves(seed, temperature, top_k, top_p, min_p):
    logits = np.random.default_rng(seed).normal(0, 3, (4, 30))
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    found = sampling_probabilities(torch.tensor(logits), Decoding(do_sample=True, **settings))
    for row, numbers in zip(found.tolist(), logits, strict=True):
        np.testing.assert_allclose(row, hugging_face(numbers, **settings), rtol=1e-9, atol=1e-12)


def test_a_token_ruled_out_is_never_drawn_however_hot():
    logits = torch.tensor([0.0, -torch.inf, -1.0])
    found = sampling_probabilities(logits, Decoding(do_sample=True, temperature=1e300))
    assert found.tolist() == [0.5, 0.0, 0.5]


def test_the_coldest_sampling_is_greedy(model):
    greedy = translate_tokens(model, SOURCES, max_length=32, decoding=Decoding(max_new_tokens=12))
    for cold in ({"temperature": 1e-300}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        assert [each[0].tokens for each in sampled(model, **cold)] == [each[0].tokens for each in greedy]


def test_draws_have_the_distribution_that_they_are_drawn_by():
    probabilities = torch.tensor([0.4, 0.0, 0.3, 0.2, 0.07, 0.03, 0.0], dtype=torch.float64)
    count = 20_000
    tokens = draw(probabilities.expand(count, -1), uniform_numbers(3, [0], 1, count)[0, 0])
    counts = torch.bincount(tokens, minlength=7).double()
    assert counts[1] == counts[6] == 0
    possible = probabilities > 0
    expected = count * probabilities[possible]
    # 99.9 % of all chi-square values of 4 degrees of freedom
    assert ((counts[possible] - expected) ** 2 / expected).sum() < 18.5


def test_the_ends_of_the_numbers_drawn_give_tokens_that_can_be():
    probabilities = torch.tensor([[0.0, 0.3, 0.7, 0.0]] * 2, dtype=torch.float64)
    assert draw(probabilities, torch.tensor([0.0, math.nextafter(1, 0)], dtype=torch.float64)).tolist() == [1, 2]


@torch.no_grad()
def next_probabilities(model, source, past):
    """By one teacher-forced run; padding and the begin of a sentence are never written."""
    logits = model(collate([source], [past])).logits[0, len(past)]
    logits[[PAD, BOS]] = -torch.inf
    return logits.softmax(dim=-1).tolist()


def test_translations_come_as_often_as_the_model_says(model):
    count, source = 3000, [4, 5]
    (found,) = sampled(model, [source], n_best=count, max_new_tokens=2, seed=5)
    drawn = Counter((*one.tokens, EOS) if one.finished else tuple(one.tokens) for one in found)
    expected = {}
    for first, chance in enumerate(next_probabilities(model, source, [])):
        if first == EOS:
            expected[EOS,] = chance
        elif chance:
            then = next_probabilities(model, source, [first])
            expected |= {(first, second): chance * share for second, share in enumerate(then) if share}
    assert sum(expected.values()) == pytest.approx(1)
    assert drawn.keys() <= expected.keys()
    chi_square = sum((drawn[tokens] - count * p) ** 2 / (count * p) for tokens, p in expected.items())
    # 1 + 6 × 7 cells; 99.9 % of all chi-square values of 42 degrees of freedom
    assert len(expected) == 43
    assert chi_square < 76.1


@pytest.mark.parametrize("samples", [1, 3])
def test_what_is_drawn_depends_on_seed_and_place_not_on_the_batch(model, samples):
    together = sampled(model, n_best=samples, seed=2)
    assert {len(each) for each in together} == {samples}
    for batch_size in (1, 2, 5):
        again = sampled(model, n_best=samples, seed=2, batch_size=batch_size)
        assert [[one.tokens for one in each] for each in again] == [[one.tokens for one in each] for each in together]
    for place, source in enumerate(SOURCES):
        (alone,) = sampled(model, [source], n_best=samples, seed=2, numbers=[place])
        assert [one.tokens for one in alone] == [one.tokens for one in together[place]]
    # the same source in two places is drawn for twice
    assert [one.tokens for one in together[0]] != [one.tokens for one in together[4]]
    assert sampled(model, n_best=samples, seed=3) != together


def test_the_first_of_several_samples_is_the_one_drawn_alone(model):
    several = sampled(model, n_best=4, seed=1)
    assert [each[0].tokens for each in several] == [each[0].tokens for each in sampled(model, seed=1)]
    assert any(len({str(one.tokens) for one in each}) > 1 for each in several)


def test_a_temperature_changes_what_is_drawn_but_not_how_it_is_scored(model):
    for each in sampled(model, temperature=3.0, top_k=5, seed=4, length_penalty=0.7):
        (one,) = each
        assert one.log_probability < 0
        length = len(one.tokens) + one.finished
        assert one.score == pytest.approx(one.log_probability / length**0.7)
