"""Each sentence gets the translation that it gets alone, in whatever company and order."""

import random

import pytest
import torch

from regard.attention.cache import Cache
from regard.attention.output import ModelOutput
from regard.data.batch import EOS, IGNORED, collate
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.translate import translate_tokens
from regard.models import build
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig

VOCAB_SIZE = 13
MAX_LENGTH = 24
CONFIGS = {
    "rnn": RNNConfig(embedding_dim=8, hidden_dim=8, num_layers=2, cell="lstm"),
    "additive": RNNConfig(embedding_dim=8, hidden_dim=8, attention="additive"),
    "input feeding": RNNConfig(embedding_dim=8, hidden_dim=8, attention="concat", input_feeding=True),
    "transformer": TransformerConfig(
        model_dim=8, num_heads=2, num_layers=2, feed_forward_dim=16, max_length=MAX_LENGTH
    ),
}
SENTENCES = [[random.Random(f"{i} {j}").randrange(3, VOCAB_SIZE) for j in range(i * 5 % 9)] for i in range(9)]


@pytest.fixture(params=list(CONFIGS))
def model(request):
    model = build(CONFIGS[request.param], VOCAB_SIZE).double().eval()
    with torch.no_grad():
        # fresh models are nearly indifferent
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


class Endless:
    """A model that never ends a sentence, and notes how wide its batches are."""

    def __init__(self):
        self.encoded = []

    def __call__(self, batch, read=False):
        raise NotImplementedError

    def encode(self, source, lengths):
        self.encoded.append(sorted(lengths.tolist()))
        return Cache(source=[source], hypotheses=[source[:, :1]], batch_size=len(source))

    def decode_step(self, tokens, cache, read=False):
        logits = torch.zeros(*tokens.shape, VOCAB_SIZE).index_fill(-1, torch.tensor(EOS), -torch.inf)
        return ModelOutput(logits=logits, attention=[])


def translate(model, sources=SENTENCES, *, max_length=MAX_LENGTH, batch_size=64, **options):
    """All that a search finds; options that are no settings of decoding are `translate_tokens`' own."""
    own = {name: options.pop(name) for name in ("progress", "name") if name in options}
    decoding = Decoding.of(None, {"n_best": options.get("num_beams", 1)} | options)
    return translate_tokens(model, sources, max_length=max_length, batch_size=batch_size, decoding=decoding, **own)


def assert_same(found, expected):
    assert [[(one.tokens, one.finished) for one in each] for each in found] == [
        [(one.tokens, one.finished) for one in each] for each in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], rel=1e-5)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_translation_does_not_depend_on_its_batch(model, num_beams):
    alone = [translate(model, [source], num_beams=num_beams)[0] for source in SENTENCES]
    assert len({str(hypotheses) for hypotheses in alone}) == len(SENTENCES)
    for batch_size in (1, 3, 7, 64):
        assert_same(translate(model, num_beams=num_beams, batch_size=batch_size), alone)


def reversals(count, seed):
    """Sentences and the same backwards, of very different length."""
    draw = random.Random(seed)
    sources = [[draw.randrange(4, VOCAB_SIZE) for _ in range(draw.randrange(12))] for _ in range(count)]
    return sources, [source[::-1] for source in sources]


