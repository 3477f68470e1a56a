"""Makes the notebooks whose source is a page of docs/: a block of Python is a cell, what stands between is prose.

    python notebooks/from_page.py          writes the notebooks
    python notebooks/from_page.py --run    runs them first, and puts what they print and draw into their pages

What a page shows of a block, ```text and a picture, follows it at once. A word after ```text says that it is not the
same everywhere: `similar`, numbers that depend on the processor; `smollm2`, what that model gives and no other.
"""

import base64
import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("self-attention-to-gpt.md", "self-attention-to-gpt.zh.md")]
BLOCK = re.compile(
    r"```python\n(?P<code>.*?)\n```\n"
    r"(?:\n```text *(?P<mark>\w*)\n(?P<printed>.*?)```\n)?"
    r"(?:\n!\[(?P<title>[^\]]*)\]\((?P<picture>[^)]*)\)\n)?",
    re.DOTALL,
)
LINK = re.compile(r"\]\((?=[\w.-]+\.md\b)")


class Block(NamedTuple):
    """A block of Python and what the page shows of it: None where nothing is shown."""

    code: str
    mark: str
    printed: str | None
    title: str | None
    picture: str | None


def blocks(page: str) -> list[Block]:
    return [_block(found) for found in BLOCK.finditer(page)]


def notebook(page: str) -> nbformat.NotebookNode:
    """Its cells, without what they print and draw. Links go from notebooks/ to docs/."""
    cells, end = [], 0
    for found in [*BLOCK.finditer(page), None]:
        prose = LINK.sub("](../docs/", page[end : found.start() if found else None]).strip()
        if prose:
            cells.append(nbformat.v4.new_markdown_cell(prose, id=f"cell-{len(cells) + 1:02}"))
        if found:
            cells.append(nbformat.v4.new_code_cell(found["code"], id=f"cell-{len(cells) + 1:02}"))
            end = found.end()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def results(executed: nbformat.NotebookNode) -> list[tuple[str, list[bytes]]]:
    """What each cell of code printed, and the pictures that it drew."""
    found = []
    for cell in executed.cells:
        if cell.cell_type == "code":
            printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
            data = [output.data for output in cell.outputs if "data" in output]
            found.append((printed, [base64.b64decode(each["image/png"]) for each in data if "image/png" in each]))
    return found


def renewed(path: Path) -> str:
    """The page with what its notebook prints; pictures are written beside it."""
    page = path.read_text(encoding="utf-8")
    executed = nbclient.NotebookClient(notebook(page), timeout=600, kernel_name="python3").execute()
    following = iter(results(executed))
    drawn = 0

    def fill(found: re.Match[str]) -> str:
        nonlocal drawn
        block, (printed, pictures) = _block(found), next(following)
        text = f"```python\n{block.code}\n```\n"
        if printed:
            text += f"\n```text {block.mark}".rstrip() + f"\n{printed}```\n"
        for picture in pictures:
            drawn += 1
            name = f"images/{path.name.removesuffix('.md')}-{drawn}.png"
            (path.parent / name).write_bytes(picture)
            text += f"\n![{block.title or ''}]({name})\n"
        return text

    return BLOCK.sub(fill, page)


def _block(found: re.Match[str]) -> Block:
    return Block(**{**found.groupdict(), "mark": found["mark"] or ""})


if __name__ == "__main__":
    for path in PAGES:
        if "--run" in sys.argv[1:]:
            path.write_text(renewed(path), encoding="utf-8")
        made = notebook(path.read_text(encoding="utf-8"))
        nbformat.write(made, ROOT / "notebooks" / f"{path.name.removesuffix('.md')}.ipynb")
