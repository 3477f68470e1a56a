"""Every notebook runs from its first cell to its last, on a tiny model, and is kept without what it printed.

Some are made from a page of docs/: the page then says what its blocks print.
"""

import ast
import importlib.util
import itertools
import re
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from tests.media_models import make

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def load_from_page():
    spec = importlib.util.spec_from_file_location("from_page", ROOT / "notebooks" / "from_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # where a NamedTuple looks for its own module
    sys.modules["from_page"] = module
    spec.loader.exec_module(module)
    return module


from_page = load_from_page()
SOLUTIONS = (ROOT / "notebooks" / "exercises_solutions.py").read_text(encoding="utf-8")
EXERCISES = [path for path in NOTEBOOKS if path.name.startswith("exercises.")]
PAGES = {path.name.removesuffix(".md") + ".ipynb": path for path in from_page.PAGES}


def execute(notebook, folder, environment):
    with pytest.MonkeyPatch.context() as patch:
        # nothing of the user's, and no network
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder / name))
        for name, value in {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **environment}.items():
            patch.setenv(name, value)
        return nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=folder)


@pytest.fixture(scope="module")
def on_a_tiny_model(tiny_smollm2):
    return {
        "REGARD_NOTEBOOK_MODEL": str(tiny_smollm2 / "models" / "smollm2"),
        "REGARD_CACHE": str(tiny_smollm2),
        "REGARD_NOTEBOOK_STEPS": "2",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="module")
def executed(request, on_a_tiny_model, tmp_path_factory):
    environment, path = dict(on_a_tiny_model), request.param
    if path.name.startswith("pictures"):
        environment["REGARD_NOTEBOOK_PICTURE_MODEL"] = str(make("smolvlm", tmp_path_factory.mktemp("smolvlm")))
    return path, execute(nbformat.read(path, as_version=4), tmp_path_factory.mktemp(path.stem), environment)


def shown(page):
    """The blocks of a page, each with what it printed and drew."""
    return from_page.blocks(page.read_text(encoding="utf-8"))


def compare(page, results, *, marks):
    """Of blocks with one of these marks all that is printed; of numbers that differ everywhere their number alone."""
    for block, (printed, pictures) in zip(shown(page), results, strict=True):
        assert bool(printed) == (block.printed is not None), block.code
        assert len(pictures) == (block.picture is not None), block.code
        if block.mark in marks:
            assert printed == (block.printed or ""), block.code
        elif block.mark == "similar":
            assert len(printed.split()) == len(block.printed.split()), block.code


@pytest.mark.parametrize("executed", NOTEBOOKS, ids=lambda path: path.name, indirect=True)
def test_a_notebook_runs_through_and_draws(executed):
    _, notebook = executed
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if "image/png" in output.get("data", ())]
    if page := PAGES.get(executed[0].name):
        compare(page, from_page.results(notebook), marks=("",))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_and_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs"), f"{path.name} has outputs in {cell.id}; clear them"
        assert cell.get("execution_count") is None


