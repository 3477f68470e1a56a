"""Processes that each do a part of every batch do together what one does alone: started here, or by torchrun."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard.errors import RegardError
from regard.training.workers import check_processes, num_processes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# enough for two processes
TOKENS = 1024
# seconds that a training of a few steps takes at most
LIMIT = 120

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are started by themselves on Linux alone")


def children(parent="self"):
    """The processes that this one, or another, has started and that have not ended."""
    return [int(pid) for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]


def is_at_work(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    # one that has ended stays until somebody asks how
    return state != "Z"


def until(found, process):
    deadline = time.monotonic() + LIMIT
    while not found() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def losses_of(trained):
    """The loss of every step of a training, and by how many processes it was done."""

    def of(name, **settings):
        losses = []
        settings = {"batch_tokens": TOKENS, "steps": 50, "validate_every": 25, **settings}
        run = trained(name, report=lambda progress: losses.append(progress.loss), **settings)
        return losses, run.facts["processes"]

    return of


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
def test_the_losses_are_those_of_one_process(losses_of, name, shard):
    settings = {"model": {"dropout": 0.0}, "accumulate": 2 if name == "rnn" else 1}
    alone, one = losses_of(name, threads=1, **settings)
    together, two = losses_of(name, threads=2, shard=shard, **settings)
    assert (one, two, len(alone)) == (1, 2, 50)
    assert alone[-1] < 0.95 * alone[0]
    assert together == pytest.approx(alone, abs=1e-5)


def test_muon_takes_the_step_of_one_process(trained):
    one, two = (
        load_file(trained(optimizer="muon", threads=threads, batch_tokens=TOKENS, steps=1, model={"dropout": 0.0}).path
                  / "model.safetensors") for threads in (1, 2))  # fmt: skip
    # it computes in bfloat16
    assert all(torch.allclose(one[name], value, rtol=0, atol=1e-4) for name, value in two.items())


def test_no_process_stays_behind(trained):
    before = children()
    trained(threads=2, batch_tokens=TOKENS, steps=2)
    assert children() == before


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_repeats_bit_for_bit_and_goes_on_so(trained, ctrl_c, optimizer):
    settings = {"threads": 2, "batch_tokens": TOKENS, "steps": 6, "model": {"dropout": 0.2}, "optimizer": optimizer}
    whole = trained(**settings)
    again = trained(**settings)
    stopped = trained(report=ctrl_c(3), **settings)
    assert stopped.facts["status"] == "interrupted"
    resumed = trained(folder=stopped.path, resume=True, **settings)
    assert resumed.facts["repeats"]
    expected = load_file(whole.path / "model.safetensors")
    for run in (again, resumed):
        found = load_file(run.path / "model.safetensors")
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("first", "second"), [((1, False), (2, True)), ((2, True), (1, False)), ((2, False), (2, True))]
)
def test_a_run_goes_on_in_another_number_of_processes(trained, ctrl_c, first, second):
    settings = {"batch_tokens": TOKENS, "steps": 12, "model": {"dropout": 0.0}}
    losses = {"whole": {}, "parts": {}}

    def note(name, press=lambda progress: None):
        def report(progress):
            losses[name][progress.step] = progress.loss
            press(progress)

        return report

    trained(report=note("whole"), threads=1, **settings)
    stopped = trained(report=note("parts", ctrl_c(5)), threads=first[0], shard=first[1], **settings)
    assert (stopped.facts["steps"], stopped.facts["processes"]) == (5, first[0])
    resumed = trained(
        folder=stopped.path, resume=True, report=note("parts"), threads=second[0], shard=second[1], **settings
    )
    assert (resumed.facts["status"], resumed.facts["processes"], resumed.facts["repeats"]) == (
        "finished", second[0], False)  # fmt: skip
    assert losses["parts"] == pytest.approx(losses["whole"], abs=1e-5)


@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.5, False)])
def test_each_process_drops_out_what_it_draws_by_itself(trained, tmp_path, dropout, same):
    data = tmp_path / "data.tsv"
    # both processes get the same sentences
    data.write_text("one two three\tun deux trois\n" * 400, encoding="utf-8")
    data = {split: str(data) for split in ("train", "dev", "test")}
    losses = []
    for threads in (1, 2):
        trained(
            data=data, threads=threads, batch_tokens=TOKENS, steps=1, model={"dropout": dropout},
            report=lambda progress: losses.append(progress.loss),
        )  # fmt: skip
    assert (abs(losses[0] - losses[1]) < 1e-6) is same


def test_a_process_is_out_of_reach_of_ctrl_c(trained):
    before, groups = children(), []

    def look(progress):
        (child,) = set(children()) - set(before)
        groups.append(os.getpgid(child))

    trained(threads=2, batch_tokens=TOKENS, steps=1, report=look)
    assert groups
    assert os.getpgid(0) not in groups


def test_a_process_imports_nothing_from_where_the_user_is(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit('not the json that was meant')", encoding="utf-8")
    assert trained(threads=2, batch_tokens=TOKENS, steps=1).facts["steps"] == 1


def test_a_process_ends_when_the_one_that_leads_is_gone(recipe, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(threads=2, batch_tokens=TOKENS, steps=10**6).to_toml(), encoding="utf-8")
    metrics = tmp_path / "run" / "metrics.jsonl"
    lead = subprocess.Popen([sys.executable, "-m", "regard", "train", str(path), "--out", str(tmp_path / "run")])
    try:
        until(lambda: metrics.is_file() and metrics.stat().st_size, lead)
        (worker,) = children(lead.pid)
    finally:
        lead.kill()
        lead.wait()
    deadline = time.monotonic() + LIMIT
    while is_at_work(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_at_work(worker)


def test_a_process_that_is_killed_ends_the_training_with_what_to_do(trained):
    before = children()

    def kill(progress):
        if progress.step == 2:
            (child,) = set(children()) - set(before)
            os.kill(child, signal.SIGKILL)

    with pytest.raises(RegardError, match=r"helped to train ended with status -9; .* lower train.threads"):
        trained(threads=2, batch_tokens=TOKENS, steps=4, report=kill)
    assert children() == before


@pytest.mark.parametrize(
    ("device", "num_threads", "settings", "expected"),
    [
        (CPU, 1, {"batch_tokens": 2048}, 1),
        (CPU, 2, {"batch_tokens": 2048}, 2),
        (CPU, 16, {"batch_tokens": 2048}, 4),
        (CPU, 2, {"batch_tokens": 1023}, 1),
        (CPU, 16, {"batch_tokens": 2048, "model": {"max_length": 1000}}, 2),
        (CPU, 2, {"batch_tokens": 2048, "compile": True}, 1),
        (CUDA, 2, {"batch_tokens": 2048}, 1),
    ],
)
def test_the_number_of_processes(recipe, device, num_threads, settings, expected):
    assert num_processes(recipe(**settings), device, num_threads) == expected


def test_more_processes_than_a_batch_has_room_for_are_refused(recipe):
    # a sentence has 16 tokens
    check_processes(recipe(batch_tokens=64), 4)
    with pytest.raises(
        RegardError, match=r"batch_tokens is 64 for 5 processes .* raise it to 80, or start 4 processes"
    ):
        check_processes(recipe(batch_tokens=64), 5)


def test_muon_is_refused_where_weights_are_sharded(recipe):
    with pytest.raises(RegardError, match="muon needs it whole: set adamw"):
        recipe(shard=True, optimizer="muon")


@pytest.fixture
def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def invited(monkeypatch, free_port):
    def invite(**variables):
        told = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port} | variables
        for name, value in told.items():
            if value is not None:
                monkeypatch.setenv(name, str(value))

    return invite


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"])
def test_an_invitation_that_is_incomplete_is_told(trained, invited, missing):
    invited(**{missing: None})
    with pytest.raises(RegardError, match=f"^{missing} must be set beside RANK and WORLD_SIZE"):
        trained()


def test_a_master_that_is_not_there_is_told(trained, invited, free_port, monkeypatch):
    monkeypatch.setattr("regard.training.distributed.START", timedelta(seconds=1))
    invited(RANK=1)
    with pytest.raises(
        RegardError, match=f"rank 1 of 2 cannot meet rank 0 at 127.0.0.1:{free_port}: .*check MASTER_ADDR"
    ):
        trained()


def test_a_port_in_use_is_told(trained, invited):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        invited(MASTER_PORT=port)
        with pytest.raises(RegardError, match=f"port 127.0.0.1:{port} is in use; choose another MASTER_PORT"):
            trained()


# a rank as somebody starts it who has no torchrun; what is patched differs from rank to rank
RANK = """
import json, sys
from pathlib import Path
from regard.errors import RegardError
from regard.training import train
from regard.training.recipe import load_recipe

