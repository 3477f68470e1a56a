"""Each metric once, in metrics.jsonl and wherever else it goes, also of a run that was killed and resumed."""

import importlib.util
import json

import pytest

from regard.errors import RegardError
from regard.training.reports import REPORTS, TAGS, check_reports
from regard.training.train import train_run

TIMES = {"seconds", "seconds_left", "tokens_per_second"}
HOW = {"steps": 60, "validate_every": 25}


class Killed(Exception):
    """What ends a process at once, as far as its files are concerned."""


def kill_at(step):
    def report(progress):
        if progress.step == step:
            raise Killed

    return report


def without_times(lines):
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.mark.parametrize("step", [3, 25, 40, 47])
def test_a_killed_run_that_goes_on_has_the_lines_of_one_that_was_not(trained, tmp_path, metrics_of, step):
    whole = metrics_of(trained("rnn", folder=tmp_path / "whole", **HOW).path)
    assert [line["step"] for line in whole] == [20, 25, 40, 50, 60, 60, 60]
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        trained("rnn", folder=folder, report=kill_at(step), **HOW)
    if folder.exists():
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 48, "lo')
    found = metrics_of(trained("rnn", folder=folder, resume=folder.exists(), **HOW).path)
    assert without_times(found) == without_times(whole)


def test_a_run_that_was_interrupted_twice_at_one_step_repeats_nothing(trained, tmp_path, metrics_of, ctrl_c):
    folder = tmp_path / "run"
    for _ in range(2):
        trained("rnn", folder=folder, resume=folder.exists(), report=ctrl_c(60), **HOW)
    found = [(line["step"], frozenset(line)) for line in metrics_of(folder)]
    assert len(set(found)) == len(found)


@pytest.fixture
def scalars(tmp_path):
    """All that TensorBoard finds in a run's folder, even what a later start would have it leave out."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=False)
        events.Reload()
        return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read


def test_tensorboard_shows_each_number_of_the_lines_once(recipe, tmp_path, metrics_of, scalars):
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train_run(recipe("rnn", report="tensorboard", **HOW), folder, report=kill_at(47))
    run = train_run(recipe("rnn", report="tensorboard", **HOW), folder, resume=True)
    expected = {}
    for line in metrics_of(folder):
        for name, value in line.items():
            if name in TAGS:
                expected.setdefault(TAGS[name], []).append((line["step"], pytest.approx(value, rel=1e-6)))
    assert scalars(folder) == expected
    assert expected.keys() >= {"train/loss", "train/learning_rate", "dev/loss", "dev/final_loss"}
    assert run.recipe.train.reports == ("tensorboard",)


def test_wandb_is_told_of_both_parts_of_a_run_offline(recipe, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train_run(recipe("rnn", report="wandb", **HOW), folder, report=kill_at(47))
    train_run(recipe("rnn", report="wandb", **HOW), folder, resume=True)
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 2


def test_reports_are_none_one_or_several_by_their_names(recipe):
    assert recipe("rnn").train.reports == ()
    assert recipe("rnn", report="tensorboard").train.reports == ("tensorboard",)
    assert recipe("rnn", report=["wandb", "tensorboard"]).train.reports == ("wandb", "tensorboard")
    for wrong in ("tensorbord", ["tensorboard", "tensorbord"]):
        with pytest.raises(RegardError, match=r"\[train\] report has no 'tensorbord'; did you mean 'tensorboard'"):
            recipe("rnn", report=wrong)
    with pytest.raises(RegardError, match=r"\[train\] report must be of type str or tuple, not 3"):
        recipe("rnn", report=3)


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_whose_package_is_not_there_is_told_before_training(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RegardError, match=rf"'{name}' needs {name}; pip install 'regard\[{name}\]'"):
        check_reports([name])


def test_a_line_that_is_no_json_is_told(trained, tmp_path, metrics_of):
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        trained("rnn", folder=folder, report=kill_at(47), **HOW)
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["so it began", *lines]) + "\n")
    with pytest.raises(RegardError, match=r"metrics\.jsonl:1: not JSON .*; delete the line"):
        trained("rnn", folder=folder, resume=True, **HOW)
    assert json.loads(lines[0])["step"] == 20
