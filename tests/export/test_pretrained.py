"""A pretrained translator is handed on to transformers and to CTranslate2, which translate as Regard does."""

import subprocess
import sys

import pytest
from tests.pretrained_translators import LANGUAGES, MAKERS, SOURCES, TARGETS

import regard
from regard.errors import RegardError

SAMPLE = [*SOURCES, "", *TARGETS]


@pytest.fixture(scope="module")
def load(folder_of):
    return lambda name, **languages: regard.load(folder_of(name), **(languages or LANGUAGES[name]))


@pytest.mark.parametrize("target", ["hf", "ctranslate2"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_other_tool_translates_as_regard_does(load, tmp_path, name, target):
    translator = load(name)
    assert translator.export(target, tmp_path / "made", sample=SAMPLE) == (8, 8)
    if name not in ("nllb", "marian_many"):
        return
    # its README holds a program that runs
    code = (tmp_path / "made" / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path / "made", capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()


def test_an_exported_folder_keeps_its_languages(load, tmp_path):
    for name, target in (("nllb", "deu_Latn"), ("m2m_100", "de"), ("mbart", "de_DE"), ("mbart_50", "de_DE")):
        translator = load(name, target_language=target)
        translator.export("hf", tmp_path / name, sample=SOURCES)
        again = regard.load(tmp_path / name)
        assert again.tokenizer.frames == translator.tokenizer.frames
        assert again.translate(SOURCES[0], max_new_tokens=4) == translator.translate(SOURCES[0], max_new_tokens=4)


def test_what_cannot_be_exported_is_told_and_leaves_nothing(load, tmp_path, monkeypatch):
    translator = load("t5")
    with pytest.raises(RegardError, match="is exported to hf, ctranslate2, not to 'onnx'"):
        translator.export("onnx", tmp_path / "made", sample=SOURCES)
    with pytest.raises(RegardError, match="no dev split to check its export on; give a sample"):
        translator.export("hf", tmp_path / "made")
    with pytest.raises(RegardError, match="no sentence to check"):
        translator.export("hf", tmp_path / "made", sample=[""])
    other = {"hf": translator.tokenizer.encode}
    from regard.export import pretrained

    wrong = pretrained.TARGETS["hf"]._replace(translate=lambda folder, tokenizer, texts, most: [other["hf"]("a")] * 4)
    monkeypatch.setitem(pretrained.TARGETS, "hf", wrong)
    with pytest.raises(RegardError, match="the same greedy translation of only 0 in 4 sentences"):
        translator.export("hf", tmp_path / "made", sample=SOURCES)
    assert not (tmp_path / "made").exists()