job = json.loads(sys.argv[1])
train.__version__ = job.get("version", train.__version__)
try:
    train.train_run(load_recipe(job["recipe"], job["changes"]), Path(job["folder"]), resume=job.get("resume", False))
except RegardError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def ranks(recipe, tmp_path, free_port):
    """Trains in two ranks, the second of which is started with something else; their exit status and errors."""
    path = tmp_path / "recipe.toml"

    def start(second, **settings):
        path.write_text(recipe(batch_tokens=TOKENS, **{"steps": 4, **settings}).to_toml(), encoding="utf-8")
        jobs = [{"recipe": str(path), "changes": {}, "folder": str(tmp_path / "run")} | job for job in ({}, second)]
        told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, json.dumps(job)],
                env={**os.environ, **told, "RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, job in enumerate(jobs)
        ]
        try:
            errors = [process.communicate(timeout=LIMIT)[1] for process in started]
        finally:
            for process in started:
                process.kill()
        return [process.returncode for process in started], errors

    return start


def test_ranks_that_differ_are_told_and_nothing_is_left(ranks, toy, tmp_path):
    other = tmp_path / "other.tsv"
    other.write_text(toy.read_text().replace("sept", "huit"), encoding="utf-8")
    for second, wrong in (
        ({"changes": {"data.train": str(other)}}, r"its train data, .*other\.tsv, are not those of rank 0"),
        ({"changes": {"train.learning_rate": 0.5}}, r"train\.learning_rate is 0\.5 here and 0\.001 on rank 0"),
        ({"version": "0.0.9"}, r'Regard is "0\.0\.9" here and "0\.1\.0" on rank 0'),
    ):
        status, errors = ranks(second)
        assert status == [1, 1], errors
        for error in errors:
            assert re.search(f"rank 1 on .*: {wrong}; give every rank the same", error), error
        assert not (tmp_path / "run").exists()


