"""A run that is killed at any moment goes on or begins anew, ends as if it had not been, and leaves nothing behind."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

# trains in a process of its own, which it kills when that has computed for a while, and a moment later: the clock of a
# machine that has much to do says little of how far it has come. To import torch each time would take seconds
TRAINER = """
import json, os, signal, sys, time
from pathlib import Path
from regard.errors import RegardError
from regard.training.recipe import load_recipe
from regard.training.train import train_run

def computed(child):
    try:
        return int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return time.monotonic() - started

for line in sys.stdin:
    job = json.loads(line)
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.environ["REGARD_CACHE"] = job["cache"]
        try:
            train_run(load_recipe(job["recipe"]), Path(job["folder"]), resume=job["resume"])
        except RegardError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(2)
        os._exit(0)
    while not (ended := os.wait4(child, os.WNOHANG))[0]:
        if computed(child) > job["after"]:
            time.sleep(job["moment"])
            os.kill(child, signal.SIGKILL)
            ended = os.wait4(child, 0)
            break
        time.sleep(0.001)
    used = ended[2].ru_utime + ended[2].ru_stime
    print(json.dumps({"code": os.waitstatus_to_exitcode(ended[1]), "seconds": used}), flush=True)
"""


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def check_kills(recipe: Path, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Train until that many processes were killed; how often a run went on, began anew, or was finished already."""
    generator = random.Random(seed)
    command = [sys.executable, "-c", TRAINER]
    seen = {"killed": 0, "runs": 0, "went on": 0, "began anew": 0, "was finished": 0}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdin is not None
        assert trainer.stdout is not None

        def train(place: Path, after: float) -> dict[str, float]:
            run = place / "run"
            job = {"recipe": str(recipe), "folder": str(run), "cache": str(place / "cache"), "after": after}
            job |= {"resume": run.exists(), "moment": 0.01 * generator.random()}
            trainer.stdin.write(json.dumps(job) + "\n")
            trainer.stdin.flush()
            return json.loads(trainer.stdout.readline())

        whole = folder / "whole"
        assert train(whole, after=600)["code"] == 0
        # the second time nothing is imported any more
        seconds = train(folder / "again", after=600)["seconds"]
        wanted, files = (whole / "run" / "model.safetensors").read_bytes(), listing(whole)
        while seen["killed"] < kills:
            seen["runs"] += 1
            place = folder / f"run-{seen['runs']}"
            place.mkdir()
            while True:
                run = place / "run"
                if run.exists():
                    seen["went on" if (run / "resume").exists() else "began anew"] += 1
                after = seconds * 1.2 * generator.random()
                code = train(place, after)["code"]
                if code == -9:
                    seen["killed"] += 1
                    continue
                # it had ended already, but for what it no longer needed
                seen["was finished"] += code == 1
                assert code in (0, 1)
                break
            assert (run / "model.safetensors").read_bytes() == wanted
            assert json.loads((run / "run.json").read_text())["status"] == "finished"
            # the tokens in the cache have the name of what they are of, which is the same for all of them
            assert listing(place) == files
        trainer.stdin.close()
    return seen


def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been_and_leaves_nothing_behind(recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe(average=2).to_toml())
    os.makedirs(tmp_path / "runs")
    seen = check_kills(tmp_path / "recipe.toml", tmp_path / "runs", kills=10, seed=3)
    assert seen["went on"] + seen["began anew"] + seen["was finished"] >= 1
