"""Bulk work by Ray Data: a cluster of this machine, from which workers and the process itself are taken."""

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
from benchmarks.processes import below, end_all
from num2words import num2words

import regard
from regard import RegardError
from regard.jobs import ray_data
from regard.jobs.work import Job

has_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not os.path.isdir("/proc"),
    reason="needs Ray (pip install 'regard[ray]') and Linux",
)
pytestmark = pytest.mark.usefixtures("alone_with_ray")
# seconds after which a test has failed, on a machine that others use too
LONGEST = 240


@pytest.fixture
def start(runs, tmp_path):
    """Starts `regard translate` of the texts into a folder, and ends what is left of it."""
    started, left = [], set()

    def begin(out, *options):
        command = [sys.executable, "-m", "regard", "translate", str(runs["bahdanau"]), "texts.txt", "--out", out]
        command += ["--shard-size", "256", "--num-beams", "4", *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (tmp_path / f"{out}.err").open("wb") as errors, (tmp_path / f"{out}.out").open("wb") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=errors)
        started.append(process)
        return process

    def seen(process):
        left.update(found := below(process.pid))
        return found

    yield begin, seen
    for process in started:
        seen(process)
        process.kill()
        process.wait()
    end_all(sorted(left))


def until(condition):
    ends = time.monotonic() + LONGEST
    while not (found := condition()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return found


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


@has_ray
def test_workers_and_process_are_killed_and_every_byte_is_as_in_this_process(start, tmp_path):
    begin, seen = start
    (tmp_path / "texts.txt").write_text("".join(num2words(number % 160) + "\n" for number in range(3072)))
    assert begin("whole").wait(LONGEST) == 0
    by_ray = ("--engine", "ray", "--workers", "2")
    process = begin("out", *by_ray)

    def shards(least):
        assert process.poll() is None, (tmp_path / "out.err").read_text()
        return len(list((tmp_path / "out").glob("shard-*"))) >= least

    until(lambda: shards(1))
    workers = [pid for pid, name in seen(process).items() if name.startswith("ray::MapWorker")]
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: shards(4))
    seen(process)
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "manifest.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    assert begin("out", *by_ray, "--resume").wait(LONGEST) == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    # what was listed as done was not done again
    same = [name for name, when in kept.items() if (tmp_path / "out" / name).stat().st_mtime_ns == when]
    assert len(same) >= len(kept) - 2
    # Ray says nothing to whoever works with it, and leaves nothing
    assert (tmp_path / "out.out").read_bytes() == b""
    told = [line for line in (tmp_path / "out.err").read_text().splitlines() if " tokens, the longest " not in line]
    assert told[-1] == "regard: out: 3,072 records in 12 shards, listed in manifest.json"
    assert all(line.startswith("bahdanau: translate  ") for line in told[:-1])


@has_ray
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "--address 127.0.0.1:1: no Ray cluster answers (Connection refused)"),
        ("auto", "--address auto: no Ray cluster answers"),
        ("cluster", "--address cluster: no address of a Ray cluster"),
    ],
)
def test_an_address_at_which_no_cluster_is_is_told(start, tmp_path, address, message):
    (tmp_path / "texts.txt").write_text("one\n")
    assert start[0]("out", "--engine", "ray", "--address", address).wait(LONGEST) == 1
    assert (tmp_path / "out.err").read_text().startswith(f"regard: {message}")
    assert (tmp_path / "out.err").read_text().count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_more_workers_are_started_than_the_cluster_has_room_for():
    resources = {"CPU": 8.0, "GPU": 2.0}
    assert ray_data._workers(resources, None, threads=2, gpus=0) == 4
    assert ray_data._workers(resources, None, threads=1, gpus=0.5) == 4
    assert ray_data._workers(resources, 3, threads=2, gpus=0) == 3
    with pytest.raises(RegardError, match="has 8 processors and 2 GPUs, a worker takes 1 processors and 1 GPUs"):
        ray_data._workers(resources, 3, threads=1, gpus=1)
    with pytest.raises(RegardError, match="--workers 5"):
        ray_data._workers(resources, 5, threads=2, gpus=0)


def test_a_job_goes_to_another_process_without_its_model(runs):
    job = Job("translate", str(runs["rnn"]), regard.load)
    wanted = job.work
    sent = pickle.dumps(job)
    assert len(sent) < 2000
    # what the test itself has made
    other = pickle.loads(sent)
    assert other.work is not wanted
    assert other.told() == job.told()
