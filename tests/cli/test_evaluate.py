"""`regard evaluate` and `regard compare`: the same figures as in Python, as tables, JSON and pictures."""

import json
import xml.etree.ElementTree

import pytest
from matplotlib.image import imread

import regard

SCORES = {"bleu", "chrf", "exact"}
INTERVALS = {f"{score}_{end}" for score in SCORES for end in ("low", "high")}


@pytest.fixture(scope="module")
def qualities(runs):
    return {name: regard.evaluate(run).to_json() for name, run in runs.items()}


@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
def test_the_command_tells_what_the_library_measures(cli, runs, qualities, name):
    done = cli("evaluate", runs[name], "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"run": name, "split": "test", **qualities[name]}


def test_the_json_has_every_figure_under_its_name(qualities):
    document = qualities["rnn"]
    figures = SCORES | INTERVALS | {"count", "perplexity"}
    assert set(document) == figures | {"signature", "length_unit", "by_length"}
    for part in document["by_length"]:
        assert set(part) == figures | {"from", "to"}
        assert part["from"] <= part["to"]
        for score in SCORES:
            assert part[f"{score}_low"] <= part[score] <= part[f"{score}_high"]
    assert sum(part["count"] for part in document["by_length"]) == document["count"] == 8


def test_splits_and_settings_are_those_asked_for(cli, runs):
    found = {
        arguments: json.loads(cli("evaluate", runs["bahdanau"], "--json", *arguments).out)
        for arguments in [("--split", "dev"), ("--num-beams", "3"), ("--batch-size", "1"), ()]
    }
    assert found["--split", "dev"]["split"] == "dev"
    assert found["--split", "dev"]["signature"] == found[()]["signature"]
    assert found["--split", "dev"]["perplexity"] != found[()]["perplexity"]
    assert found["--batch-size", "1"] == found[()]
    # how likely the references are has nothing to do with the search
    assert found["--num-beams", "3"]["perplexity"] == found[()]["perplexity"]


def test_the_table_fits_its_terminal(cli, runs, qualities, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = cli("evaluate", runs["rnn"])
    assert done.code == 0
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    assert f"perplexity {qualities['rnn']['perplexity']:.3f}" in done.out
    assert "\x1b" not in done.out


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--split", "tset", 'Did you mean "test"?'),
        ("--dtype", "float16", 'Did you mean "bfloat16"?'),
        ("--device", "tpu", 'Choose from: "auto", "cpu", "cuda"'),
        ("--num-beams", "0", "Must be >= 1"),
        ("--batch-size", "-1", "Must be >= 1"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_a_matter_of_usage(cli, runs, verb, option, value, message):
    done = cli(verb, runs["rnn"], option, value)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_runs_are_compared_by_the_figures_that_each_has_alone(cli, runs, qualities):
    done = cli("compare", *runs.values(), "--json")
    assert done.code == 0, done.err
    models = [{"name": name, **quality} for name, quality in qualities.items()]
    assert json.loads(done.out) == {"split": "test", "models": models}


def test_a_comparison_is_a_table_and_pictures(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    pictures = [tmp_path / "curve.png", tmp_path / "curve.svg"]
    done = cli("compare", runs["rnn"], runs["bahdanau"], "--out", pictures[0], "--out", pictures[1], "--metric", "bleu")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for name in ("rnn", "bahdanau"):
        assert name in done.out
        assert name in pictures[1].read_text(encoding="utf-8")
    assert imread(pictures[0]).std() > 0
    assert xml.etree.ElementTree.parse(pictures[1]).getroot().tag.endswith("}svg")


def test_runs_of_one_name_are_told_apart_by_their_paths(cli, runs, recipes, tmp_path):
    regard.train(recipes["rnn"], out=tmp_path / "rnn")
    done = cli("compare", runs["rnn"], tmp_path / "rnn", "--json")
    assert [model["name"] for model in json.loads(done.out)["models"]] == [str(runs["rnn"]), str(tmp_path / "rnn")]


def test_runs_that_were_tested_on_other_sentences_are_not_compared(cli, runs, recipes, tmp_path):
    """As many sentences, of the same lengths, but of another language."""
    pairs = (recipes["rnn"].parent / "numbers.tsv").read_text(encoding="utf-8")
    for name, text in (("french", pairs), ("other", pairs.replace("vingt", "twintig"))):
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
        changes = {"data.dev": str(tmp_path / "french.tsv"), "data.test": str(tmp_path / f"{name}.tsv")}
        regard.train(recipes["rnn"], out=tmp_path / name, changes=changes)
    assert cli("compare", tmp_path / "french", tmp_path / "other", "--split", "dev").code == 0
    for other in (tmp_path / "other", runs["rnn"]):
        done = cli("compare", tmp_path / "french", other)
        assert (done.code, done.out) == (1, "")
        assert "these runs were not tested on the same sentences; compare runs of one corpus and split" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare takes two runs or more; `regard evaluate RUN` measures one"),
        (["{bahdanau}"], "a run is named twice"),
        (["{rnn}", "--out", "curve.jpg"], "curve.jpg: a picture ends in .png, .svg, .pdf; rename it"),
        (["nowhere"], "nowhere: there is no such run"),
    ],
)
def test_what_cannot_be_compared_is_told(cli, runs, arguments, message):
    done = cli("compare", runs["bahdanau"], *(part.format(**runs) for part in arguments))
    assert (done.code, done.out) == (1, "")
    assert message in done.err
