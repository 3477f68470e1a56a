"""One process has a run while it trains; a run that was ended before it saved a state begins anew."""

import json
import os
import shutil
import warnings

import pytest

import regard
from regard.errors import RegardError
from regard.files import locked
from regard.training.folder import METRICS
from regard.training.recipe import load_recipe
from regard.training.reports import metrics_log
from regard.training.run import Run
from regard.training.train import train_run


def weights(run):
    return (run.path / "model.safetensors").read_bytes()


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def ended(trained, tmp_path):
    """A folder as a process leaves it that is killed before the first state is saved."""
    folder = tmp_path / "ended"
    with warnings.catch_warnings():
        # it runs on one thread
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            trained(folder=folder, report=lambda progress: os._exit(9))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (folder / ".123-tokenizer.json").write_text("half")
    return folder


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("lost", [[], ["run.json"], ["run.json", "recipe.toml", "tokenizer.json"]])
def test_a_run_that_was_ended_before_it_saved_a_state_begins_anew(trained, ended, caplog, resume, lost):
    assert {"metrics.jsonl", "recipe.toml", "run.json", "tokenizer.json"} < set(os.listdir(ended))
    for name in lost:
        (ended / name).unlink()
    steps = []
    run = trained(folder=ended, resume=resume, report=lambda told: steps.append(told.step))
    assert steps == list(range(1, 13))
    assert weights(run) == weights(trained())
    assert not list(ended.glob(".*"))
    assert ("it was ended before it saved a state; it begins anew" in caplog.text) == resume


def test_a_run_that_begins_anew_takes_the_settings_it_is_given_now(trained, ended):
    run = trained(folder=ended, resume=True, steps=4)
    assert (run.recipe.train.steps, Run.open(ended).recipe) == (4, run.recipe)
    assert weights(run) == weights(trained(steps=4))


def test_an_empty_folder_may_be_trained_in(trained, tmp_path):
    (tmp_path / "out").mkdir()
    assert weights(trained(folder=tmp_path / "out")) == weights(trained())


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        ["recipe.toml"],
        ["recipe.toml", "data/train.tsv"],
        ["metrics.jsonl", "notes.txt"],
        ["metrics.jsonl", "data/mine.tsv"],
        ["metrics.jsonl", "model.safetensors"],
    ],
)
def test_a_folder_with_what_no_unsaved_run_has_is_left_alone(trained, tmp_path, names, resume):
    folder = tmp_path / "mine"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    before = content(folder)
    with pytest.raises(RegardError, match=r"exists already|there is nothing to resume|not a run"):
        trained(folder=folder, resume=resume)
    assert content(folder) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_in_one_folder_is_refused_and_changes_nothing(trained, ctrl_c, tmp_path, resume):
    folder, told = tmp_path / "out", []

    def second(progress):
        if progress.step in (2, 6):
            before = content(folder)
            with pytest.raises(RegardError, match="out is being trained by another process; let it end, or choose"):
                trained(folder=folder, resume=resume)
            told.append(content(folder) == before)

    assert weights(trained(folder=folder, report=second)) == weights(trained())
    assert told == [True, True]


def test_the_lock_of_a_process_that_is_gone_holds_up_nobody(trained, ended):
    with locked(ended / METRICS) as is_ours:
        assert is_ours
        with pytest.raises(RegardError, match="is being trained by another process"):
            trained(folder=ended, resume=True)
    assert trained(folder=ended, resume=True).facts["status"] == "finished"


def test_a_state_that_was_being_replaced_when_the_process_was_killed_is_gone_on_from(trained, ctrl_c):
    stopped = trained(report=ctrl_c(7))
    temporary = stopped.path / ".resume-abcdefgh"
    temporary.mkdir()
    (temporary / "lock").touch()
    shutil.copytree(stopped.path / "resume", temporary / "new")
    (stopped.path / "resume").rename(temporary / "old")
    steps = []
    run = trained(folder=stopped.path, resume=True, report=lambda told: steps.append(told.step))
    assert steps[0] == 8
    assert weights(run) == weights(trained())
    assert not list(run.path.glob(".*"))


def test_what_was_kept_to_go_on_from_goes_even_if_the_process_is_killed_at_the_very_end(trained, ctrl_c):
    stopped = trained(report=ctrl_c(7))
    kept = [stopped.path.parent / name for name in ("resume", "checkpoints")]
    for path in kept:
        shutil.copytree(stopped.path / path.name, path)
    run = trained(folder=stopped.path, resume=True)
    finished = content(run.path)
    for path in kept:
        path.rename(run.path / path.name)
    with pytest.raises(RegardError, match="there is nothing to resume; the run is finished"):
        trained(folder=run.path, resume=True)
    assert content(run.path) == finished


