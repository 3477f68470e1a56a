"""A reading holds the very weights that the model used, paired with the tokens that they are of."""

import numpy as np
import pytest
import torch

from regard.data.batch import BOS, EOS, collate
from regard.data.tokenizer import Tokenizer
from regard.data.words import split_words
from regard.errors import RegardError
from regard.models import build, read_config
from regard.reading.replay import alignments, pharaoh, replay

# readings keep float32
FLOAT32 = 2.0**-24


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def calls_of(module, run):
    """What each submodule was given and what it gave while `run` ran, in order."""
    kept = {}
    hooks = [
        part.register_forward_hook(lambda _, given, out, name=name: kept.setdefault(name, []).append((given, out)))
        for name, part in module.named_modules()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return kept


def test_kinds_and_layers_are_those_of_the_model(read):
    reading = read()
    if read.name == "transformer":
        assert reading.kinds == ["encoder", "decoder", "cross"]
        assert [reading.layers(kind) for kind in reading.kinds] == [[0, 1]] * 3
    else:
        assert (reading.kinds, reading.layers("cross")) == (["cross"], [0])
    with pytest.raises(RegardError, match="this reading has no 'crosses' attention; did you mean 'cross'"):
        reading.layers("crosses")


def test_every_weight_is_the_one_that_the_model_gives(read, texts):
    reading = read()
    pair = [read.tokenizer.encode(text) for text in (texts.source, texts.target)]
    # among longer sentences, so that padding is in play on both sides
    batch = collate([pair[0], [5] * 30], [pair[1], [6] * 35])
    with torch.no_grad():
        maps = read.module(batch, read=True).attention
    assert {(map.kind, map.layer) for map in maps} == set(reading.maps)
    for map in maps:
        found = reading.weights(map.kind, map.layer)
        _, rows, keys = found.shape
        np.testing.assert_allclose(found, map.weights[0, :, :rows, :keys], atol=FLOAT32)
        assert not map.weights[0, :, :rows, keys:].any()


def test_the_transformers_weights_are_the_softmax_of_its_queries_and_keys(module_of, tokenizer, texts):
    module, target = module_of("transformer"), tokenizer.encode(texts.target)
    reading = []
    kept = calls_of(
        module,
        lambda: reading.append(replay(module, tokenizer, texts.source, target, model="toy", max_length=40)),
    )
    places = {"encoder": "encoder_layers.{}.attention", "decoder": "decoder_layers.{}.self_attention"}
    for (kind, layer), found in reading[0].maps.items():
        place = places.get(kind, "decoder_layers.{}.cross_attention").format(layer)
        ((query, memory), _), *_ = kept[place]
        query, key = (part[0].double().numpy() for part in (query, memory.key))
        scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
        if kind == "decoder":
            scores[:, np.triu(np.ones(scores.shape[1:], dtype=bool), 1)] = -np.inf
        np.testing.assert_allclose(found, softmax(scores), atol=FLOAT32)


def test_additive_weights_are_the_softmax_of_the_papers_scores(module_of, tokenizer, texts):
    module, target = module_of("additive"), tokenizer.encode(texts.target)
    reading = []
    kept = calls_of(
        module,
        lambda: reading.append(replay(module, tokenizer, texts.source, target, model="toy", max_length=40)),
    )
    ((_, (first,), _), _), *_ = kept["decoder"]
    ((joined,), _), *_ = kept["decoder.readout"]
    # a step looks with the state before it
    states = np.concatenate([first[0].numpy(), joined[0, :-1, : first.shape[-1]].numpy()])
    query = states @ module.decoder.attention.query_proj.weight.detach().numpy().T
    key = kept["decoder.attention.key_proj"][0][1][0].numpy()
    # Bahdanau, Cho and Bengio 2015, appendix A.1.2
    vector = module.decoder.attention.score_proj.weight.detach().numpy()[0]
    scores = np.tanh(query[:, None] + key[None]) @ vector
    np.testing.assert_allclose(reading[0].weights("cross", 0)[0], softmax(scores), atol=FLOAT32)


def test_rows_sum_to_one_and_the_decoder_sees_nothing_that_comes_later(read):
    reading = read()
    for (kind, layer), weights in reading.maps.items():
        np.testing.assert_allclose(weights.sum(-1, dtype=np.float64), 1, atol=weights.shape[-1] * FLOAT32)
        assert weights.shape[1:] == (len(reading.queries(kind)), len(reading.keys(kind)))
        assert reading.rows(kind) == list(range(weights.shape[1]))
        if kind == "decoder":
            assert not np.triu(weights, 1).any(), layer


def test_sentences_begin_and_end_with_their_marks(read):
    reading = read()
    source, target = (reading.sequences[name].tokens for name in ("source", "target"))
    assert (source[-1].id, target[0].id, target[-1].id) == (EOS, BOS, EOS)
    assert (source[-1].text, target[0].text, target[-1].text) == ("</s>", "<s>", "</s>")
    assert not {BOS, EOS} & {token.id for token in source[:-1] + target[1:-1]}
    assert reading.tokens == {"source": [token.text for token in source], "target": [token.text for token in target]}


def test_each_query_is_paired_with_the_token_that_came_of_it(read, texts):
    """Another token at a place leaves the row that wrote it as it was, and changes what is looked at after it."""
    reading = read()
    ids = read.tokenizer.encode(texts.target)
    for place in range(len(ids)):
        other = read(target=[*ids[:place], ids[place] + 1, *ids[place + 1 :]])
        for kind in {"decoder", "cross"} & set(reading.kinds):
            row = next(i for i, token in enumerate(other.written(kind)) if token != reading.written(kind)[i])
            assert row == place
            # Bahdanau looks with the state before the token that is fed, all others with the state after it
            first = row + 2 if read.name == "additive" else row + 1
            ours, theirs = reading.weights(kind, -1), other.weights(kind, -1)
            np.testing.assert_array_equal(theirs[:, :first], ours[:, :first])
            assert first >= ours.shape[1] or np.abs(theirs[:, first] - ours[:, first]).max() > FLOAT32
    assert reading.queries("cross") == reading.sequences["target"].tokens[:-1]
    assert reading.written("cross") == reading.sequences["target"].tokens[1:]


def test_an_encoder_writes_nothing(module_of, tokenizer, texts):
    target = tokenizer.encode(texts.target)
    reading = replay(module_of("transformer"), tokenizer, texts.source, target, model="toy", max_length=40)
    assert reading.written("encoder") is None
    assert reading.queries("encoder") == reading.keys("encoder") == reading.sequences["source"].tokens


@pytest.mark.parametrize("source", ["two it's 七八 五🙂", "  five  ", "🙂👩‍👩‍👧é", "unseen wörds, ok"])
def test_source_tokens_and_words_are_places_in_the_text_that_was_given(read, source):
    sequence = read(source=source).sequences["source"]
    assert sequence.text == source
    assert sequence.words == split_words(source)
    covered = set()
    for token in sequence.tokens[:-1]:
        assert 0 <= token.start <= token.end <= len(source)
        assert token.words
        assert set(token.words) <= set(range(len(sequence.words)))
        covered |= set(range(token.start, token.end))
        # a part of a character shows its bytes instead
        assert token.text in (source[token.start : token.end], "") or "⟨" in token.text
    assert covered == set(range(len(source)))


def test_target_tokens_are_places_in_the_text_that_was_written(read):
    sequence = read().sequences["target"]
    for token in sequence.tokens[1:-1]:
        shown = sequence.text[token.start : token.end]
        assert token.text.strip() == shown.strip() or "⟨" in token.text
        assert token.words
    assert sequence.words == split_words(sequence.text)


def test_a_target_without_words_is_read_up_to_its_end(read):
    reading = read(target=[])
    assert [token.text for token in reading.sequences["target"].tokens] == ["<s>", "</s>"]
    assert reading.weights("cross", 0).shape[1] == 1
    assert reading.alignment().shape == (0, len(reading.sequences["source"].words))


@pytest.mark.parametrize("source", ["", "  \n"])
def test_an_empty_source_is_refused(read, source):
    with pytest.raises(RegardError, match="the source is empty; there is nothing to read"):
        read(source=source)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_side_is_read_up_to_the_limit_and_refused_beyond(module_of, tokenizer, side):
    module = module_of("transformer")

    def read(words):
        texts = {"source": "two", "target": "deux"} | {side: " ".join(["five"] * words)}
        target = tokenizer.encode(texts["target"])
        return replay(module, tokenizer, texts["source"], target, model="toy", max_length=40)

    length = len(tokenizer.encode("five five")) - len(tokenizer.encode("five"))
    fits = 1 + (39 - len(tokenizer.encode("five"))) // length
    assert len(read(fits).sequences[side].words) == fits
    with pytest.raises(RegardError, match=rf"the {side} has \d+ tokens, the model takes at most 40; shorten it"):
        read(fits + 1)


def test_a_model_without_attention_says_what_carries_its_source(module_of, tokenizer):
    with pytest.raises(RegardError, match="toy has no attention to read: its decoder sees the source only as one hidd"):
        replay(module_of("none"), tokenizer, "two", [], model="toy", max_length=40)
    with pytest.raises(RegardError, match="this model has no attention, so it has no alignments"):
        next(alignments(module_of("none"), tokenizer, ["two"], [[5]]))


SOURCES = ["two it's 七 five🙂", "one", "five six seven one two", "unseen wörds, ok"]
TARGETS = ["deux", "cinq six 七八 sept", "un deux trois, c'est", "mots, inconnus"]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_alignments_of_many_are_the_readings_alignments_of_each(read, batch_size):
    targets = [read.tokenizer.encode(target) for target in TARGETS]
    found = list(alignments(read.module, read.tokenizer, SOURCES, targets, batch_size=batch_size))
    assert len(found) == len(SOURCES)
    for alignment, source, target in zip(found, SOURCES, targets, strict=True):
        np.testing.assert_allclose(alignment, read(source, target).alignment(), atol=FLOAT32)


def test_alignments_are_of_the_layer_and_head_that_were_asked_for(module_of, tokenizer):
    module, target = module_of("transformer"), tokenizer.encode("un deux")
    reading = replay(module, tokenizer, "one two", target, model="toy", max_length=40)
    seen = []
    for layer in (0, 1):
        for head in (None, 0, 2):
            (found,) = alignments(module, tokenizer, ["one two"], [target], layer=layer, head=head)
            np.testing.assert_allclose(found, reading.alignment(layer=layer, head=head), atol=FLOAT32)
            seen.append(found)
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"layer": 2}, "there is no cross layer 2; there are layers 0 to 1"),
        ({"layer": -3}, "there is no cross layer -3"),
        ({"head": 3}, "there is no head 3; the layer has heads 0 to 2"),
        ({"head": -1}, "there is no head -1"),
    ],
)
def test_a_layer_or_head_that_there_is_not_is_refused(module_of, tokenizer, asked, message):
    with pytest.raises(RegardError, match=message):
        next(alignments(module_of("transformer"), tokenizer, ["one"], [[5]], **asked))


