"""docs/viewing.md does what it says: its commands and its Python are run as written, on a tiny model named smollm2."""

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).parents[2] / "docs" / "viewing.md").read_text(encoding="utf-8")


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
