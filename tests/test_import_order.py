"""A module imports only from its own folder and from those before it; heavy imports wait until they are needed.

In `reading/`, the largest folder, the modules themselves have an order.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import regard

ORDER = [
    "errors",
    "config",
    "files",
    "kernels",
    "attention",
    "exercises",
    "data",
    "models",
    "generation",
    "reading",
    "evaluation",
    "training",
    "export",
    "view",
    "language_model",
    "translator",
    "jobs",
    "api",
    "cli",
]
READING = [
    "call",
    "parts",
    "segments",
    "media",
    "sound_frames",
    "time_warping",
    "record",
    "runs",
    "labels",
    "layers",
    "layouts",
    "capture.session",
    "capture.flex",
    "capture.modules",
    "capture.paged",
    "capture.torch_functions",
    "capture.transformers",
    "capture.patches",
    "compute.verify",
    "compute.tiles",
    "compute.statistics",
    "compute.rollout",
    "compute.sweep",
    "compute.output_norm",
    "options",
    "compute.rows",
    "packed",
    "answer_run",
    "asked",
    "removal",
    "passages",
    "probe",
    "copying",
    "views",
    "source_curves",
    "source_record",
    "sources",
    "media_asked",
    "media_hiding",
    "media_sources",
    "spans",
    "choices",
    "tables",
    "alignment",
    "word_times",
    "ranks",
    "frames",
    "files",
    "frozen",
    "contributions",
    "qk_attribution",
    "reading",
    "joined",
    "served.checks",
    "served.files",
    "served.request",
    "served.assemble",
    "hiding",
    "effects",
    "assemble",
    "recorder",
    "watch",
    "measures",
    "examples",
    "tally",
    "tally_files",
    "layer_watch",
    "interventions",
    "ablation",
    "patching",
    "head_effects",
    "measuring",
    "atlas",
    "atlas_difference",
    "replay",
    "unknown",
    "language",
    "areas",
    "hearing",
]
ROOT = Path(regard.__file__).parent
# what `import regard` and `python -m regard` are made of stands above the order
ENTRIES = {"__init__", "__main__"}
MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].removesuffix(".py") not in ENTRIES
)


def imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """What a module in `package` imports of regard, by its name below, at its top, in functions and for types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "regard" and rest and rest[0] in ORDER:
                yield ".".join(rest)


def is_within(name: str, place: str) -> bool:
    return f"{name}.".startswith(f"{place}.")


def violations(source: str, relative: Path) -> list[str]:
    """What `source`, at this place below src/regard, imports and must not."""
    own = ".".join(relative.with_suffix("").parts)
    folder = own.split(".")[0]
    allowed = ORDER[: ORDER.index(folder) + 1]
    if folder == "reading":
        module = own.removeprefix("reading.")
        # an __init__ of reading imports nothing of it, or each of its modules would
        before = READING[: READING.index(module)] if module in READING else []
        allowed = [*allowed[:-1], *(f"reading.{each}" for each in before)]
    names = imported(ast.parse(source), ["regard", *relative.parts[:-1]])
    return [f"{relative} imports {name}" for name in names if not any(is_within(name, each) for each in allowed)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_its_own_folder_and_from_those_before_it(path):
    assert violations(path.read_text(encoding="utf-8"), path.relative_to(ROOT)) == []


def test_every_folder_has_its_place_in_the_order():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES} == set(ORDER)


def test_every_module_of_reading_has_its_place_in_the_order():
    folder = ROOT / "reading"
    places = [path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.py")]
    assert {".".join(parts) for parts in places if parts[-1] != "__init__"} == set(READING)
    assert len(READING) == len(set(READING))


@pytest.mark.parametrize(
    "source",
    [
        "import regard.models",
        "import torch, regard.models.rnn as rnn",
        "from regard.models import build",
        "from regard import models",
        "from regard import RegardError, models",
        "from ..models import build",
        "from ..models.rnn import run",
        "from .. import models",
        "def late():\n    from regard.models import build",
        "if TYPE_CHECKING:\n    from regard.models import build",
    ],
)
def test_an_import_against_the_order_is_caught_however_it_is_written(source):
    (found,) = violations(source, Path("attention/additive.py"))
    assert found.startswith("attention/additive.py imports models")
    assert violations(source, Path("models/rnn.py")) == []
    assert violations(source, Path("generation/search.py")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import regard.reading.compute.tiles",
        "from regard.reading.compute import tiles",
        "from regard.reading.compute.tiles import Text",
        "from ..compute import tiles",
        "from ..compute.tiles import Text",
        "def late():\n    from regard.reading.compute.tiles import Text",
        "if TYPE_CHECKING:\n    from regard.reading.compute.tiles import Text",
    ],
)
def test_an_import_against_the_order_of_reading_is_caught_however_it_is_written(source):
    for early in ("capture/session.py", "compute/tiles.py", "compute/__init__.py", "compute/verify.py"):
        (found,) = violations(source, Path("reading", early))
        assert found.startswith(f"reading/{early} imports reading.compute.tiles")
    assert violations(source, Path("reading/compute/statistics.py")) == []
    assert violations(source, Path("view/wire.py")) == []


@pytest.mark.parametrize("source", ["from regard import reading", "import regard.reading", "from . import compute"])
def test_modules_of_reading_are_imported_by_their_own_names(source):
    assert violations(source, Path("reading/language.py"))


@pytest.mark.parametrize("source", ["import torch.models", "from regard import RegardError", "from . import masks"])
def test_an_import_within_the_order_is_let_through(source):
    assert violations(source, Path("attention/additive.py")) == []


def loaded(statement: str, *names: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*({{{', '.join(map(repr, names))}}} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_importing_regard_loads_nothing_heavy():
    assert loaded("import regard", "torch", "numpy", "matplotlib", "rich", "tokenizers") == []


def test_importing_the_command_line_loads_no_torch():
    assert loaded("import regard.cli", "torch", "numpy", "matplotlib", "tokenizers") == []


def test_what_regard_offers_loads_torch_only_when_asked_for():
    assert loaded("import regard; regard.RegardError", "torch") == []
    for name in ("attention", "exercises"):
        assert loaded(f"import regard; regard.{name}", "torch") == ["torch"]


def test_what_makes_readings_brings_their_views():
    for name in ("Reading", "watching", "read", "load"):
        assert loaded(f"import regard; regard.{name}", "regard.view.renderers") == ["regard.view.renderers"]


def test_regard_offers_all_that_it_lists():
    assert all(getattr(regard, name) is not None for name in regard.__all__)
    assert set(regard.__all__) <= set(dir(regard))


def test_regard_has_nothing_that_it_does_not_list():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = regard.nothing
