"""A module imports only from its own folder and from those before it; heavy imports wait until they are needed."""

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
    "api",
    "cli",
]
ROOT = Path(regard.__file__).parent
# what `import regard` and `python -m regard` are made of stands above the order
ENTRIES = {"__init__", "__main__"}
MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].removesuffix(".py") not in ENTRIES
)


def imported(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """The folders of regard that a module in `package` imports from, at its top, in functions and for types."""
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
                yield rest[0]


def violations(source: str, relative: Path) -> list[str]:
    """What `source`, at this place below src/regard, imports and must not."""
    folder = relative.parts[0].removesuffix(".py")
    allowed = ORDER[: ORDER.index(folder) + 1]
    names = imported(ast.parse(source), ["regard", *relative.parts[:-1]])
    return [f"{relative} imports {name}" for name in names if name not in allowed]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_its_own_folder_and_from_those_before_it(path):
    assert violations(path.read_text(encoding="utf-8"), path.relative_to(ROOT)) == []


def test_every_folder_has_its_place_in_the_order():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES} == set(ORDER)


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
    assert violations(source, Path("attention/additive.py")) == ["attention/additive.py imports models"]
    assert violations(source, Path("models/rnn.py")) == []
    assert violations(source, Path("generation/search.py")) == []


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
    assert loaded("import regard; regard.attention", "torch") == ["torch"]


def test_what_makes_readings_brings_their_views():
    for name in ("Reading", "watching", "read", "load"):
        assert loaded(f"import regard; regard.{name}", "regard.view.renderers") == ["regard.view.renderers"]


def test_regard_offers_all_that_it_lists():
    assert all(getattr(regard, name) is not None for name in regard.__all__)
    assert set(regard.__all__) <= set(dir(regard))


def test_regard_has_nothing_that_it_does_not_list():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = regard.nothing
