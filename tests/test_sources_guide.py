"""docs/sources.md does what it says: its Python and its command are run as written, on a tiny model named smollm2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from regard.cli.sources import sources as verb
from regard.reading.sources import SourceOptions

GUIDE = (Path(__file__).parents[1] / "docs" / "sources.md").read_text(encoding="utf-8")
PAGE = re.findall(r'^    "(.*?)"$', GUIDE, re.MULTILINE)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def run(command, folder, cache):
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "REGARD_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_python_runs(tmp_path, tiny_smollm2):
    shown = run([sys.executable, "-c", "\n".join(blocks("python"))], tmp_path, tiny_smollm2)
    assert shown.count("rests on") == 2
    assert "A glassmaker named Bruno mended it in two days." in shown


def test_its_command_runs(tmp_path, tiny_smollm2):
    (tmp_path / "page.txt").write_text("".join(PAGE) + "\n\nWho mended the lamp?\n", encoding="utf-8")
    (command,) = blocks("sh")
    shown = run(["bash", "-eu", "-c", command], tmp_path, tiny_smollm2)
    assert shown.startswith("Bruno mended the lamp.\n\nThis answer rests on")
    assert "? " in shown


@pytest.mark.parametrize("name", [*SourceOptions.__dataclass_fields__, "answer", "contrast", "messages"])
def test_every_setting_is_told_and_has_its_option(name):
    assert f"| `{name}=`, `--{name}`" in GUIDE
    assert f"\n    {name}\n" in verb.__doc__
