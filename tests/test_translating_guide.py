"""docs/translating.md does what it says: its commands are run, one after the other, in an empty folder.

They are run as written, but for the half minute of training: steps take its place, for another process may be at
work on the same machine.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "translating.md"
HALF_A_MINUTE, STEPS = "train.minutes=0.5", "train.steps=400"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the guide leaves behind."""
    folder = tmp_path_factory.mktemp("guide")
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(paths), "GOMP_SPINCOUNT": "20000"}
    assert sum(HALF_A_MINUTE in text for _, text in BLOCKS) == 1
    for language, text in BLOCKS:
        text = text.replace(HALF_A_MINUTE, STEPS)
        command = ["bash", "-eu", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    return folder


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_every_question_has_its_answer_and_its_links(folder):
    counts = {name: len(lines(folder / name)) for name in ("questions.txt", "answers.txt", "again.txt", "links.txt")}
    assert len(set(counts.values())) == 1, counts
    assert counts["questions.txt"] == len(lines(folder / "mine" / "test.tsv"))


def test_half_a_minute_teaches_most_of_the_short_numbers(folder):
    quality = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    assert quality["exact"] > 0.5
    assert quality["count"] == len(lines(folder / "mine" / "test.tsv"))


@pytest.mark.parametrize("name", ["reading.json", "reading.safetensors", "same.safetensors", "elsewhere/model.bin"])
def test_what_is_to_be_written_is_there(folder, name):
    assert (folder / name).stat().st_size > 0
