"""docs/heads.md does what it says, in both languages: its Python is run as written, on a tiny model named smollm2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def test_the_guide_runs_as_written(tiny_smollm2):
    pytest.importorskip("transformers")
    # the tiny tokenizer cuts these two otherwise, into unequal numbers of tokens
    session = "\n".join(blocks("heads.md")).replace("(5, 1), (7, 3)", "(5, 1), (4, 3)").replace("[8, 9, 10]", "[3, 4]")
    session = session.replace("The key to the cabinets", "The keys to the cabinex")
    # it has 6 layers of 4 heads
    session = session.replace("why(17, 4,", "why(5, 3,").replace('"decoder", 16', '"decoder", 4')
    session = session.replace('"decoder", 17)[4,', '"decoder", 5)[3,').replace("[(16, 0)]", "[(4, 0)]")
    environment = os.environ | {"REGARD_CACHE": str(tiny_smollm2), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", session], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<HeadEffects on log_probability: 2 prompts, 6 layers × 4 heads>" in done.stdout
    assert "<QKAttribution of layer 5 head 3:" in done.stdout


def test_both_languages_show_the_same_code():
    english, chinese = ([re.sub(r"#.*", "", block) for block in blocks(name)] for name in ("heads.md", "heads.zh.md"))
    assert english == chinese
