"""docs/viewing.md does what it says: its commands and its Python are run as written, on a tiny model named smollm2."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.view import pictured

WHOLE = (Path(__file__).parents[2] / "docs" / "viewing.md").read_text(encoding="utf-8")
BEFORE, PICTURES, AFTER = re.split(r"^(?=## Pictures|## How exact)", WHOLE, flags=re.MULTILINE)
GUIDE = BEFORE + AFTER


def test_the_guide_runs_as_written(tmp_path, tiny_smollm2):
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "REGARD_CACHE": str(tiny_smollm2),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    (commands,) = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    session = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
    for command in (["bash", "-eu", "-c", commands], [sys.executable, "-c", session]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"answer.html", "answer.safetensors", "again.html", "heads.pdf"}
    assert 'id="reading.mean.decoder.value_norm"' in (tmp_path / "answer.html").read_text(encoding="utf-8")


def test_the_section_on_pictures_draws_what_it_says(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (session,) = re.findall(r"```python\n(.*?)```", PICTURES, re.DOTALL)
    given = pictured.both()
    for line in session.splitlines():
        call = re.match(r"reading\.plot\((.*?)\)", line)
        assert call
        words = [each.split("=") for each in call[1].split(", ")]
        named = {word[0]: ast.literal_eval(word[1]) for word in words if len(word) == 2}
        given.plot(*(ast.literal_eval(word[0]) for word in words if len(word) == 1), **named)
    assert (tmp_path / "cat.pdf").exists()
