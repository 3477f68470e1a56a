"""CTranslate2 computes what the model computes, from the folder that is written for it."""

import json

import numpy as np
import pytest
import tokenizers
import torch

from regard.data.batch import BOS, EOS, PAD, SPECIAL_TOKENS, collate
from regard.data.tokenizer import Tokenizer
from regard.export.ctranslate2 import translate, write
from regard.models.transformer import Transformer, TransformerConfig

ctranslate2 = pytest.importorskip("ctranslate2")

MAX_LENGTH = 24
TEXTS = ["one", "one two three four", "two three", "一二三", "four 🙂 één", "<s> </s> <unk>", "a\tb  c"]
LINES = [*TEXTS, "a\nb", "one two", "three four five six", "二三 一 一"] * 3
MAKES = {
    "pre-norm": {"model_dim": 16, "num_heads": 2, "num_layers": 2},
    "post-norm": {"model_dim": 16, "num_heads": 2, "num_layers": 2, "norm": "post"},
    "untied": {"model_dim": 16, "num_heads": 4, "num_layers": 1, "tied_embeddings": False},
    "untied post-norm": {"model_dim": 12, "num_heads": 3, "num_layers": 1, "norm": "post", "tied_embeddings": False},
    "five heads": {"model_dim": 20, "num_heads": 5, "num_layers": 3},
    "one head of odd size": {"model_dim": 15, "num_heads": 1, "num_layers": 1},
    "heads of odd size": {"model_dim": 21, "num_heads": 3, "num_layers": 2, "norm": "post"},
}


@pytest.fixture(scope="module", params=["bpe", "word"])
def tokenizer(request):
    return Tokenizer.train(LINES, kind=request.param, vocab_size=290)


def made(tokenizer, **settings):
    """A model with every parameter at random: a bias of 0 or a gain of 1 would hide that it was forgotten."""
    config = TransformerConfig(feed_forward_dim=18, max_length=MAX_LENGTH, **settings)
    module = Transformer(config, len(tokenizer)).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            elif "layers" in name:
                # else a model with tied embeddings writes its last token again and again
                parameter.mul_(3)
    return module


@pytest.fixture(params=MAKES)
def module(request, tokenizer):
    return made(tokenizer, **MAKES[request.param])


@pytest.fixture
def exported(module, tokenizer, tmp_path):
    write(module, tokenizer, tmp_path)
    return ctranslate2.Translator(str(tmp_path), compute_type="float32", intra_threads=1)


def masked_log_probs(module, source, target):
    """Of each written token, from one forward pass without a cache."""
    with torch.no_grad():
        logits = module(collate([source], [target])).logits[0]
    logits[:, [PAD, BOS]] = -torch.inf
    return logits.log_softmax(dim=-1)


def greedy(module, source, limit):
    written = []
    while len(written) < limit:
        token = int(masked_log_probs(module, source, written)[-1].argmax())
        if token == EOS:
            break
        written.append(token)
    return written


def tokens_of(folder, ids):
    vocabulary = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
    return [vocabulary[id] for id in ids]


def test_a_text_is_translated_as_the_model_translates_it(module, tokenizer, tmp_path):
    write(module, tokenizer, tmp_path)
    wanted = [tokenizer.decode(greedy(module, tokenizer.encode(text), MAX_LENGTH - 1)) for text in TEXTS]
    assert translate(tmp_path, TEXTS, MAX_LENGTH - 1) == wanted


def test_every_token_has_the_models_own_probability(module, exported, tokenizer, tmp_path):
    sources = [tokenizer.encode(text) for text in TEXTS]
    targets = [*sources[1:], sources[0]]
    found = exported.score_batch(
        [tokens_of(tmp_path, ids) for ids in sources], [tokens_of(tmp_path, ids) for ids in targets]
    )
    for source, target, score in zip(sources, targets, found, strict=True):
        rows = masked_log_probs(module, source, target)
        wanted = [float(row[id]) for row, id in zip(rows, [*target, EOS], strict=True)]
        assert score.log_probs == pytest.approx(wanted, abs=2e-4)