def test_the_same_data_may_be_elsewhere(ranks, toy, tmp_path, trained):
    other = tmp_path / "other.tsv"
    other.write_bytes(toy.read_bytes())
    status, errors = ranks({"changes": {"data.train": str(other)}})
    assert status == [0, 0], errors
    found = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert found == (trained(threads=2, batch_tokens=TOKENS, steps=4).path / "model.safetensors").read_bytes()


def torchrun(recipe, folder, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--monitor-interval", "0.1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", *options]
    command += ["-m", "regard", "train", str(recipe), "--out", str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def rank_of(process):
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((int(variable.removeprefix(b"RANK=")) for variable in variables if variable.startswith(b"RANK=")), None)


def test_a_run_whose_ranks_die_is_restarted_and_ends_as_if_they_had_not(trained, recipe, tmp_path, metrics_of):
    settings = {"batch_tokens": TOKENS, "steps": 200, "validate_every": 30, "threads": 2}
    whole = trained(**settings)
    path, folder = tmp_path / "recipe.toml", tmp_path / "run"
    path.write_text(recipe(**settings).to_toml(), encoding="utf-8")
    process = torchrun(path, folder, "--max-restarts", "2")

    def saved():
        with contextlib.suppress(OSError):
            return json.loads((folder / "resume" / "state.json").read_bytes())["step"]
        return 0

    try:
        for lost, step in ((1, 30), (0, 90)):
            until(lambda step=step: saved() >= step, process)
            (victim,) = (child for child in children(process.pid) if rank_of(child) == lost)
            os.kill(victim, signal.SIGKILL)
        out, errors = process.communicate(timeout=LIMIT)
    finally:
        process.terminate()
        process.wait()
    assert process.returncode == 0, errors
    assert errors.count("lost another rank") == 2
    assert out == f"{folder}\n"
    assert (folder / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    # no step twice, none left out
    keys = ("step", "loss", "dev_loss", "final_dev_loss")
    ours, theirs = ([{key: line.get(key) for key in keys} for line in metrics_of(run)] for run in (folder, whole.path))
    assert ours == theirs
    assert sorted(os.listdir(folder)) == sorted(os.listdir(whole.path))
