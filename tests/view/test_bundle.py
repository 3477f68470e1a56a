"""The committed bundle is what esbuild makes of the modules beside it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import regard.view

PAGE = Path(regard.view.__file__).parent / "page"
BUILD = json.loads((PAGE / "package.json").read_text(encoding="utf-8"))


def esbuild() -> str:
    """The exact version that package.json names, from beside it or from the path."""
    wanted = BUILD["devDependencies"]["esbuild"]
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    for found in (PAGE / "node_modules" / ".bin" / "esbuild", shutil.which("esbuild")):
        if found and Path(found).exists():
            told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
            if told.stdout.strip() == wanted:
                return str(found)
    pytest.skip(f"there is no esbuild {wanted}: npm install --no-package-lock in {PAGE.name}/")


def test_the_bundles_are_up_to_date(tmp_path):
    tool, *arguments = BUILD["scripts"]["build"].split()
    assert tool == "esbuild"
    kept = [argument for argument in arguments if argument != "--outdir=."]
    subprocess.run([esbuild(), *kept, f"--outdir={tmp_path}", "--log-level=error"], cwd=PAGE, check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "viewer.bundle.js" in made
    assert made == {path.name: path.read_bytes() for path in PAGE.glob("*.bundle.js")}


def test_the_tool_is_pinned_to_one_version():
    assert BUILD["devDependencies"]["esbuild"].replace(".", "").isdigit()
    assert not (PAGE / "package-lock.json").exists()
