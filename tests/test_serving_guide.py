"""docs/serving.md does what it says: its Python is run as written, and its tables have every field."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import regard

GUIDE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_its_python_runs(tmp_path, tiny_smollm2):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    environment = os.environ | {"REGARD_CACHE": str(tiny_smollm2), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Check(row_sum_error=")


@pytest.mark.parametrize("kind", [regard.ServedRequest, regard.ServedLayer])
def test_its_tables_have_every_field(kind):
    table = GUIDE.partition(f"\n| `{kind.__name__}` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [field.name for field in dataclasses.fields(kind)]
