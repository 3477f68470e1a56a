"""What `regard demo` asks a language model, and what is told where there is none."""

import importlib.util
import io
import itertools

import pytest
from rich.console import Console

import regard.api
from regard.data.words import count_words
from regard.errors import RegardError
from regard.reading.segments import sentences

# `regard.cli.main` offers the function under the same name
demo = importlib.import_module("regard.cli.demo")


def test_the_answer_stands_in_one_sentence_of_a_page():
    starts = [*sentences(demo.REPORT), len(demo.REPORT)]
    parts = [demo.REPORT[start:end] for start, end in itertools.pairwise(starts)]
    assert sum("theatre in Bergvik" in part for part in parts) == 1
    assert 250 <= count_words(demo.REPORT) <= 350


def test_without_the_model_the_error_says_what_is_done_and_what_is_missing(monkeypatch, tmp_path):
    def missing(name):
        raise RegardError(f"{name}: cannot be fetched")

    monkeypatch.setattr(regard.api, "load", missing)
    for out, kept in ((None, ""), (tmp_path, f", all of it is in {tmp_path}")):
        with pytest.raises(RegardError) as error:
            demo._ask(Console(file=io.StringIO()), out)
        assert str(error.value) == (
            f"the translators' part is done{kept}; the language model is missing: smollm2: cannot be fetched"
        )


def test_the_live_page_is_put_beside_the_demos_where_there_is_one(monkeypatch, tmp_path):
    models = [{"name": "RNN", "count": 1, "by_length": []}]
    shown = {"source": "two", "reference": "deux", "translations": {"RNN": "deux"}, "readings": {}}
    monkeypatch.setattr(demo, "LIVE", tmp_path / "missing.html")
    demo._write_page(tmp_path, models, **shown)
    assert {path.name for path in tmp_path.iterdir()} == {"demo.html"}
    monkeypatch.undo()
    demo._write_page(tmp_path, models, **shown)
    assert (tmp_path / "live.html").read_bytes() == demo.LIVE.read_bytes()


@pytest.mark.parametrize("extra", ["plot", "hf"])
def test_without_an_extra_its_part_is_left_out_and_the_rest_is_done(extra, monkeypatch, tmp_path, capsys):
    packages = {"plot": ("matplotlib",), "hf": ("transformers", "gguf")}[extra]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages else found(name))
    asked, out = [], tmp_path / "out"
    # training is another test's matter
    monkeypatch.setattr(demo, "_train", lambda name, *_: FakeTranslator())
    monkeypatch.setattr(demo, "_measure", lambda name, _: {"name": name, "by_length": []})
    monkeypatch.setattr(demo, "_show", lambda *_: ("one", "un"))
    monkeypatch.setattr(demo, "_write_page", lambda out, models, **shown: (out / demo.PAGE).touch())
    monkeypatch.setattr(demo, "_draw", lambda out, *_: (out / "ladder.png").touch())
    monkeypatch.setattr(demo, "_ask", lambda *_: asked.append("smollm2"))
    demo.demo(out=out)
    told = " ".join(capsys.readouterr().out.split())
    assert f"pip install 'regard[{extra}]'" in told
    assert "Install " + " and ".join(packages) in told
    assert {path.name for path in out.iterdir()} >= {"ladder.json", demo.PAGE}
    assert (out / "ladder.png").exists() == (extra != "plot")
    assert bool(asked) == (extra != "hf")


class FakeTranslator:
    def read(self, source):
        return source

    def translate(self, source):
        return self

    text = "un"


@pytest.mark.download
def test_the_answer_is_right_and_is_kept_with_its_picture(tmp_path):
    shown = io.StringIO()
    demo._ask(Console(file=shown, width=100), tmp_path)
    assert "The piano was a gift of the theatre in Bergvik" in shown.getvalue()
    assert {path.name for path in tmp_path.iterdir()} == {"smollm2-answer.safetensors", "smollm2-answer.png"}
    assert regard.Reading.load(tmp_path / "smollm2-answer.safetensors").settings["prompt_tokens"] > 300
