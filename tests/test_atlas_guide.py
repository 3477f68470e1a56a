"""docs/atlas.md does what it says, in both languages: its Python is run as written, on a tiny model named smollm2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from regard.reading.measures import MEASURES

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_guide_runs_as_written(tiny_smollm2, tmp_path):
    pytest.importorskip("transformers")
    environment = os.environ | {"REGARD_CACHE": str(tiny_smollm2), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", "\n".join(blocks("atlas.md"))]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<Atlas of smollm2: 2 prompts, 6 layers × 4 heads>" in done.stdout
    assert (tmp_path / "atlas.html").exists()


def test_both_languages_show_the_same_code_and_every_measure():
    english, chinese = ([re.sub(r"#.*", "", block) for block in blocks(name)] for name in ("atlas.md", "atlas.zh.md"))
    assert english == chinese
    for name in ("atlas.md", "atlas.zh.md"):
        told = set(re.findall(r"`(\w+)`", (DOCS / name).read_text(encoding="utf-8")))
        assert told >= MEASURES.keys(), MEASURES.keys() - told
