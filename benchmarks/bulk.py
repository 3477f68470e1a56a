"""Bulk work: two workers of Ray beside one in process, on one thread each, and outputs after kills at random times.

The whole command is timed, with the start of Python, of Ray and of its workers.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from num2words import num2words

from benchmarks import report
from benchmarks.processes import below, end_all
from benchmarks.runs import trained

RECIPE = "numbers-transformer"
SENTENCES, READINGS, KILLED = 20_000, 2_000, 10_000
WORKERS = 2
WORKER_KILLS, DRIVER_KILLS = 20, 5
# seconds between two kills, at most
BETWEEN_KILLS = 8.0
SECONDS_BETWEEN_LOOKS = 0.2
BEAM = ("--num-beams", "5")
BY_RAY = ("--engine", "ray", "--workers", str(WORKERS))


class Task(NamedTuple):
    """What is done, in how many records, by which command on a file of that name, without `--out`."""

    name: str
    records: int
    command: tuple[str, ...]


class Timed(NamedTuple):
    """Seconds of a whole command, those up to its first shard, and the most memory of a process and of all, in MiB."""

    seconds: float
    first_shard: float
    largest: float
    together: float


def run() -> None:
    translator = trained(RECIPE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_texts(folder)
        run = str(translator.own_run().path.resolve())
        tasks = [
            Task("sentences, beam 5", SENTENCES, ("translate", run, "sentences.txt", *BEAM, "--shard-size", "256")),
            Task("readings of translations, beam 5", READINGS, ("read", run, "few.txt", *BEAM, "--shard-size", "32")),
        ]
        figures: dict[str, Any] = {}
        rows = []
        for number, task in enumerate(tasks):
            alone, by_ray = (
                _timed(task, folder, f"{side}{number}", options) for side, options in (("local", ()), ("ray", BY_RAY))
            )
            assert _content(folder / f"local{number}") == _content(folder / f"ray{number}")
            load = os.getloadavg()[1]
            figures[task.name] = {"local": alone._asdict(), "ray": by_ray._asdict(), "load": load}
            rows.append(_row(task, alone, by_ray, load))
        killed = Task("sentences", KILLED, ("translate", run, "killed.txt", "--shard-size", "256"))
        figures["undisturbed"] = _timed(killed, folder, "undisturbed", ())._asdict()
        figures["kills"] = _kills(killed, folder, folder / "undisturbed")
    kills = figures["kills"]
    report.write(
        "bulk",
        "Bulk work: Ray with two workers beside one worker in process",
        [
            *(
                "",
                "in process, 1 thread",
                f"Ray, {WORKERS} workers of 1 thread",
                "ratio",
                "ratio behind the first shard",
            ),
            *("in process: memory", "Ray: largest worker, all processes", "load average"),
        ],
        rows,
        figures,
        f"`{RECIPE}` on numbers of 13 to 15 digits. The whole command, from the start of Python to the manifest; both "
        "outputs are the same to the byte. Memory is what processes hold alone and their parts of what they share. "
        f"Kills: {kills['workers']} of workers and {kills['drivers']} of the driver, at random times up to "
        f"{BETWEEN_KILLS:g} s apart, in {kills['tries']} tries at {kills['jobs']} jobs of {KILLED:,} sentences; "
        f"{kills['same']} of {kills['jobs']} jobs ended with every file, the manifest too, as in the undisturbed run. "
        "The load average is that of the machine over five minutes, at the end of each pair, this benchmark counted.",
    )


def _write_texts(folder: Path) -> None:
    rng = random.Random(1)
    lines = [f"{num2words(rng.randrange(10**12, 10**15))}\n" for _ in range(SENTENCES)]
    (folder / "sentences.txt").write_text("".join(lines))
    (folder / "few.txt").write_text("".join(lines[:READINGS]))
    (folder / "killed.txt").write_text("".join(lines[:KILLED]))


def _start(task: Task, folder: Path, out: str, options: tuple[str, ...]) -> subprocess.Popen:
    command = [sys.executable, "-m", "regard", *task.command, "--out", out, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def _timed(task: Task, folder: Path, out: str, options: tuple[str, ...]) -> Timed:
    started = time.perf_counter()
    process = _start(task, folder, out, options)
    first_shard = largest = together = 0.0
    while process.poll() is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        if not first_shard and any((folder / out).glob("shard-*")):
            first_shard = time.perf_counter() - started
        sizes = [_memory(each) for each in (process.pid, *below(process.pid))]
        largest, together = max(largest, *sizes), max(together, sum(sizes))
    assert process.returncode == 0, task
    return Timed(time.perf_counter() - started, first_shard, largest, together)


def _memory(process: int) -> float:
    """MiB that a process holds alone, with its part of what it shares."""
    try:
        told = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(told.partition("\nPss:")[2].split()[0]) / 1024 if "\nPss:" in told else 0.0


def _row(task: Task, alone: Timed, by_ray: Timed, load: float) -> list[str]:
    def told(timed: Timed) -> str:
        return f"{timed.seconds:,.0f} s, {task.records / timed.seconds:,.1f}/s"

    working = [timed.seconds - timed.first_shard for timed in (alone, by_ray)]
    return [
        f"{task.records:,} {task.name}",
        told(alone),
        told(by_ray),
        f"{alone.seconds / by_ray.seconds:.2f}",
        f"{working[0] / working[1]:.2f}",
        f"{alone.largest:,.0f} MiB",
        f"{by_ray.largest:,.0f}, {by_ray.together:,.0f} MiB",
        f"{load:.1f}",
    ]


def _kills(task: Task, folder: Path, undisturbed: Path) -> dict[str, int]:
    """Jobs whose workers and drivers are killed, until there were enough, each then brought to its end."""
    rng = random.Random(2)
    workers = drivers = tries = jobs = same = 0
    while workers < WORKER_KILLS or drivers < DRIVER_KILLS:
        out = f"killed{jobs}"
        is_done = False
        while not is_done:
            tries += 1
            process = _start(task, folder, out, (*BY_RAY, "--resume"))
            wanted = -(-(WORKER_KILLS - workers) // max(1, DRIVER_KILLS - drivers))
            seen = set()
            for _ in range(max(0, wanted)):
                workers += _kill_worker(process, rng, seen)
            if process.poll() is None and drivers < DRIVER_KILLS:
                seen |= below(process.pid).keys()
                time.sleep(rng.uniform(0, BETWEEN_KILLS))
                process.kill()
                drivers += 1
            process.wait()
            end_all(sorted(seen))
            is_done = (folder / out / "manifest.json").exists()
        jobs += 1
        same += _content(folder / out) == _content(undisturbed)
    return {"workers": workers, "drivers": drivers, "tries": tries, "jobs": jobs, "same": same}


def _kill_worker(process: subprocess.Popen, rng: random.Random, seen: set[int]) -> bool:
    """Kill one of the workers after some time; False where the job ended meanwhile."""
    ends = time.monotonic() + rng.uniform(0, BETWEEN_KILLS)
    while process.poll() is None:
        found = below(process.pid)
        seen |= found.keys()
        alive = [each for each, name in found.items() if name.startswith("ray::MapWorker")]
        if alive and time.monotonic() >= ends:
            os.kill(rng.choice(alive), signal.SIGKILL)
            return True
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return False


def _content(folder: Path) -> dict[str, bytes]:
    """The files of a job by their names."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
