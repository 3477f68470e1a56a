"""`regard train`: settings from the command line, and what Ctrl-C leaves."""

import os
import signal
import subprocess
import sys
import time

import pytest

import regard
from regard.cli import train as train_module
from regard.training.run import Run


def test_a_run_is_trained_into_the_folder_that_is_printed(cli, recipes, tmp_path):
    done = cli("train", recipes["rnn"], "--out", tmp_path / "run")
    assert (done.code, done.out) == (0, f"{tmp_path}/run\n")
    facts = Run.open(tmp_path / "run").facts
    assert f"rnn: finished after 4 steps, {facts['epochs']:.1f} epochs" in done.err
    assert f"{facts['parameters']:,} parameters, loss on dev {facts['dev_loss']:.3f}" in done.err
    assert done.err.startswith("rnn  step 1  epoch 1  loss ")


def test_without_out_a_run_goes_to_runs_and_its_name(cli, recipes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("train", recipes["rnn"], "--set", "train.steps=1").out == "runs/rnn\n"
    assert regard.load("runs/rnn").name == "rnn"


def test_settings_come_from_the_command_line(cli, recipes, tmp_path):
    settings = ["--set", "train.epochs=1", "--set", "model.attention=dot", "--set", "model.bidirectional=false"]
    done = cli("train", recipes["rnn"], "--out", tmp_path / "run", *settings, "--seed", 5, "--set", "train.clip = 2")
    assert done.code == 0, done.err
    recipe = Run.open(tmp_path / "run").recipe
    assert (recipe.train.steps, recipe.train.epochs) == (None, 1)
    assert (recipe.model.attention, recipe.model.bidirectional) == ("dot", False)
    assert (recipe.train.seed, recipe.train.clip, recipe.train.device) == (5, 2.0, "cpu")


def test_the_same_seed_on_the_command_line_and_in_python_trains_the_same(cli, recipes, tmp_path):
    cli("train", recipes["transformer"], "--out", tmp_path / "cli", "--seed", 7)
    regard.train(recipes["transformer"], out=tmp_path / "python", changes={"train.seed": 7})
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("cli", "python")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.steps"], "--set train.steps: give a value too, as in train.minutes=1"),
        (["--set", "steps=1"], "--set steps: name the section too, as in train.minutes=1"),
        (["--set", "train.step=1"], "[train] has no setting 'step'; did you mean 'steps'?"),
        (["--set", "train.steps=one"], "[train] steps must be of type int, not 'one'"),
        (["--set", "train.steps="], "[train] steps must be of type int, not ''"),
        (["--set", "train.learning_rate=nan"], "[train] learning_rate must be a finite number, not nan"),
        (["--set", "data.train=gone.tsv"], "gone.tsv: there is no such file"),
        (["--set", "train.device=tpu"], "[train] device must be one of auto, cpu, cuda, not 'tpu'"),
        (["--resume"], "there is no such run"),
    ],
)
def test_what_cannot_be_trained_is_told_and_leaves_no_folder(cli, recipes, tmp_path, arguments, message):
    done = cli("train", recipes["rnn"], "--out", tmp_path / "run", *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_refused(cli, recipes, runs):
    done = cli("train", recipes["rnn"], "--out", runs["rnn"])
    assert done.code == 1
    assert "exists already; choose another --out, or go on with it by --resume" in done.err
    assert regard.load(runs["rnn"])


def test_data_comes_from_standard_input(cli, recipes, tmp_path):
    given = (recipes["rnn"].parent / "numbers.tsv").read_bytes()
    done = cli("train", recipes["rnn"], "--out", tmp_path / "run", "--set", "data.train=-", given=given)
    assert done.code == 0, done.err
    assert cli("evaluate", tmp_path / "run").code == 0


def test_ctrl_c_saves_the_run_and_exits_with_130_and_the_run_goes_on(cli, recipes, runs, tmp_path):
    """In a process of its own, because there the signal comes from outside."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "regard", "train", str(recipes["rnn"]), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--set", "train.steps=100000", "--set", "train.schedule=constant"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (out / "resume").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, f"{out}\n"), told
    assert "rnn: interrupted after" in told
    assert told.endswith("regard: interrupted\n")
    steps = Run.open(out).facts["steps"]
    assert cli("translate", out, given=b"one\n").code == 0
    budget = ["--set", f"train.steps={steps + 2}", "--set", "train.schedule=constant"]
    assert cli("train", recipes["rnn"], "--out", out, "--resume", *budget).code == 0
    assert Run.open(out).facts["steps"] == steps + 2


def test_where_torch_takes_long_to_import_a_line_says_so(monkeypatch, capfd):
    monkeypatch.setattr(train_module, "PATIENCE", 0.01)
    told, until = "", time.monotonic() + 60
    with train_module._explained("mine  loading PyTorch"):
        while not told and time.monotonic() < until:
            told = capfd.readouterr().err
            time.sleep(0.01)
    assert told == "mine  loading PyTorch\n"
