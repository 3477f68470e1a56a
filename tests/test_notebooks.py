"""Every notebook runs from its first cell to its last, on a tiny model, and is kept without what it printed."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def executed(request, tiny_smollm2, tmp_path, monkeypatch):
    monkeypatch.setenv("REGARD_NOTEBOOK_MODEL", str(tiny_smollm2 / "models" / "smollm2"))
    # nothing of the user's, and no network
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(request.param, as_version=4)
    return nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=tmp_path)


@pytest.mark.parametrize("executed", NOTEBOOKS, ids=lambda path: path.name, indirect=True)
def test_a_notebook_runs_through_and_draws(executed):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if "image/png" in output.get("data", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_and_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs"), f"{path.name} has outputs in {cell.id}; clear them"
        assert cell.get("execution_count") is None
