"""A translation begins with its prefix to the letter, and goes on as the model would after it."""

import random

import pytest
import torch

from regard.data.batch import EOS, UNKNOWN, collate
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.prefix import Prefix
from regard.generation.translate import translate_tokens
from regard.models import build
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig

LINES = ["le chat noir", "un chien", "le chapeau du chien", "une charrue, un char", "七 chats \U0001f642"] * 3
SOURCES = [[4, 5, 6], [7], [], [8, 9, 10, 11], [5, 5]]
TEXTS = ["le cha", "", "un chien ", "七", "un"]
CONFIGS = {
    "rnn": RNNConfig(embedding_dim=8, hidden_dim=8, attention="additive", max_length=32),
    "transformer": TransformerConfig(model_dim=8, num_heads=2, num_layers=2, feed_forward_dim=16, max_length=32),
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(LINES, kind="bpe", vocab_size=290)


@pytest.fixture(params=list(CONFIGS))
def model(request, tokenizer):
    model = build(CONFIGS[request.param], len(tokenizer)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def translate(model, prefixes, sources=SOURCES, *, batch_size=64, **settings):
    decoding = Decoding.of(None, {"max_new_tokens": 6} | settings)
    return translate_tokens(model, sources, max_length=32, decoding=decoding, prefixes=prefixes, batch_size=batch_size)


def prefixes_of(tokenizer, texts=TEXTS):
    return [Prefix.of(tokenizer, text, name="here") for text in texts]


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 4, "n_best": 3}, {"do_sample": True, "n_best": 3, "seed": 4}], ids=str
)
def test_every_translation_begins_with_its_prefix_to_the_letter(model, tokenizer, settings):
    for each, text in zip(translate(model, prefixes_of(tokenizer), **settings), TEXTS, strict=True):
        assert len(each) == settings.get("n_best", 1)
        for one in each:
            assert tokenizer.decode(one.tokens).startswith(text)


@torch.no_grad()
def next_log_probs(model, source, past):
    return model(collate([source], [past])).logits[0, len(past)].log_softmax(-1)


def test_greedy_search_goes_on_from_the_prefix_by_the_likeliest_tokens(model, tokenizer):
    for source, text, (found,) in zip(SOURCES, TEXTS, translate(model, prefixes_of(tokenizer)), strict=True):
        tokens = tokenizer.encode(text)
        written, total = [], 0.0
        while EOS not in written and len(written) < len(tokens) + 6:
            log_probs = next_log_probs(model, source, written)
            possible = range(EOS, len(tokenizer))
            if len(written) < len(tokens):
                piece = tokenizer.decode([tokens[len(written)]])
                possible = [tokens[len(written)]]
                if len(written) == len(tokens) - 1 and "\ufffd" not in piece:
                    possible = [id for id in range(len(tokenizer)) if tokenizer.decode([id]).startswith(piece)]
            written.append(max(possible, key=lambda token: float(log_probs[token])))
            total += float(log_probs[written[-1]])
        assert [*found.tokens, EOS][: len(written)] == written
        assert found.log_probability == pytest.approx(total)


def test_beams_enough_for_everything_rank_what_begins_with_the_prefix(model, tokenizer):
    prefix = Prefix(tokens=[5, 6], endings=[6, 7, 9])
    (found,) = translate(model, [prefix], [[4, 5]], num_beams=2000, n_best=2000, max_new_tokens=1)
    expected = {}
    for ending in prefix.endings:
        past = [5, ending]
        begin = next_log_probs(model, [4, 5], [])[5] + next_log_probs(model, [4, 5], [5])[ending]
        log_probs = next_log_probs(model, [4, 5], past)
        expected |= {(*past, last): float(begin + log_probs[last]) for last in range(EOS, len(tokenizer))}
    assert {(*one.tokens, EOS) if one.finished else tuple(one.tokens) for one in found} == expected.keys()
    for one in found:
        assert one.log_probability == pytest.approx(expected[(*one.tokens, EOS) if one.finished else (*one.tokens,)])


@pytest.mark.parametrize("settings", [{}, {"num_beams": 4, "n_best": 4}, {"do_sample": True, "n_best": 2}], ids=str)
def test_prefixes_of_others_in_the_batch_change_nothing(model, tokenizer, settings):
    prefixes = prefixes_of(tokenizer)
    together = translate(model, prefixes, **settings)
    for batch_size in (1, 2):
        again = translate(model, prefixes, batch_size=batch_size, **settings)
        assert [[one.tokens for one in each] for each in again] == [[one.tokens for one in each] for each in together]
    if "do_sample" not in settings:
        free = translate(model, None, SOURCES[1:2], **settings)
        assert [one.tokens for one in free[0]] == [one.tokens for one in together[1]]


def test_only_the_last_token_may_become_a_longer_one(tokenizer):
    for text in TEXTS[:1] + TEXTS[2:]:
        prefix = Prefix.of(tokenizer, text, name="here")
        assert prefix.tokens == tokenizer.encode(text)
        before = len(text.encode()) - len(tokenizer.decode(prefix.tokens[-1:]).encode())
        for ending in range(len(tokenizer)):
            written = tokenizer.decode([*prefix.tokens[:-1], ending])
            if "\ufffd" not in written and written.encode()[:before]:
                assert (ending in prefix.endings) == written.startswith(text)


def test_a_word_broken_off_and_a_space_at_the_end_are_completed_by_the_models_own_tokens(tokenizer):
    space = Prefix.of(tokenizer, "un chien ", name="here")
    assert tokenizer.encode(" chat")[0] in space.endings
    broken = Prefix.of(tokenizer, "un cha", name="here")
    assert len(broken.endings) > 1


def test_the_prefix_counts_to_no_limit_but_that_of_the_model(model):
    prefix = Prefix(tokens=[5] * 9, endings=[5])
    for found in translate(model, [prefix], [[4]], max_new_tokens=2)[0]:
        assert found.tokens[:9] == [5] * 9
        assert len(found.tokens) + found.finished <= 11
    longest = Prefix(tokens=[5] * 30, endings=[5])
    (found,) = translate(model, [longest], [[4]])[0]
    assert found.tokens[:30] == [5] * 30
    longer = Prefix(tokens=[5] * 31, endings=[5])
    with pytest.raises(
        RegardError, match="sentence 1 is to begin with 31 tokens, the model writes at most 30; shorten"
    ):
        translate(model, [longer], [[4]])


def test_words_that_a_tokenizer_of_words_does_not_know_are_refused():
    words = Tokenizer.train(LINES, kind="word", vocab_size=40)
    assert Prefix.of(words, "le chat", name="here").tokens == words.encode("le chat")
    assert UNKNOWN in words.encode("le zèbre")
    with pytest.raises(RegardError, match=r"mine\.txt:3: the model cannot begin with 'le zèbre', only with 'le ⁇'"):
        Prefix.of(words, "le zèbre", name="mine.txt:3")


def test_nothing_is_prefix_to_everything(model, tokenizer):
    empty = [Prefix.of(tokenizer, "", name="here")] * len(SOURCES)
    for seed in range(2):
        settings = {"do_sample": True, "seed": random.Random(seed).randrange(99) + 1}
        assert translate(model, empty, **settings) == translate(model, None, **settings)