def test_metrics_tell_every_step_once_however_often_a_run_was_ended(trained, metrics_of, tmp_path):
    def end_at(step):
        def end(progress):
            if progress.step == step:
                raise KeyboardInterrupt

        return end

    settings = {"steps": 60, "validate_every": 15}
    whole = trained(**settings)
    # behind a line that comes after the state, and before any state
    for number, steps in enumerate(([25], [41, 47], [5, 20])):
        folder = tmp_path / f"ended-{number}"
        for step in steps:
            with pytest.raises(KeyboardInterrupt):
                trained(folder=folder, resume=folder.exists(), report=end_at(step), **settings)
        run = trained(folder=folder, resume=folder.exists(), **settings)
        seen = [(line["step"], sorted(line)) for line in metrics_of(run.path)]
        assert seen == [(line["step"], sorted(line)) for line in metrics_of(whole.path)]
        assert weights(run) == weights(whole)


@pytest.mark.parametrize("broken", [b'{"step": 4, "lo', b'{"step": 4}', b"[]\n", b"\xff\n", b'{"loss": 1}\n', b"[" * 9])
def test_a_line_that_was_being_written_is_dropped_from_the_metrics(tmp_path, broken):
    lines = [json.dumps({"step": step}).encode() + b"\n" for step in (1, 2, 2, 3)]
    path = tmp_path / METRICS
    path.write_bytes(b"".join(lines) + broken)
    for step, count in ((4, 4), (2, 3)):
        with metrics_log(tmp_path, (), {}, step=step):
            assert path.read_bytes() == b"".join(lines[:count])


def test_a_project_that_is_moved_with_its_data_and_its_run_goes_on_and_is_evaluated(
    recipe, toy, tmp_path, ctrl_c, monkeypatch
):
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "own.tsv").write_bytes(toy.read_bytes())
    settings = recipe().to_toml().replace(f'"{toy}"', '"data/own.tsv"')
    (project / "mine.toml").write_text(settings)
    monkeypatch.chdir(tmp_path)
    train_run(load_recipe("project/mine.toml"), project / "runs" / "one", report=ctrl_c(7))
    expected = regard.evaluate("project/runs/one")
    moved = project.rename(tmp_path / "elsewhere")
    assert regard.evaluate(moved / "runs" / "one") == expected
    run = train_run(load_recipe("elsewhere/mine.toml"), moved / "runs" / "one", resume=True)
    assert run.facts["status"] == "finished"
    assert regard.evaluate(run.path).count == expected.count
    # the run alone, away from its data
    assert regard.evaluate(run.path.rename(tmp_path / "alone")).count == expected.count


# what 0.1.0 did not write into a run
LATER_FACTS = ("regard", "folder", "look", "longest_source", "init", "init_dev_loss")
LATER_SETTINGS = ("normalise", "bpe_dropout", "report")


def test_a_run_as_0_1_0_left_it_translates_reads_and_goes_on(trained, ctrl_c, metrics_of):
    taken_as_it_is = {"normalise": "none"}
    stopped = trained("bahdanau", data=taken_as_it_is, report=ctrl_c(7))
    sentence = "one two three"
    expected = regard.load(stopped.path).translate(sentence)
    facts = {name: value for name, value in stopped.facts.items() if name not in LATER_FACTS}
    (stopped.path / "run.json").write_text(json.dumps(facts))
    lines = (stopped.path / "recipe.toml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(LATER_SETTINGS)]
    assert len(kept) == len(lines) - len(LATER_SETTINGS)
    (stopped.path / "recipe.toml").write_text("".join(kept))
    old = regard.load(stopped.path)
    assert old.translate(sentence) == expected
    assert old.read(sentence).sequences["source"].words == sentence.split()
    resumed = trained("bahdanau", folder=stopped.path, resume=True, data=taken_as_it_is)
    assert weights(resumed) == weights(trained("bahdanau", data=taken_as_it_is))
    assert metrics_of(resumed.path)[-1]["status"] == "finished"


def test_a_run_names_the_version_that_made_it_and_an_older_one_says_so(trained, ctrl_c, caplog):
    stopped = trained(report=ctrl_c(7))
    assert stopped.facts["regard"] == regard.__version__
    caplog.set_level("INFO", "regard")
    Run.open(stopped.path)
    assert "made by" not in caplog.text
    for version, told in (
        ("0.0.9", "made by Regard 0.0.9; this is Regard"),
        (None, "made by an older Regard; this is"),
    ):
        facts = {name: value for name, value in stopped.facts.items() if name != "regard"}
        (stopped.path / "run.json").write_text(json.dumps(facts | ({"regard": version} if version else {})))
        Run.open(stopped.path)
        assert told in caplog.text
    resumed = trained(folder=stopped.path, resume=True)
    assert resumed.facts["regard"] == regard.__version__
    assert resumed.facts["look"] == stopped.facts["look"]
    assert "weight for weight" not in (resumed.path / "README.md").read_text()


@pytest.mark.parametrize("format", [2, "1", None])
def test_a_run_of_a_format_that_is_not_known_is_refused(trained, ctrl_c, format):
    stopped = trained(report=ctrl_c(7))
    assert stopped.facts["format"] == 1
    (stopped.path / "run.json").write_text(json.dumps(stopped.facts | {"format": format}))
    with pytest.raises(RegardError, match=r"run.json: the run's format is .*, this version of Regard opens 1; upgrade"):
        Run.open(stopped.path)