@pytest.fixture(scope="module")
def trained():
    """A Transformer after some seconds of training: unsure enough that many hypotheses come close to one another."""
    torch.manual_seed(1)
    model = build(TransformerConfig(model_dim=16, num_heads=2, num_layers=1, feed_forward_dim=32), VOCAB_SIZE)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(100):
        batch = collate(*reversals(32, step))
        loss = torch.nn.functional.cross_entropy(
            model(batch).logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 2
    return model.eval()


@pytest.mark.parametrize("settings", [{}, {"num_beams": 5}, {"do_sample": True, "n_best": 2}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_hundred_translations_are_the_same_in_batches_of_any_size(trained, dtype, settings):
    model, (sources, _) = trained.to(dtype), reversals(100, "test")
    alone = translate(model, sources, max_length=64, batch_size=1, **settings)
    for batch_size in (7, 64):
        found = translate(model, sources, max_length=64, batch_size=batch_size, **settings)
        if dtype == torch.float64:
            assert_same(found, alone)
        assert [each[0].tokens for each in found] == [each[0].tokens for each in alone]


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_translation_does_not_depend_on_the_order(model, num_beams):
    order = list(range(len(SENTENCES)))
    in_order = translate(model, num_beams=num_beams, batch_size=4)
    for seed in range(3):
        random.Random(seed).shuffle(order)
        shuffled = translate(model, [SENTENCES[index] for index in order], num_beams=num_beams, batch_size=4)
        assert_same(shuffled, [in_order[index] for index in order])


def test_of_what_the_beams_find_the_best_are_given(model):
    assert {len(each) for each in translate(model)} == {1}
    found = translate(model, num_beams=3)
    assert {len(each) for each in found} == {3}
    for n_best in (1, 2):
        best = translate(model, num_beams=3, n_best=n_best)
        assert best == [each[:n_best] for each in found]


def test_nothing_translates_to_nothing(model):
    assert translate(model, []) == []


def test_sentences_of_like_length_share_a_batch():
    endless = Endless()
    translate(endless, [[4] * length for length in (5, 0, 3, 1, 4, 2)], batch_size=2, max_new_tokens=1)
    assert endless.encoded == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_translation_ends_after_max_new_tokens(num_beams):
    for each in translate(Endless(), [[4], [4] * 9], num_beams=num_beams, max_new_tokens=5):
        assert [(len(one.tokens), one.finished) for one in each] == [(5, False)] * num_beams


def test_by_default_a_translation_ends_at_twice_the_source_and_twenty_more():
    found = translate(Endless(), [[], [4] * 6], max_length=1000)
    assert [len(each[0].tokens) for each in found] == [2 * 1 + 20, 2 * 7 + 20]


@pytest.mark.parametrize("options", [{}, {"max_new_tokens": 1000}])
def test_no_translation_goes_past_what_the_model_can_read(options):
    # BOS takes one of the places
    found = translate(Endless(), [[4] * 20], **options)
    assert len(found[0][0].tokens) == MAX_LENGTH - 1


def test_the_longest_translation_fits_the_model():
    model = build(CONFIGS["transformer"], VOCAB_SIZE).eval()
    with torch.no_grad():
        # no sentence ends: EOS is as unlikely as it can be
        model.output.weight[EOS] = 0
        model.decoder_norm.weight.zero_()
        model.decoder_norm.bias.fill_(1)
        model.output.weight[4] = 5
    (found,) = translate(model, [[4] * (MAX_LENGTH - 1)], max_new_tokens=1000)
    assert (len(found[0].tokens), found[0].finished) == (MAX_LENGTH - 1, False)


def test_progress_counts_every_sentence_once():
    told = []
    translate(Endless(), batch_size=4, max_new_tokens=1, progress=told.append)
    assert told == [4, 4, 1]


@pytest.mark.parametrize("value", [0, -1])
def test_a_batch_of_no_sentences_is_refused(value):
    with pytest.raises(RegardError, match=f"batch_size must be at least 1, not {value}"):
        translate(Endless(), batch_size=value)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_model_whose_weights_are_no_numbers_is_told_apart(num_beams):
    model = build(CONFIGS["additive"], VOCAB_SIZE).eval()
    with torch.no_grad():
        model.output.weight[5] = torch.nan
    with pytest.raises(RegardError, match="sentence 1: the model's probabilities are no numbers"):
        translate(model, [[4, 5]], num_beams=num_beams)


def test_a_source_that_is_too_long_is_refused_with_its_number_and_length():
    fits = [4] * (MAX_LENGTH - 1)
    translate(Endless(), [[4], fits], max_new_tokens=1)
    with pytest.raises(
        RegardError, match=f"sentence 2 has {MAX_LENGTH + 1} tokens, the model reads at most {MAX_LENGTH}"
    ):
        translate(Endless(), [[4], [*fits, 4]])
    with pytest.raises(RegardError, match=r"news\.txt, line 7 has "):
        translate(Endless(), [[*fits, 4]], name=lambda index: f"news.txt, line {index + 7}")
