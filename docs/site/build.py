"""Builds the site: `python docs/site/build.py OUT`.

Pages are laid out as in the repository, so that their links hold in both places; the reference of Python is made from
`regard.__all__`, that of the command line from the program. Any warning of Sphinx, such as a dead link, is an error.
"""

import inspect
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import regard
from regard import attention
from regard.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "docs" / "commands.md"
# pages and what they link to
COPIED = ("docs", "benchmarks/results", "benchmarks/zoo", "notebooks", "examples")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "CITATION.cff")
HEAD = """\
# The command line

Made from the program's own help: `python docs/site/build.py --commands`.

"""


def commands() -> str:
    """The page of the command line, as the program describes itself."""
    # a command names itself by what was started
    with mock.patch("sys.argv", ["regard"]):
        text = app.generate_docs(output_format="markdown").rstrip()
    # no switch of ours has a negative
    text = re.sub(r", --no-[\w-]+`", "`", text)
    # the site has a table of contents of its own
    before, _, rest = text.partition("## Table of Contents")
    _, _, rest = rest.partition("**Commands**")
    body = before.partition("```console")[2] + "**Commands**" + rest
    return HEAD + "```console" + body.replace("\n\n\n", "\n\n") + "\n"


def reference() -> str:
    """The page of Python: all that `import regard` and `regard.attention` offer."""
    lines = ["# Python", "", "What `import regard` offers. See [what stays](stability.md).", ""]
    kinds = {"Functions": inspect.isroutine, "Classes": inspect.isclass}
    for title, is_kind in kinds.items():
        names = [name for name in regard.__all__ if is_kind(getattr(regard, name))]
        lines += [f"## {title}", "", "```{eval-rst}"]
        directive = "autoclass" if title == "Classes" else "autofunction"
        lines += [line for name in names for line in (f".. {directive}:: regard.{name}", "")]
        lines += ["```", ""]
    lines += ["## regard.attention", "", "```{eval-rst}"]
    for module in ("self_attention", "additive", "multiplicative", "multi_head", "output"):
        lines += [f".. automodule:: regard.attention.{module}", "   :no-inherited-members:", ""]
    lines += [
        "```",
        "",
        "`regard.attention.MECHANISMS`: " + ", ".join(f"`{name}`" for name in attention.MECHANISMS),
        "",
        "## regard.exercises",
        "",
        "```{eval-rst}",
        ".. automodule:: regard.exercises",
        "```",
        "",
    ]
    return "\n".join(lines)


def lay_out(folder: Path) -> None:
    """Write the sources of the site."""
    ignored = shutil.ignore_patterns("site", "__pycache__", "*.json", "*.csv")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in PAGES:
        shutil.copyfile(ROOT / name, folder / name)
    for page in folder.rglob("*.md"):
        # an anchor that a browser finds is one that MyST does not see
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'^<a id="(\w+)"></a>', r"(\1)=\n", text, flags=re.MULTILINE), encoding="utf-8")
    (folder / "docs" / "reference.md").write_text(reference(), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("index.md"), folder / "index.md")


def main(out: Path) -> int:
    """Build into a folder; returns the exit status of Sphinx."""
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory(prefix="regard-site-") as place:
        source = Path(place, "source")
        lay_out(source)
        conf = str(Path(__file__).parent)
        # the live page is no page of Sphinx: it goes with the site as it is
        live = ROOT / "docs" / "live"
        if live.is_dir():
            shutil.copytree(live, out / "live", dirs_exist_ok=True)
        options = ["--quiet", "--fail-on-warning", "--keep-going"]
        return build_main([*options, "-b", "html", "-c", conf, "-d", f"{place}/doctrees", str(source), str(out)])


if __name__ == "__main__":
    if sys.argv[1:] == ["--commands"]:
        COMMANDS.write_text(commands(), encoding="utf-8")
    else:
        sys.exit(main(Path(sys.argv[1])))
