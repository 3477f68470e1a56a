"""Texts that look the same are the same to a model, however their letters and accents were typed."""

import json
import unicodedata

import numpy as np
import pytest

import regard
from regard.training.run import Run

NFC, NFD = (lambda text, form=form: unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
ACCENTED = {"one": "một", "two": "hải", "three": "bấy", "seven": "bảy", "un": "ấn", "deux": "độ", "trois": "ngữ"}


@pytest.fixture
def accented(toy, tmp_path):
    """The toy corpus with accents, in a normal form."""

    def write(form, name="train.tsv"):
        text = toy.read_text(encoding="utf-8")
        for plain, other in ACCENTED.items():
            text = text.replace(plain, other)
        path = tmp_path / name
        path.write_text(unicodedata.normalize(form, text), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(("form", "tokenizer"), [("NFC", "word"), ("NFD", "bpe")])
def test_a_model_reads_and_writes_one_form_whatever_it_is_given(trained, accented, form, tokenizer):
    run = trained(
        "bahdanau", data={"train": accented(form), "tokenizer": tokenizer, "vocab_size": 300}, model={"max_length": 60}
    )
    translator = regard.load(run.path)
    pairs = translator.pairs("test")
    assert all(unicodedata.is_normalized("NFC", side) for pair in pairs for side in pair)
    assert (run.facts["look"]["figures"]["not_normalised"] > 0) == (form == "NFD")
    sources = [pair.source for pair in pairs][:20]
    composed, decomposed = (translator.translate([change(source) for source in sources]) for change in (NFC, NFD))
    assert composed == decomposed
    # references in the other form are the same references
    assert translator.evaluate("test").count == len(pairs)
    # half of a translation, decomposed, is the beginning of that translation
    target = pairs[0].target
    (forced,) = translator.translate([sources[0]], prefixes=[NFD(target)])
    assert forced.text.startswith(target)
    # tokens stand where they are in the text as it was given
    reading = translator.read(NFD(sources[0]), NFD(target))
    assert reading.sequences["source"].text == NFD(sources[0])
    covered = {place for token in reading.sequences["source"].tokens for place in range(token.start, token.end)}
    assert covered == {*range(len(NFD(sources[0])))}
    assert np.allclose(reading.alignment(), translator.read(NFC(sources[0]), NFC(target)).alignment())


def test_the_form_is_recorded_and_a_run_without_it_takes_texts_as_they_are(trained, accented, ctrl_c):
    settings = {"data": {"train": accented("NFC"), "tokenizer": "bpe", "vocab_size": 300}, "model": {"max_length": 60}}
    run = trained("bahdanau", **settings)
    assert 'normalise = "NFC"' in (run.path / "recipe.toml").read_text()
    # as runs were before there was the setting
    bare = {**settings, "data": {**settings["data"], "normalise": "none"}}
    older = trained("bahdanau", report=ctrl_c(6), **bare)
    assert json.loads((older.path / "tokenizer.json").read_text())["normalizer"] is None
    recipe = (older.path / "recipe.toml").read_text()
    (older.path / "recipe.toml").write_text(
        recipe.replace('normalise = "none"\n', "").replace("bpe_dropout = 0.0\n", "")
    )
    assert Run.open(older.path).recipe.data.form is None
    text = NFD("một hải")
    tokenizer = Run.open(older.path).tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalised(text) == text
    # and goes on with the recipe that it began with, which says nothing of it
    trained("bahdanau", folder=older.path, resume=True, report=ctrl_c(9), **settings)
    resumed = trained("bahdanau", folder=older.path, resume=True, **settings)
    whole = trained("bahdanau", **bare)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_dropout_follows_from_the_seed_and_goes_on_after_an_interruption(trained, ctrl_c):
    settings = {"data": {"tokenizer": "bpe", "vocab_size": 280, "bpe_dropout": 0.3}, "model": {"max_length": 60}}
    whole, again = trained("bahdanau", **settings), trained("bahdanau", **settings)
    stopped = trained("bahdanau", report=ctrl_c(7), **settings)
    resumed = trained("bahdanau", folder=stopped.path, resume=True, **settings)
    plain = trained("bahdanau", data={**settings["data"], "bpe_dropout": 0.0}, model=settings["model"])
    weights = [(run.path / "model.safetensors").read_bytes() for run in (whole, again, resumed, plain)]
    assert weights[0] == weights[1] == weights[2] != weights[3]
    # dev is measured without it
    translator = regard.load(whole.path)
    assert translator.run.tokenized("dev").batch([0]).source.tolist()[0][:-1] == translator.tokenizer.encode(
        next(translator.run.pair_corpus().pairs("dev")).source
    )