def stubs(notebook):
    """The cells of an exercise, each with the function that it defines and the name that it checks."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and "raise NotImplementedError" in cell.source:
            function, call = ast.parse(cell.source).body
            yield cell, function, ast.unparse(call)


@pytest.mark.parametrize("executed", EXERCISES, ids=lambda path: path.name, indirect=True)
def test_an_exercise_that_is_not_done_says_how_to_begin_and_stops_nothing(executed):
    _, notebook = executed
    for cell, function, call in stubs(notebook):
        assert call == f"check({function.name})"
        (output,) = cell.outputs
        assert re.match(f"✗ {function.name}: (not written yet|还没有写)", output.data["text/plain"])
        assert "border-left" in output.data["text/html"]


def test_the_exercises_are_right_with_the_solutions_in_place_of_the_stubs(on_a_tiny_model, tmp_path):
    notebook = nbformat.read(EXERCISES[0], as_version=4)
    solved = {each.name: each for each in ast.parse(SOLUTIONS).body if isinstance(each, ast.FunctionDef)}
    cells = [cell for cell, _, _ in stubs(notebook)]
    for cell, function, call in stubs(notebook):
        solution = solved.pop(function.name)
        assert ast.unparse(solution.args) == ast.unparse(function.args)
        cell.source = f"import math\n{ast.get_source_segment(SOLUTIONS, solution)}\n\n\n{call}"
    assert not solved
    execute(notebook, tmp_path, on_a_tiny_model)
    assert [output.data["text/plain"][0] for cell in cells for output in cell.outputs] == ["✓"] * len(cells)
    # the learner's own function found a head, and it is drawn
    last = notebook.cells[-2].outputs
    assert re.search(r"\d\.\d\d", last[0].text)
    assert "image/png" in last[1].data


def test_the_exercises_in_two_languages_run_the_same_code():
    # the first cell sets up: Chinese needs a font and checks in Chinese
    first, second = (
        [_without_text(cell.source) for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"][1:]
        for path in EXERCISES
    )
    assert first == second


@pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.name)
def test_the_links_of_the_exercises_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert "exercises_solutions.py" in prose
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert (path.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda path: path.name)
def test_a_notebook_that_has_a_page_is_made_of_it(page):
    kept = nbformat.read(ROOT / "notebooks" / f"{page.name.removesuffix('.md')}.ipynb", as_version=4)
    assert kept == from_page.notebook(page.read_text(encoding="utf-8")), "run: python notebooks/from_page.py"


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda path: path.name)
def test_nothing_but_links_pictures_and_printed_text_is_lost_on_the_way_to_a_notebook(page):
    made = from_page.notebook(page.read_text(encoding="utf-8"))
    text = re.sub(r"^```text.*?^```$|^!\[.*?$|^```(python)?$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    kept = "\n".join(cell.source for cell in made.cells)
    assert kept.replace("../docs/", "").split() == text.split()
    prose = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert (ROOT / "notebooks" / target).is_file(), target


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda path: path.name)
def test_what_a_page_shows_it_has(page):
    blocks = shown(page)
    pictures = [block.picture for block in blocks if block.picture]
    assert pictures
    for picture in pictures:
        assert (page.parent / picture).stat().st_size < 60_000
    assert {block.mark for block in blocks} == {"", "similar", "smollm2"}
    assert sum(block.printed is not None for block in blocks) > 15


def test_pages_in_two_languages_run_the_same_code():
    # the first block sets up, and Chinese needs a font
    first, second = ([_without_text(block.code) for block in shown(page)[1:]] for page in PAGES.values())
    assert first == second


def _without_text(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda path: path.name)
def test_a_page_tells_of_six_tokens_what_the_textbook_does(page):
    printed = "".join(block.printed or "" for block in shown(page))
    found = [re.findall(r"\d\.\d{4}", line) for line in printed.split("\n")]
    # Raschka 2024, sections 3.3 and 3.4
    for row in (
        "0.9544 1.4950 1.4754 0.8434 0.7070 1.0865",
        "0.1385 0.2379 0.2333 0.1240 0.1082 0.1581",
        "0.4419 0.6515 0.5683",
        "0.1500 0.2264 0.2199 0.1311 0.0906 0.1820",
        "0.3061 0.8210",
    ):
        assert row.split() in found, row


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda path: path.name)
def test_a_page_shows_what_it_claims(page):
    printed = [block.printed or "" for block in shown(page)]
    assert "False" not in "".join(printed)
    contest = next(text for text in printed if "additive  " in text and "none" in text)
    none, additive = ([int(count) for count in line.split()[1:]] for line in contest.split("\n")[1:3])
    assert min(additive) >= 40
    assert none[0] >= 45
    assert none[-1] <= 5
    assert all(one >= two for one, two in itertools.pairwise(none))
    # 80 lines, each as likely as the others
    loss, least = (float(number) for number in re.search(r"(\d\.\d\d)\D+(\d\.\d\d)$", "".join(printed), re.M).groups())
    assert least <= loss < 1.15 * least


@pytest.mark.download
@pytest.mark.parametrize("page", PAGES.values(), ids=lambda path: path.name)
def test_a_page_says_what_smollm2_says(page, tmp_path):
    made = from_page.notebook(page.read_text(encoding="utf-8"))
    results = from_page.results(execute(made, tmp_path, {}))
    assert any(" Paris." in printed for printed, _ in results)
    compare(page, results, marks=("", "smollm2"))
