"""Readings made by hand, so that every share is known, and a browser to see them in."""

import itertools
import shutil

import numpy as np
import pytest

import regard.api  # noqa: F401  it brings what shows a reading
from regard.data.words import word_spans
from regard.reading.labels import placed
from regard.reading.reading import Reading
from regard.reading.record import Check


@pytest.fixture(scope="module")
def browser():
    tool = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium; on Debian: apt install chromium")
    with tool.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def written_by_hand(pieces, prompt, *tables, refused=None):
    """A decoder that was fed `pieces`, all but the last, of which so many are the prompt; one table a layer.

    Tables are [head, row, key]; the rows are those that wrote what follows the prompt, or of a text the last.
    """
    text = "".join(pieces)
    ends = [0, *itertools.accumulate(map(len, pieces))]
    tokens = placed(text, list(range(len(pieces))), list(pieces), list(itertools.pairwise(ends)), word_spans(text))
    keys = len(pieces) - 1 if prompt else len(pieces)
    rows = list(range(max(prompt, 1) - 1, keys)) if prompt else [keys - 1]
    maps = {("decoder", layer): np.asarray(table, dtype=np.float32) for layer, table in enumerate(tables)}
    assert all(table.shape[1:] == (len(rows), keys) for table in maps.values())
    return Reading(
        model="by hand",
        sequences={"text": tokens},
        maps=maps,
        checks={key: Check(1e-7, 2e-7, 3) for key in maps},
        refused=refused or {},
        settings={"prompt_tokens": prompt},
        sides={"decoder": ("text", "text")},
        kept={"decoder": rows},
    )


PIECES = ["Ann", " has", " a", " dog", ".", " Bo", " has", " a", " cat", ".", " Who", "?", " B", "o", "."]
# of two layers with two heads each, what three rows gave to fourteen keys, in percent
ROWS = [
    [60, 1, 1, 1, 1, 20, 2, 2, 2, 2, 4, 4, 0, 0],
    [40, 1, 1, 1, 1, 30, 2, 2, 2, 2, 4, 4, 10, 0],
    [50, 1, 1, 1, 1, 2, 2, 2, 20, 2, 4, 4, 5, 5],
]


@pytest.fixture
def by_hand():
    return written_by_hand


@pytest.fixture
def dogs():
    """Two sentences and a question, to which the answer is Bo; head 1 of layer 1 sees the first token alone."""
    table = np.array([ROWS, ROWS]) / 100
    other = table.copy()
    other[1] = np.eye(14)[0]
    return written_by_hand(PIECES, 12, table, other)