def test_sources_of_one_token_and_of_the_most_are_read(module, exported, tokenizer, tmp_path):
    most = MAX_LENGTH - 1
    ids = torch.randint(len(SPECIAL_TOKENS), len(tokenizer), (most + 1,)).tolist()
    for count in (1, most):
        result = exported.translate_batch(
            [tokens_of(tmp_path, ids[:count])], beam_size=1, min_decoding_length=0, max_decoding_length=most
        )
        assert result[0].hypotheses[0] == tokens_of(tmp_path, greedy(module, ids[:count], most))
    with pytest.raises(RuntimeError, match="No position encodings are defined for positions >= 24"):
        exported.translate_batch([tokens_of(tmp_path, ids)])


def test_what_it_gives_as_attention_is_the_mean_of_the_last_cross_layers_heads(module, exported, tokenizer, tmp_path):
    source = tokenizer.encode("one two three four")
    (result,) = exported.translate_batch(
        [tokens_of(tmp_path, source)],
        beam_size=1,
        min_decoding_length=4,
        max_decoding_length=4,
        return_attention=True,
        return_end_token=True,
    )
    vocabulary = tokens_of(tmp_path, range(len(tokenizer)))
    target = [vocabulary.index(token) for token in result.hypotheses[0]]
    with torch.no_grad():
        maps = module(collate([source], [target]), read=True).attention
    weights = [map.weights for map in maps if map.kind == "cross"][-1][0].mean(dim=0)
    # the source ends with EOS, which it leaves out
    np.testing.assert_allclose(result.attention[0], weights[:4, :-1], atol=1e-5)


def test_the_vocabulary_is_the_tokenizers_own_in_the_order_of_ids(tokenizer, tmp_path):
    write(made(tokenizer, **MAKES["pre-norm"]), tokenizer, tmp_path)
    tokens = tokens_of(tmp_path, range(len(tokenizer)))
    assert tokens[:4] == list(SPECIAL_TOKENS)
    assert len(set(tokens)) == len(tokens)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.encode_special_tokens = True
    for text in [*TEXTS, "a\nb"]:
        assert backend.encode(text).tokens == tokens_of(tmp_path, tokenizer.encode(text))


def with_favourites(tokenizer, favourites):
    """A model whose logits are the same at every step: those of `favourites`, highest first, then 0 for the rest."""
    module = made(tokenizer, model_dim=16, num_heads=2, num_layers=1, tied_embeddings=False)
    with torch.no_grad():
        module.decoder_norm.weight.zero_()
        module.decoder_norm.bias.fill_(1)
        module.output.weight.zero_()
        for place, id in enumerate(favourites):
            module.output.weight[id] = 10 * (len(favourites) - place)
    return module


def test_padding_and_begin_are_never_written_whatever_a_user_sets(tokenizer, tmp_path):
    favourite = tokenizer.encode("one")[0]
    write(with_favourites(tokenizer, [PAD, BOS, favourite]), tokenizer, tmp_path)
    for compute_type in ("float32", "int8"):
        exported = ctranslate2.Translator(str(tmp_path), compute_type=compute_type, intra_threads=1)
        for beams in (1, 4):
            (result,) = exported.translate_batch([["a"]], beam_size=beams, max_decoding_length=3)
            assert result.hypotheses[0] == tokens_of(tmp_path, [favourite] * 3)


def test_a_model_that_never_ends_writes_as_much_as_ctranslate2_allows_by_default(tokenizer, tmp_path):
    favourite = tokenizer.encode("two")[0]
    write(with_favourites(tokenizer, [favourite]), tokenizer, tmp_path)
    exported = ctranslate2.Translator(str(tmp_path), compute_type="float32", intra_threads=1)
    assert len(exported.translate_batch([["a"]])[0].hypotheses[0]) == 256 > MAX_LENGTH


def test_a_translation_may_be_empty(tokenizer, tmp_path):
    write(with_favourites(tokenizer, [EOS]), tokenizer, tmp_path)
    assert translate(tmp_path, ["one", "two"], 5) == ["", ""]


def test_an_unknown_token_is_written_as_regard_writes_it(tokenizer, tmp_path):
    write(with_favourites(tokenizer, [3]), tokenizer, tmp_path)
    assert translate(tmp_path, ["one"], 3) == [tokenizer.decode([3, 3, 3])]
    assert tokenizer.decode([3, 3, 3]).count("⁇") == 3
