"""The models that are shipped by name answer the questions of the guides, the notebooks and the page rightly."""

import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest

import regard
import regard.view
from regard.view.answer import written_text

ROOT = Path(__file__).parents[1]
READING = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
VIEWING = (ROOT / "docs" / "viewing.md").read_text(encoding="utf-8")
WORDS = (Path(regard.view.__file__).parent / "page" / "app" / "words.js").read_text(encoding="utf-8")
BICYCLE = "Anna bought a red umbrella on Monday. Ben found a blue bicycle on Friday. When did Ben find the bicycle?"
UMBRELLA = "小明的雨伞是红色的。小红的雨伞是蓝色的。小刚的雨伞是绿色的。\n\n谁的雨伞是绿色的？"
LAMP = "The storm broke the lamp in the winter of 1894."
# of the page by language and mode
ANSWERS = {
    ("smollm2", "chat"): {
        BICYCLE: "Ben found the bicycle on Friday.",
        "What is the capital of France?": "The capital of France is Paris.",
    },
    ("smollm2", "prompt"): {"The capital of France is": "Paris.", "one, two, three, four,": "five, six, seven,"},
    ("gemma3-270m", "chat"): {UMBRELLA: "小刚的雨伞是绿色的。", "法国的首都是哪里？": "巴黎"},
    ("gemma3-270m", "prompt"): {"法国的首都是巴黎，日本的首都是": "东京，", "一、二、三、四、": "五、六、七、"},
}


def run(codes):
    """What these pieces of code define, one after another."""
    found = {}
    for code in codes:
        exec(code, found)
    return found


def cells(name, count):
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"][:count]


def test_the_answers_are_those_of_the_pages_examples():
    shown = [
        [json.loads(text) for text in re.findall(r'"(?:[^"\\]|\\.)*"', examples)]
        for examples in re.findall(r"^    (?:chat|prompt): \[(.*?)\],\n", WORDS, re.DOTALL | re.MULTILINE)
    ]
    assert shown == [list(answers) for answers in ANSWERS.values()]


@pytest.mark.download
@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_the_pages_examples_have_right_answers(name):
    model = regard.load(name)
    for mode in ("chat", "prompt"):
        for text, answer in ANSWERS[name, mode].items():
            found = model.generate(text, chat=mode == "chat", max_new_tokens=16)
            assert found.text.strip().startswith(answer)
            if mode == "chat":
                assert (found.text.strip(), found.finished) == (answer, True)


@pytest.mark.download
def test_the_guides_questions_have_right_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", READING, re.DOTALL)
    found = run([blocks[0], next(block for block in blocks if "conversation = " in block)])
    assert (written_text(found["reading"]), written_text(found["conversation"])) == (LAMP, LAMP)
    for guide in (READING, VIEWING):
        (command,) = re.findall(r"^regard read smollm2 --chat .*", guide, re.MULTILINE)
        assert BICYCLE in shlex.split(command)


@pytest.mark.download
@pytest.mark.parametrize(
    ("name", "count", "answer"),
    [
        (
            "reading.ipynb",
            2,
            "The islanders were carried by the Petrel, a fishing boat that belongs to the brothers Moe.",
        ),
        ("viewing.ipynb", 1, "Ada Brandt."),
    ],
)
def test_the_notebooks_questions_have_right_answers(name, count, answer, monkeypatch):
    monkeypatch.delenv("REGARD_NOTEBOOK_MODEL", raising=False)
    assert written_text(run(cells(name, count))["reading"]) == answer
