"""The reference is complete, its examples are run, and its page of the command line is what the program says."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import regard
from regard.cli.main import VERBS

ROOT = Path(__file__).parents[1]
MODULES = [module.name for module in pkgutil.walk_packages(regard.__path__, "regard.")]
WITH_EXAMPLES = [
    name
    for name in MODULES
    if (spec := importlib.util.find_spec(name)) and ">>> " in Path(str(spec.origin)).read_text(encoding="utf-8")
]


def load_build():
    spec = importlib.util.spec_from_file_location("site_build", ROOT / "docs" / "site" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()


def public(name):
    """A public name with, of a class, its public methods and properties that are not inherited from elsewhere."""
    thing = getattr(regard, name)
    yield name, thing
    if inspect.isclass(thing):
        for attribute, value in inspect.getmembers_static(thing):
            own = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if not attribute.startswith("_") and getattr(own, "__module__", "").startswith("regard"):
                yield f"{name}.{attribute}", own


@pytest.mark.parametrize("name", regard.__all__)
def test_a_public_name_says_what_it_is(name):
    silent = [each for each, thing in public(name) if callable(thing) and not (thing.__doc__ or "").strip()]
    assert not silent, f"without a docstring: {', '.join(silent)}"
    if name != "attention":
        # a function, a class, or a module
        assert f":: regard.{name}\n" in build.reference()


def test_there_are_examples_in_docstrings():
    assert "regard.attention.self_attention" in WITH_EXAMPLES


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_page_of_the_command_line_is_what_the_program_says():
    page = build.COMMANDS.read_text(encoding="utf-8")
    assert page == build.commands(), "run: python docs/site/build.py --commands"
    for verb in VERBS:
        assert f"## regard {verb}\n" in page


def test_the_site_shows_every_guide():
    index = (ROOT / "docs" / "site" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        name = page.name.removesuffix(".md")
        listed = name.endswith(".zh") or f"\ndocs/{name}\n" in index
        assert listed, f"docs/site/index.md does not list docs/{name}"


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")], ids=lambda path: path.name
)
def test_every_link_within_the_repository_leads_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    for target in map("".join, targets):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), target
