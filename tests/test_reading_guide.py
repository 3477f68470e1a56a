"""docs/reading.md does what it says: its Python and its commands are run as written, on a tiny model named smollm2."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors

import regard
from regard.reading.compute.statistics import SINK_SHARE, STATISTICS, Statistic

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "reading.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def tables(heading):
    """The first two cells of the tables of a section."""
    section = GUIDE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_smollm2):
    """What the guide leaves behind: its Python is one session, its commands follow."""
    folder = tmp_path_factory.mktemp("guide")
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(paths),
        "REGARD_CACHE": str(tiny_smollm2),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    session = [sys.executable, "-c", "\n".join(blocks("python"))]
    for command in (session, *(["bash", "-eu", "-c", text] for text in blocks("sh"))):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def reading(tiny_smollm2):
    """With all that can be asked for."""
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    names = [name for name in STATISTICS if name != SINK_SHARE]
    return model.read("One, two. Three, one.", rows=[2, 3, 5], max_new_tokens=3, top_k=2, statistics=names)


@pytest.mark.parametrize("name", ["answer.safetensors", "answer.json", "saved.safetensors", "text.json"])
def test_what_is_to_be_written_is_there(folder, name):
    if name.endswith(".json"):
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    else:
        found = regard.Reading.load(folder / name).to_json()
    assert found["model"] == "smollm2"
    assert found["weights"]


def test_the_commands_keep_what_they_were_told_to(folder):
    text = json.loads((folder / "text.json").read_text(encoding="utf-8"))
    assert text["rows"] == {"decoder": [*range(10, 20)]}
    assert text["weights"].keys() == text["top"].keys() == {"decoder.0", "decoder.5"}
    assert text["statistics"]["decoder.5"].keys() == {"received", "entropy"}
    assert len(text["sequences"]["text"]["tokens"]) == len(text["weights"]["decoder.0"][0][0])


def untold():
    """The lines of the guide's table that the entries of statistics make and that it does not have."""
    found = []
    for name, statistic in STATISTICS.items():
        axes = f"[{', '.join(statistic.axes)}]"
        cells = (f"`{name}`", axes, statistic.unit, statistic.meaning, statistic.source)
        found.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [line for line in found if f"{line}\n" not in GUIDE]


def test_every_statistic_is_told_as_its_entry_says(monkeypatch):
    assert untold() == []
    assert [name for name, _ in tables("Statistics")] == [f"`{name}`" for name in STATISTICS]
    new = Statistic(axes=("head", "key"), label="", label_zh="", unit="tokens", meaning="a | b")
    monkeypatch.setitem(STATISTICS, "new", new)
    assert untold() == [r"| `new` | [head, key] | tokens | a \| b |  |"]


def test_every_statistic_has_the_shape_of_its_entry(reading):
    # this model has no sinks
    assert reading.statistics["decoder", 0].keys() == STATISTICS.keys() - {SINK_SHARE}
    count = len(reading.keys("decoder"))
    sizes = {"head": 4, "query": count, "key": count, "row": 3, "segment": 2}
    for name, table in reading.statistics["decoder", 0].items():
        assert table.shape == tuple(sizes[axis] for axis in STATISTICS[name].axes), name


def test_every_key_of_the_json_is_told_and_no_other(reading):
    told = {name: what for name, what in tables("Files") if not re.match("`(weights|top|statistic)[.]", name)}
    document = reading.to_json()
    # only a reading of pictures or sounds has media
    assert {name.strip("`") for name in told} == {*document, "sequences.text.tokens[i]", "media"}
    inner = {
        "`sequences`": document["sequences"]["text"],
        "`sequences.text.tokens[i]`": document["sequences"]["text"]["tokens"][0],
        "`checks`": document["checks"]["decoder.0"],
        "`settings`": document["settings"],
        "`top`": document["top"]["decoder.0"],
    }
    for name, keys in inner.items():
        assert set(re.findall(r"`(\w+)`", told[name])) >= keys.keys(), name


def test_the_tensors_of_a_file_have_the_names_that_are_told(reading, tmp_path):
    reading.save(tmp_path / "a.safetensors")
    names = re.findall(r"`((?:weights|top|statistic)[.]decoder[.]3[\w.]*)`", GUIDE)
    assert len(names) == 4
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        assert set(names) <= {*file.keys()}
        assert file.metadata()["format"] in GUIDE
        facts = json.loads(file.metadata()["reading"])
        assert file.get_tensor(names[0]).dtype == np.float32
    keys = list(reading.to_json())
    assert list(facts) == keys[keys.index("model") : keys.index("rows") + 1]


def test_every_option_of_the_command_is_told():
    told = set(re.findall(r"`(--[\w-]+)", GUIDE))
    done = subprocess.run(
        [sys.executable, "-m", "regard", "read", "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help", "--debug"}
    # of runs, which docs/translating.md tells of, and of jobs
    of_jobs = set(re.findall(r"--[a-z-]+", (DOCS / "scale.md").read_text(encoding="utf-8")))
    assert options - {"--num-beams", "--length-penalty"} - of_jobs <= told
    assert told <= options
