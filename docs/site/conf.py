"""Sphinx's settings; `build.py` beside it lays out the pages and calls Sphinx."""

import re

from sphinx.application import Sphinx

import regard

project = "Regard"
author = copyright = "the Regard maintainers"
version = release = regard.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"Regard {version}"
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []
exclude_patterns = ["docs/live"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# blocks of results that are marked "text similar" and the like, and pages that begin below a first heading
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": True, "inherited-members": "Module,Sequence,object"}
# in docstrings a name in single backquotes is code
default_role = "code"


def escape(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Outside backquotes docstrings are plain text, in which * and | are no markup."""
    text = re.split(r"(`[^`]*`)", "\n".join(lines))
    text[::2] = [re.sub(r"([*|\\])", r"\\\1", part) for part in text[::2]]
    # code ends only where no letter follows: `Generation`s
    text[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in text[2::2]]
    lines[:] = "".join(text).split("\n")


def shorten(app: Sphinx, what: str, name: str, obj: object, options: object, *signature: str | None) -> tuple:
    """Types by their last name; a default that is a function is not spelled out. Arguments, then what is returned."""
    found = []
    for text in signature:
        short = text and re.sub(r"~?\b[\w.]+\.(?=[A-Z]\w+)", "", text)
        found.append(short and re.sub(r"<function .*?>+(?=[,)])", "...", short))
    return tuple(found)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", shorten)
