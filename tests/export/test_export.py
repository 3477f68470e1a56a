"""What every export promises: a folder that does what the run does, or none."""

import importlib.util
import re
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

import regard
from regard.cli.export import export as verb
from regard.export import EXPORTS, Agreement

pytest.importorskip("ctranslate2")

RECIPE = """
[data]
train = "{data}"
tokenizer = "{tokenizer}"
vocab_size = {vocab_size}
[model]
max_length = 24
{model}
[train]
steps = 30
batch_tokens = 256
learning_rate = 0.01
warmup_steps = 2
threads = 1
device = "cpu"
"""
# with its three words the last model has to write unknown ones
MODELS = {
    "rnn": ("word", 290, 'type = "rnn"\nembedding_dim = 12\nhidden_dim = 12'),
    "bytes": ("bpe", 290, 'type = "transformer"\nmodel_dim = 16\nnum_heads = 2\nnum_layers = 1\nfeed_forward_dim = 16'),
    "words": ("word", 7, 'type = "transformer"\nmodel_dim = 18\nnum_heads = 3\nnum_layers = 2\nfeed_forward_dim = 16'),
}
TEXTS = ["one two", "three", "四 一 七", "four one <s> </s> seven"]


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """Trained for a second on words in reverse; by the name of the model."""
    folder = tmp_path_factory.mktemp("runs")
    words = ["one un", "two deux", "three trois", "四 quatre"]
    pairs = [[words[(7 * i + k * k) % 4].split() for k in range(i % 5 + 1)] for i in range(120)]
    lines = (
        "\t".join(" ".join(pair[side] for pair in sentence[:: 1 - 2 * side]) for side in (0, 1)) for sentence in pairs
    )
    (folder / "toy.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, (tokenizer, vocab_size, model) in MODELS.items():
        text = RECIPE.format(data=folder / "toy.tsv", tokenizer=tokenizer, vocab_size=vocab_size, model=model)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return {name: regard.train(folder / f"{name}.toml", out=folder / name) for name in MODELS}


@pytest.fixture(params=["bytes", "words"])
def translator(request, translators):
    return translators[request.param]


def test_the_command_line_offers_every_target():
    assert get_args(get_type_hints(verb)["to"]) == (*EXPORTS, "hf")


@pytest.mark.parametrize("target", EXPORTS)
def test_an_export_tells_on_how_many_sentences_it_agreed(translator, target, tmp_path):
    sentences = len(translator.pairs("dev"))
    assert translator.export(target, tmp_path / "dev") == Agreement(same=sentences, sentences=sentences)
    # a sample of one's own; blank texts are nothing to translate
    assert translator.export(target, str(tmp_path / "own"), sample=[*TEXTS, "", " "]) == (4, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev", "own"]


@pytest.mark.parametrize("target", EXPORTS)
def test_the_readme_of_an_export_holds_a_program_that_translates(translator, target, tmp_path):
    translator.export(target, tmp_path / "made", sample=TEXTS)
    readme = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    greedy, changes = re.subn(r"beam_size=\d+", "beam_size=1", program)
    greedy, more = re.subn(r"texts = \[.*?\]", f"texts = {TEXTS!r}", greedy)
    assert (changes, more) == (1, 1)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", "-c", greedy],
        cwd=tmp_path / "made",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    wanted = [each.text for each in translator.translate(TEXTS, max_new_tokens=translator.max_length - 1)]
    assert done.stdout.split("\n") == [*wanted, ""]
    assert ("⁇" in done.stdout) == (translator.tokenizer.kind == "word")


def test_the_readme_of_an_export_carries_the_rights_to_the_text(translators, tmp_path):
    translator = translators["words"]
    translator.run.facts.update(licence="CC BY 4.0", attribution="A. Writer, A Book")
    translator.export("ctranslate2", tmp_path / "made", sample=TEXTS)
    readme = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "- licence: CC BY 4.0\n- source: A. Writer, A Book\n" in readme
    assert "translation as Regard of 4 in 4 sentences" in readme


def test_an_export_that_translates_otherwise_leaves_nothing(translators, tmp_path, monkeypatch):
    honest = EXPORTS["ctranslate2"]
    sample = TEXTS * 25

    def disturbed(lines):
        def translate(folder, texts, max_new_tokens):
            found = honest.translate(folder, texts, max_new_tokens)
            return [f"{text} x" for text in found[:lines]] + found[lines:]

        return honest._replace(translate=translate)

    monkeypatch.setitem(EXPORTS, "ctranslate2", disturbed(2))
    with pytest.raises(regard.RegardError, match="the same greedy translation of only 98 in 100 sentences"):
        translators["words"].export("ctranslate2", tmp_path / "made", sample=sample)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(EXPORTS, "ctranslate2", disturbed(1))
    assert translators["words"].export("ctranslate2", tmp_path / "made", sample=sample) == (99, 100)


def test_a_model_that_the_target_cannot_hold_is_refused_by_its_rung(translators, tmp_path):
    with pytest.raises(regard.RegardError, match=r"type rnn \(rungs 1 and 2\), .* it holds transformer \(rung 3\)"):
        translators["rnn"].export("ctranslate2", tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_is_told_with_those_there_are(translators, tmp_path):
    with pytest.raises(regard.RegardError, match="exported to ctranslate2, not to 'onnx'"):
        translators["words"].export("onnx", tmp_path / "made")


def test_a_target_that_is_not_installed_is_told_with_the_extra_that_brings_it(translators, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(regard.RegardError, match=re.escape("pip install 'regard[ctranslate2]'")):
        translators["words"].export("ctranslate2", tmp_path / "made")


def test_a_folder_that_exists_stays_as_it_is(translators, tmp_path):
    (tmp_path / "kept").write_text("mine", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "kept"):
        with pytest.raises(regard.RegardError, match="exists already; choose another folder, or delete it"):
            translators["words"].export("ctranslate2", folder)
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "mine"
    with pytest.raises(regard.RegardError, match="cannot be written"):
        translators["words"].export("ctranslate2", tmp_path / "kept" / "made", sample=TEXTS)


def test_a_sample_must_be_of_text_that_the_model_can_read(translators, tmp_path):
    for sample, message in (
        ([], "no sentence to check"),
        ([" "], "no sentence to check"),
        (["one " * 50], "at most 24"),
        (["one", "", "one " * 50], "^sentence 3 has"),
    ):
        with pytest.raises(regard.RegardError, match=message):
            translators["words"].export("ctranslate2", tmp_path / "made", sample=sample)
    assert list(tmp_path.iterdir()) == []


def test_where_the_data_are_gone_a_sample_serves(translators, tmp_path):
    translator = translators["bytes"]
    data = translator.run.path.parent / "toy.tsv"
    data.rename(tmp_path / "elsewhere.tsv")
    try:
        with pytest.raises(regard.RegardError, match=r"toy.tsv: .*; or check the export on a sample of your own"):
            translator.export("ctranslate2", tmp_path / "made")
        assert translator.export("ctranslate2", tmp_path / "made", sample=TEXTS) == (4, 4)
    finally:
        (tmp_path / "elsewhere.tsv").rename(data)


def test_weights_of_any_type_are_exported_as_float32(translators, tmp_path):
    path = translators["words"].run.path
    for dtype in ("float64", "float32"):
        regard.load(path, dtype=dtype).export("ctranslate2", tmp_path / dtype, sample=TEXTS)
    assert (tmp_path / "float64" / "model.bin").read_bytes() == (tmp_path / "float32" / "model.bin").read_bytes()
