"""Decoding means text: what is written is valid, begins with its prefix, and no two beams say the same."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.cache import Cache
from regard.attention.output import ModelOutput
from regard.data.batch import BOS, EOS, PAD, UNKNOWN, collate, pad
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.search import beam_search
from regard.generation.spelling import BETWEEN, NEVER_SPELT, Prefix, Spelling, TextConstraint, state_after
from regard.generation.translate import translate_tokens
from regard.models import build
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig

LINES = [
    "le chat noir",
    "un chien",
    "le chapeau du chien",
    "une charrue, un char",
    "七 chats \U0001f642",
    "ノート七八",
] * 3
SOURCES = [[4, 5, 6], [7], [], [8, 9, 10, 11], [5, 5]]
TEXTS = ["le cha", "", "un chien ", "七", "un"]
ROOM = 48
CONFIGS = {
    "rnn": RNNConfig(embedding_dim=8, hidden_dim=8, attention="additive", max_length=ROOM),
    "transformer": TransformerConfig(model_dim=8, num_heads=2, num_layers=2, feed_forward_dim=16, max_length=ROOM),
}
KINDS = {"bpe": 290, "word": 40, "character": 40}
SEARCHES = [{}, {"num_beams": 4, "n_best": 3}, {"do_sample": True, "n_best": 3, "seed": 4}]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return Tokenizer.train(LINES, kind=request.param, vocab_size=KINDS[request.param])


@pytest.fixture(scope="module")
def spelling(tokenizer):
    return Spelling(tokenizer.pieces, leading=tokenizer.leading)


def random_model(name, vocab_size, *, sharper=2):
    torch.manual_seed(3)
    model = build(CONFIGS[name], vocab_size).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharper)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def model(request, tokenizer):
    return random_model(request.param, len(tokenizer))


def translate(model, spelling, texts=None, sources=SOURCES, *, batch_size=64, **settings):
    return translate_tokens(
        model,
        sources,
        max_length=ROOM,
        decoding=Decoding.of(None, settings),
        spelling=spelling,
        prefixes=None if texts is None else [Prefix(spelling, text) for text in texts],
        batch_size=batch_size,
    )


def text_of(spelling, hypothesis):
    """Raises UnicodeDecodeError for what is no text."""
    return spelling.text(hypothesis.tokens).decode()


@given(st.binary(max_size=6) | st.text(max_size=3).map(str.encode))
def test_the_states_between_bytes_are_those_of_utf8(data):
    state = state_after(BETWEEN, data)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # cut off within a character, or wrong at its last byte already
        assert (state is None) == (error.reason != "unexpected end of data")  # noqa: PT017
        assert state != BETWEEN
    else:
        assert state == BETWEEN


@pytest.mark.parametrize("settings", SEARCHES, ids=str)
def test_what_is_written_is_valid_and_begins_with_its_prefix_even_where_the_limit_cuts_it(
    model, spelling, tokenizer, settings
):
    for limit in (None, 1, 2, 5):
        for texts in (None, TEXTS):
            found = translate(model, spelling, texts, max_new_tokens=limit, **settings)
            for each, begin in zip(found, texts or [""] * len(SOURCES), strict=True):
                assert len(each) == settings.get("n_best", 1)
                for one in each:
                    assert text_of(spelling, one).startswith(begin)
                    assert text_of(spelling, one) == tokenizer.decode(one.tokens)


def test_the_beginning_of_its_own_translation_gives_that_translation_again(model, spelling):
    sources = [[random.Random(i).randrange(3, 15) for _ in range(i % 7)] for i in range(12)]
    own = [text_of(spelling, each) for (each,) in translate(model, spelling, sources=sources)]
    assert max(map(len, own)) > 10
    for share in (0.2, 0.5, 0.9, 1):
        begun = [text[: int(share * len(text))] for text in own]
        again = translate(model, spelling, begun, sources)
        assert [text_of(spelling, each) for (each,) in again] == own


def agreeing(spelling, written, prefix):
    """Tokens after which the bytes agree with the prefix and are, or may become, UTF-8: by trying each."""
    target = prefix.encode()
    for token in range(len(spelling.pieces)):
        if token in (PAD, BOS):
            continue
        data = spelling.text([*written, token])
        if token == EOS:
            if data.startswith(target) and spelling.text(written).decode("utf-8", "replace").encode() == data:
                yield token
            continue
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                continue
        if (data.startswith(target) or target.startswith(data)) and data != spelling.text(written):
            yield token


@torch.no_grad()
def next_log_probs(model, source, past):
    return model(collate([source], [past])).logits[0, len(past)].log_softmax(-1)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_search_takes_the_most_likely_token_that_agrees_with_the_rest_of_the_prefix(name):
    tokenizer = Tokenizer.train(LINES, kind="bpe", vocab_size=290)
    spelling, model = Spelling(tokenizer.pieces), random_model(name, len(tokenizer))
    for source, text, (found,) in zip(SOURCES, TEXTS, translate(model, spelling, TEXTS, max_new_tokens=4), strict=True):
        written, total = [], 0.0
        while EOS not in written and len(written) < len(found.tokens) + found.finished:
            log_probs = next_log_probs(model, source, written)
            possible = list(agreeing(spelling, written, text))
            written.append(max(possible, key=lambda token: float(log_probs[token])))
            total += float(log_probs[written[-1]])
            if [*found.tokens, EOS][len(written) - 1] != written[-1]:
                # only where the limit leaves no room to complete the character
                assert len(written) > len(found.tokens) - 3
                break
        else:
            assert found.log_probability == pytest.approx(total)


# "a", "b" and "ab", and a character of two bytes: [special tokens], then these
PIECES = [b"", b"", b"", b"?", b"a", b"b", b"ab", b"\xc3", b"\xa9"]


def everything(model, source, *, limit, prefix):
    """Every valid text that begins with the prefix, with the best of its spellings of at most `limit` tokens."""
    found = {}
    for length in range(limit + 1):
        for tokens in itertools.product(range(UNKNOWN, len(PIECES)), repeat=length):
            data = b"".join(PIECES[token] for token in tokens)
            try:
                data.decode()
            except UnicodeDecodeError:
                continue
            if not data.startswith(prefix.encode()):
                continue
            written = [*tokens] if length == limit else [*tokens, EOS]
            log_probs = model(collate([source], [written])).logits.log_softmax(-1)[0]
            total = sum(float(log_probs[step, token]) for step, token in enumerate(written))
            rank = (length == limit, -total / len(written))
            if data not in found or rank < found[data]:
                found[data] = rank
    return dict(sorted(found.items(), key=lambda item: item[1]))


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "ab", "é"])
@pytest.mark.parametrize("name", CONFIGS)
def test_beams_enough_for_everything_rank_every_text_once_by_the_best_of_its_spellings(name, prefix):
    model, spelling = random_model(name, len(PIECES)), Spelling(PIECES)
    for source in ([4, 5], [6]):
        expected = everything(model, source, limit=3, prefix=prefix)
        constraint = TextConstraint(
            spelling, [Prefix(spelling, prefix)], room=3, apart=False, device=torch.device("cpu")
        )
        (found,) = beam_search(
            model,
            *pad([[*source, EOS]]),
            limits=torch.tensor([3]),
            decoding=Decoding(num_beams=500, n_best=500),
            constraint=constraint,
        )
        assert [spelling.text(one.tokens) for one in found] == list(expected)
        assert [not one.finished for one in found] == [unfinished for unfinished, _ in expected.values()]
        assert [-one.score for one in found] == pytest.approx([score for _, score in expected.values()])


@pytest.mark.parametrize("name", CONFIGS)
def test_translations_of_a_beam_search_differ_in_their_texts(name):
    tokenizer = Tokenizer.train(LINES, kind="bpe", vocab_size=290)
    spelling = Spelling(tokenizer.pieces)
    spelt_anew = 0
    for sharper in (1, 1.5):
        model = random_model(name, len(tokenizer), sharper=sharper)
        for texts in (None, TEXTS):
            found = translate(model, spelling, texts, num_beams=6, n_best=6, max_new_tokens=6)
            for each in found:
                assert len({text_of(spelling, one) for one in each}) == len(each) == 6
                spelt_anew += sum(tokenizer.encode(text_of(spelling, one)) != one.tokens for one in each)
    # the model does write what the tokenizer would cut otherwise
    assert spelt_anew > 5


# after these tokens, or any others
CHANCES = {(): {6: 0.5, 4: 0.4, 5: 0.1}, (6,): {EOS: 0.9, 5: 0.1}, (4,): {5: 0.95, EOS: 0.05}}
OTHERS = {EOS: 0.6, 4: 0.4}


class Table:
    """A model that gives tokens these chances, whatever the source."""

    def __call__(self, batch, read=False):
        raise NotImplementedError

    def encode(self, source, lengths):
        return Cache(source=[source], hypotheses=[source[:, :0]], batch_size=len(source))

    def decode_step(self, tokens, cache, read=False):
        written = torch.cat([cache.hypotheses[0], tokens.reshape(-1, 1)], dim=1)
        cache.hypotheses = [written]
        rows = [CHANCES.get(tuple(past[1:]), OTHERS) for past in written.tolist()]
        chances = torch.tensor([[row.get(token, 0.0) for token in range(len(PIECES))] for row in rows])
        return ModelOutput(logits=chances.log().reshape(*tokens.shape, -1), attention=[])


def test_two_spellings_of_a_text_are_one_of_those_that_a_search_looks_for():
    """The most likely text is the next likely as well, spelt in two tokens."""
    ((first, second),) = translate(Table(), Spelling(PIECES), sources=[[4]], num_beams=2, n_best=2)
    assert (first.tokens, first.log_probability) == ([6], pytest.approx(math.log(0.5 * 0.9)))
    assert second.finished
    assert b"".join(PIECES[token] for token in second.tokens) != b"ab"


@pytest.mark.parametrize("settings", SEARCHES, ids=str)
def test_prefixes_of_others_in_the_batch_change_nothing(model, spelling, settings):
    together = translate(model, spelling, TEXTS, max_new_tokens=6, **settings)
    for batch_size in (1, 2):
        again = translate(model, spelling, TEXTS, batch_size=batch_size, max_new_tokens=6, **settings)
        assert [[one.tokens for one in each] for each in again] == [[one.tokens for one in each] for each in together]
    if "do_sample" not in settings:
        free = translate(model, spelling, None, SOURCES[1:2], max_new_tokens=6, **settings)
        assert [one.tokens for one in free[0]] == [one.tokens for one in together[1]]


def test_nothing_is_prefix_to_everything(model, spelling):
    for seed in range(2):
        settings = {"do_sample": True, "seed": seed, "max_new_tokens": 6}
        empty = translate(model, spelling, [""] * len(SOURCES), **settings)
        assert empty == translate(model, spelling, None, **settings)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_limit_that_is_given_counts_what_comes_after_the_prefix(name):
    model, spelling = random_model(name, len(PIECES)), Spelling(PIECES)
    for text in ("b" * 9, "ab" * 5, "é" * 4):
        for limit in (1, 3):
            ((found,),) = translate(model, spelling, [text], [[4]], max_new_tokens=limit)
            spelt = next(count for count in range(99) if spelling.text(found.tokens[:count]).startswith(text.encode()))
            assert found.finished or len(found.tokens) == spelt + limit
            assert len(found.tokens) + found.finished <= spelt + limit
    longest = translate(model, spelling, ["b" * (ROOM - 2)], [[4]])[0][0]
    assert spelling.text(longest.tokens).startswith(b"b" * (ROOM - 2))
    with pytest.raises(
        RegardError,
        match=f"sentence 1 is to begin with {ROOM - 1} tokens, the model writes at most {ROOM - 2}; shorten",
    ):
        translate(model, spelling, ["b" * (ROOM - 1)], [[4]])


def test_what_no_tokens_spell_is_no_prefix():
    for kind, spelt, unspelt in [
        (
            "word",
            ["le cha", "le chat", "un", "七八", "", "七 chats", "le ⁇"],
            ["le zèbre", "cha t", "le chat\n"],
        ),
        ("character", ["le cha", "nu", "八"], ["le zèbre", "九"]),
        ("bpe", ["le zèbre", " x", "九", "\n"], []),
    ]:
        tokenizer = Tokenizer.train(LINES, kind=kind, vocab_size=KINDS[kind] + 20)
        spelling = Spelling(tokenizer.pieces, leading=tokenizer.leading)
        assert all(Prefix(spelling, text).need < NEVER_SPELT for text in spelt)
        assert all(Prefix(spelling, text).need == NEVER_SPELT for text in unspelt)
