"""Every file of examples/ runs as it is, on tiny models in the place of real ones, and is short."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from tests import media_models, sounds

import regard
from regard.attention import MECHANISMS
from regard.data.corpora import CORPORA
from regard.reading.compute.statistics import STATISTICS

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = {path.stem for path in EXAMPLES.glob("*.py")}
LONGEST = 40


@pytest.fixture
def run(tmp_path, tiny_smollm2, monkeypatch, capsys):
    """Runs an example in an empty folder and returns what it prints; what it registers is gone afterwards."""
    kept = [(table, dict(table)) for table in (MECHANISMS, CORPORA, STATISTICS)]
    monkeypatch.setenv("REGARD_CACHE", str(tiny_smollm2))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    yield run
    for table, entries in kept:
        table.clear()
        table.update(entries)


def test_there_are_no_examples_but_those_that_are_run_here():
    tested = {name.removeprefix("test_example_") for name in globals() if name.startswith("test_example_")}
    assert tested == NAMES
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}.py]({name}.py)" in table for name in NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_an_example_is_short_and_says_what_it_is(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert text.count("\n") <= LONGEST


def test_example_own_model(run):
    told = run("own_model")
    assert "weights (4, 12, 12)" in told
    assert "entropy of each head" in told


def test_example_answer_sources(run):
    told = run("answer_sources").splitlines()
    assert "rests on" in "\n".join(told)
    assert len(told) >= 5


def test_example_head_map(run, tmp_path):
    assert run("head_map").count("layer ") == 5
    assert (tmp_path / "heads.pdf").read_bytes().startswith(b"%PDF")
    assert np.loadtxt(tmp_path / "heads.csv", delimiter=",").shape == (6, 4)


def test_example_fine_tune(run):
    before, after = run("fine_tune").splitlines()
    perplexities = [float(line.split()[2]) for line in (before, after)]
    assert perplexities[1] < perplexities[0]


def test_example_atlas_on_ray(alone_with_ray, run, tmp_path):
    pytest.importorskip("ray")
    assert "<Atlas of smollm2: 24 prompts, 6 layers × 4 heads>" in run("atlas_on_ray")
    assert (tmp_path / "previous.png").exists()
    # the workers counted what this process counts
    same = regard.atlas("smollm2", (tmp_path / "texts.txt").read_text(encoding="utf-8").splitlines()).tally
    found = regard.Atlas.load(tmp_path / "atlas" / "atlas.safetensors").tally
    for name, table in same.sums.items():
        np.testing.assert_array_equal(found.sums[name], table)
        np.testing.assert_array_equal(found.bins[name], same.bins[name])


def test_example_picture(run, tmp_path):
    told = run("picture", media_models.make("smolvlm", tmp_path / "model"))
    assert told.count("on the picture, most at") == 6
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_example_recording(run, tmp_path):
    run("recording", "tone.wav", sounds.whisper(tmp_path / "model"))
    assert (tmp_path / "recording.png").read_bytes().startswith(b"\x89PNG")
    assert ".medium.0" in (tmp_path / "recording.html").read_text(encoding="utf-8")


def test_example_new_statistic(run, tmp_path):
    assert len(run("new_statistic").splitlines()) == 6
    assert (tmp_path / "previous.png").exists()


def test_example_new_corpus(run):
    told = run("new_corpus")
    assert "colours-en-fr" in told
    assert told.splitlines()[-1]


def test_example_new_mechanism(run):
    rows = run("new_mechanism").replace("[", "").replace("]", "").splitlines()
    weights = np.array([row.split() for row in rows], float)
    # words of the source; the rest of each row is on its end
    assert weights.shape[1] == 3
    assert (weights.sum(axis=1) < 1.03).all()
    assert weights.max() > 0.1
