"""What `import regard` offers, and that Python and the command line do one and the same."""

import inspect
import re

import numpy as np
import pytest
import torch

import regard
from regard.data.batch import EOS, collate
from regard.data.corpus import Corpus
from regard.data.words import split_words

RECIPE = """
[data]
train = '{folder}/toy.tsv'
vocab_size = 290
[model]
type = "{type}"
{settings}
max_length = 40
[train]
steps = 4
batch_tokens = 128
warmup_steps = 2
threads = 1
device = "cpu"
"""
MODELS = {
    "rnn": ("rnn", "embedding_dim = 12\nhidden_dim = 12"),
    "bahdanau": ("rnn", 'attention = "additive"\nembedding_dim = 12\nhidden_dim = 12'),
    "transformer": ("transformer", "model_dim = 12\nnum_heads = 2\nnum_layers = 2\nfeed_forward_dim = 16"),
}
TEXTS = ["one two", "three", "", "four one 七 🙂", "  ", "two"]


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    words = ["one un", "two deux", "three trois", "four quatre"]
    pairs = [[words[(7 * i + k * k) % 4].split() for k in range(i % 5 + 1)] for i in range(60)]
    lines = ("\t".join(" ".join(pair[side] for pair in sentence) for side in (0, 1)) for sentence in pairs)
    (folder / "toy.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, (type, settings) in MODELS.items():
        text = RECIPE.format(folder=folder, type=type, settings=settings)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return {name: regard.train(folder / f"{name}.toml", out=folder / name) for name in MODELS}


@pytest.fixture(params=MODELS)
def translator(request, translators):
    return translators[request.param]


def test_whatever_is_public_says_what_it_does():
    for name in set(regard.__all__) - {"attention"}:
        assert inspect.getdoc(getattr(regard, name)), name
    for name, method in inspect.getmembers(regard.Translator, inspect.isfunction):
        assert name.startswith("_") or inspect.getdoc(method), name


def test_training_gives_the_translator_that_its_folder_loads(translator):
    again = regard.load(translator.run.path)
    assert again.name == translator.run.path.name
    assert again.translate(TEXTS) == translator.translate(TEXTS)
    for ours, theirs in zip(again.module.parameters(), translator.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not again.module.training


def test_a_text_is_translated_as_it_is_among_others(translator):
    together = translator.translate(TEXTS, num_beams=2)
    for text, found in zip(TEXTS, together, strict=True):
        alone = translator.translate(text, num_beams=2)
        assert (alone.text, alone.tokens, alone.finished) == (found.text, found.tokens, found.finished)
        assert alone.score == pytest.approx(found.score, abs=1e-5)
        assert found.text == translator.tokenizer.decode(found.tokens)


def test_an_empty_text_has_an_empty_translation(translator):
    for text in ("", " \t"):
        assert translator.translate(text) == regard.Generation(text="", tokens=[], score=0.0, finished=True)
    assert translator.translate([]) == []


def test_progress_counts_the_sentences_that_are_translated(translators):
    counts = []
    translators["rnn"].translate(TEXTS, batch_size=3, progress=counts.append)
    assert counts == [3, 1]


def test_a_text_that_is_too_long_is_told_by_its_place_among_all(translator):
    long = "one " * 50
    with pytest.raises(regard.RegardError, match=r"sentence 4 has \d+ tokens, the model reads at most 40"):
        translator.translate(["one", "", " ", long])


def test_a_score_is_the_mean_log_probability_of_its_tokens(translator):
    """Held against one forward pass over the whole translation."""
    found = translator.translate("one two three")
    source = translator.tokenizer.encode("one two three")
    with torch.no_grad():
        log_probs = translator.module(collate([source], [found.tokens])).logits[0].log_softmax(-1)
    written = [*found.tokens, EOS] if found.finished else found.tokens
    wanted = sum(log_probs[step, token].item() for step, token in enumerate(written)) / len(written)
    assert found.score == pytest.approx(wanted, abs=1e-4)


def test_the_data_type_is_that_of_all_parameters(translators):
    path = translators["transformer"].run.path
    for name, dtype in (("float64", torch.float64), ("bfloat16", torch.bfloat16)):
        loaded = regard.load(path, dtype=name)
        assert {parameter.dtype for parameter in loaded.module.parameters()} == {dtype}
        assert loaded.translate("one").text is not None
    with pytest.raises(regard.RegardError, match=r"dtype must be float32, bfloat16, float64 or, .* not 'int8'"):
        regard.load(path, dtype="int8")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(regard.RegardError, match=re.escape(f"{tmp_path}: neither a run nor a Hugging Face folder")):
        regard.load(tmp_path)
    with pytest.raises(regard.RegardError, match="none: there is no such run, Hugging Face folder or GGUF file"):
        regard.load(tmp_path / "none")
    (tmp_path / "file").write_text("no model")
    with pytest.raises(regard.RegardError, match="file: this file is no model; a model is a run"):
        regard.load(str(tmp_path / "file"))
    with pytest.raises(regard.RegardError, match="there is no such run; `regard train RECIPE --out"):
        regard.evaluate(tmp_path / "none")


@pytest.mark.parametrize("name", ["bahdanau", "transformer"])
def test_a_reading_is_of_the_models_own_translation_or_of_the_one_that_is_given(translators, name):
    translator = translators[name]
    for beams in (1, 3):
        own = translator.read("one two three", num_beams=beams)
        written = [token.id for token in own.written("cross")[:-1]]
        assert written == translator.translate("one two three", num_beams=beams).tokens
    given = translator.read("one two three", "trois un")
    assert given.sequences["target"].text == "trois un"
    assert given.model == name
    same = regard.read(translator.run.path, source="one two three", target="trois un")
    assert same.facts() == given.facts()
    np.testing.assert_array_equal(same.alignment(), given.alignment())


@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
def test_sources_of_a_translation_are_what_shorter_sources_give(translators, name):
    translator = translators[name]

    def log_probability(source, target):
        encoded = [translator.tokenizer.encode(text) for text in (source, target)]
        with torch.no_grad():
            log_probs = translator.module(collate(*[[ids] for ids in encoded])).logits[0].double().log_softmax(-1)
        return sum(log_probs[step, token].item() for step, token in enumerate(encoded[1]))

    given = {"source": "one two three", "target": "un trois"}
    found = regard.sources(translator, **given, grain="words")
    assert found.method == "removal"
    assert found.question is None
    assert sorted(each.text for each in found) == ["one", "three", "two"]
    whole = log_probability("one two three", "un trois")
    assert found.log_probability == pytest.approx(whole, abs=1e-4)
    shorter = {"one": " two three", "two": "one  three", "three": "one two "}
    words = translator.tokenizer.kind == "word"
    for each in found:
        without = shorter[each.text].split() if words else [shorter[each.text]]
        assert each.effect == each.estimate
        if words:
            assert each.effect == pytest.approx(log_probability(" ".join(without), "un trois") - whole, abs=1e-4)
    many = translator.sources(" ".join(["one two three"] * 8), "un trois", grain="words")
    assert len(many) == len([each for each in many if each.effect is not None]) == 24
    against = translator.sources(**given, contrast="deux", grain="words")
    assert against.log_probability == found.log_probability
    assert [each.effect for each in against] != [each.effect for each in found]
    for wrong, why in (({"source": " "}, "the source is empty"), ({"source": "one"}, "one passage and nothing else")):
        with pytest.raises(regard.RegardError, match=why):
            translator.sources(**wrong)
    with pytest.raises(regard.RegardError, match="it takes a source"):
        regard.sources(translator, "one two")


@pytest.mark.parametrize("name", ["bahdanau", "transformer"])
def test_alignments_have_a_table_for_every_text(translators, name):
    translator = translators[name]
    written = translator.translate(TEXTS)
    found = list(translator.alignments(TEXTS, written))
    assert len(found) == len(TEXTS)
    for text, generation, table in zip(TEXTS, written, found, strict=True):
        if not text.strip():
            assert table.size == 0
            continue
        assert table.shape == (len(split_words(generation.text)), len(split_words(text)))
        np.testing.assert_allclose(table, translator.read(text).alignment(), atol=1e-6)


def test_a_model_is_measured_on_the_sentences_of_its_split(translator):
    corpus = Corpus.from_files(translator.run.recipe.data.train)
    # a pair that occurs again counts once
    pairs = [*dict.fromkeys(corpus.pairs("test"))]
    assert translator.pairs("test") == pairs
    found = regard.evaluate(translator)
    assert found == regard.evaluate(translator.run.path)
    assert found.count == len(pairs)
    texts = [translator.translate(pair.source).text for pair in pairs]
    assert found.exact == np.mean([text == pair.target for text, pair in zip(texts, pairs, strict=True)])


def test_a_model_that_always_gives_the_reference_scores_full_marks(translators, monkeypatch):
    translator = translators["rnn"]
    references = dict(translator.pairs("test"))
    monkeypatch.setattr(
        regard.Translator,
        "translate",
        lambda self, texts, **_: [regard.Generation(references[text], [], 0.0, True) for text in texts],
    )
    found = translator.evaluate("test")
    assert (found.exact, found.chrf) == (1.0, 100.0)


def test_the_perplexity_is_that_of_the_references_one_by_one(translators):
    translator = translators["bahdanau"]
    total, count = 0.0, 0
    for pair in translator.pairs("test"):
        source, target = (translator.tokenizer.encode(text) for text in pair)
        with torch.no_grad():
            log_probs = translator.module(collate([source], [target])).logits[0].double().log_softmax(-1)
        labels = [*target, EOS]
        total -= sum(log_probs[step, label].item() for step, label in enumerate(labels))
        count += len(labels)
    assert translator.evaluate("test").perplexity == pytest.approx(np.exp(total / count), rel=1e-4)


def test_pairs_that_are_too_long_are_left_out_and_told(translators, tmp_path, caplog):
    path = translators["rnn"].run.path
    short = regard.train(path.with_suffix(".toml"), out=tmp_path / "short", changes={"model.max_length": 5})
    pairs = list(translators["rnn"].run.corpus().pairs("train"))
    length = short.tokenizer.encode
    fit = [pair for pair in pairs if len(length(pair.source)) + 1 <= 5 and len(length(pair.target)) + 2 <= 5]
    assert 0 < len(fit) < len(pairs)
    assert short.run.facts["pairs"] == len(fit)
    for _ in range(2):
        caplog.clear()
        assert short.evaluate("train").count == len({*fit})
        assert f"pairs skipped because a side has more than 5 tokens: {len({*pairs}) - len({*fit})}" in caplog.text


def test_what_a_user_cannot_change_by_accident(translator):
    with pytest.raises(AttributeError):
        translator.translate("one").text = "other"
    with pytest.raises(AttributeError):
        translator.run.recipe.train.steps = 9


def test_a_reading_tells_how_its_target_was_found(translators):
    translator = translators["bahdanau"]
    assert translator.read("one two", "un deux").settings == {"target": "given"}
    own = translator.read("one two", num_beams=2, max_new_tokens=3)
    assert own.settings == {"target": "own", "num_beams": 2, "max_new_tokens": 3}