def test_every_word_is_aligned_where_one_token_holds_several():
    tokenizer = Tokenizer.train(["狐狸跳过"] * 9, kind="bpe", vocab_size=300)
    config = read_config({"type": "rnn", "attention": "additive", "embedding_dim": 6, "hidden_dim": 6}, where="[model]")
    module = build(config, len(tokenizer)).eval()
    text = "狐狸跳过"
    ids = tokenizer.encode(text)
    assert len(ids) == 1
    reading = replay(module, tokenizer, text, ids, model="toy", max_length=40)
    (found,) = alignments(module, tokenizer, [text], [ids])
    # the one row's weight on the one token, a quarter for each source word, whole for each target word
    weight = reading.weights("cross", 0)[0, 0, 0]
    for alignment in (found, reading.alignment()):
        np.testing.assert_allclose(alignment, np.full((4, 4), weight / 4), atol=FLOAT32)
    assert len(pharaoh(found).split()) == 4


def test_the_pharaoh_format_names_the_source_word_of_most_weight_the_first_of_equals_and_none_without_weight():
    table = np.array([[0.1, 0.7, 0.2], [0.0, 0.0, 0.0], [0.4, 0.2, 0.4]])
    assert pharaoh(table) == "1-0 0-2"
    assert pharaoh(np.zeros((0, 3))) == ""
    assert pharaoh(np.zeros((2, 0))) == ""
