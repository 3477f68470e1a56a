"""What a release promises is what it holds: one version, types, formats."""

import importlib.metadata
import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import regard
from regard.data import corpora
from regard.models.pretrained import gguf_convert
from regard.reading import files as readings
from regard.reading.served import files as served
from regard.training import tokens
from regard.training.folder import RUN_FORMAT
from regard.view.server import history

ROOT = Path(__file__).parents[1]
FORMATS = {
    "run": RUN_FORMAT,
    "reading": readings.FORMAT,
    "request of a served model": served.FORMAT,
    "history of `regard view`": history.VERSION,
    "`corpora/`": corpora.VERSION,
    "`models/`": gguf_convert.VERSION,
    "`tokens/`": tokens.READING,
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/regard/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", regard.__version__)


def test_the_citation_and_the_installed_package_have_that_version() -> None:
    assert re.findall(r"^version: (.*)$", text("CITATION.cff"), re.MULTILINE) == [regard.__version__]
    assert importlib.metadata.version("regard") == regard.__version__


def test_the_package_says_that_it_has_types() -> None:
    assert (resources.files(regard) / "py.typed").is_file()


@pytest.mark.parametrize("page", ["stability.md", "stability.zh.md"])
def test_the_formats_that_the_page_names_are_those_of_the_code(page: str) -> None:
    rows = re.findall(r"^\| (.*?) \| .*? \| `(.*?)` \|$", text(f"docs/{page}"), re.MULTILINE)
    assert [format for _, format in rows] == [str(format) for format in FORMATS.values()]
    if page == "stability.md":
        assert [what for what, _ in rows] == [*FORMATS]
