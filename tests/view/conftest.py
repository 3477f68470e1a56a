"""Readings made by hand, so that every share is known, and a browser to see them in."""

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

import regard.api  # noqa: F401  it brings what shows a reading
from regard.data.words import word_spans
from regard.reading.labels import placed
from regard.reading.reading import Reading
from regard.reading.record import Check
from regard.reading.source_record import Source, Sources, Verdict

LIVE = Path(__file__).parents[2] / "docs" / "live" / "index.html"


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


@pytest.fixture
def show(browser, tmp_path):
    """Opens a reading, and in the end sees that the page asked for nothing and complained of nothing."""
    told, contexts = [], []

    def show(reading, *, width=1280, height=800, theme="light", locale="en-US", lang=None):
        path = tmp_path / "reading.html"
        path.write_text(reading if isinstance(reading, str) else reading.to_html(lang), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, locale=locale, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda asked: told.append(asked.url) if not asked.url.startswith(path.as_uri()) else None)
        page.goto(path.as_uri())
        page.wait_for_selector('[data-ready="true"]')
        page.set_default_timeout(5000)
        return page

    yield show
    for context in contexts:
        context.close()
    assert told == []


@pytest.fixture(scope="module")
def open_live(browser):
    """Opens the live page, and in the end sees that it asked for nothing and complained of nothing."""
    told, contexts = [], []

    def open_live(width=1280, height=800, *, theme="light", locale="en-US"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, locale=locale, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda asked: told.append(asked.url) if asked.url != LIVE.as_uri() else None)
        page.goto(LIVE.as_uri())
        page.wait_for_selector('[data-ready="true"]')
        return page

    yield open_live
    for context in contexts:
        context.close()
    assert told == []


@pytest.fixture(scope="module")
def live(open_live):
    """The live page, one for all tests of a file."""
    return open_live()


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


TEMPLATE = ("<|im_start|>", "<|im_end|>")
MESSAGES = [
    ("system", ["Be", " brief", " 😀", "."]),
    ("user", ["Ann", " has", " a", " dog", ".", " Bo", " has", " none", "."]),
    ("assistant", ["I", " see", "."]),
    ("user", ["Who", " has", " a", " dog", "?"]),
]


@pytest.fixture
def chat():
    """Four messages in a template, an emoji before the second, answered by Ann and the end of a turn."""
    start, end = TEMPLATE
    pieces, turns, words = [], [], []

    def add(*more):
        at = len("".join(pieces))
        pieces.extend(more)
        return at, at + len("".join(more))

    for role, content in MESSAGES:
        add(start, role, "\n")
        turns.append((role, *add(*content)))
        add(end, "\n")
    add(start, "assistant", "\n")
    prompt = len(pieces)
    answer = add("A", "nn", ".")
    add(end)
    text, keys = "".join(pieces), len(pieces) - 1
    for first, last in [*(turn[1:] for turn in turns), answer]:
        words += [(first + begin, first + stop) for begin, stop in word_spans(text[first:last])]
    tables = np.random.default_rng(5).dirichlet(np.full(keys, 0.4), size=(2, 2, keys - prompt + 1))
    reading = written_by_hand(pieces, prompt, *tables)
    ends = [0, *itertools.accumulate(map(len, pieces))]
    tokens = placed(text, list(range(len(pieces))), pieces, list(itertools.pairwise(ends)), words)
    settings = {
        "prompt_tokens": prompt,
        "end_tokens": 1,
        "turns": [dict(zip(("role", "start", "end"), turn, strict=True)) for turn in turns],
    }
    return dataclasses.replace(reading, sequences={"text": tokens}, settings=settings)


@pytest.fixture
def sourced(chat):
    """The chat, whose answer rests on its first passage: without it it is 9.25 nats less likely."""
    text = chat.sequences["text"].text

    def source(passage, estimate, *by_token):
        start = text.index(passage)
        effect = sum(by_token) if by_token else None
        return Source(passage, start, start + len(passage), estimate, effect, by_token or None)

    passages = (
        source("Ann has a dog.", -2.0, -9.0, -0.25, 0.0),
        source("Bo has none.", -0.5, 0.5, 0.0, 0.0),
        source("Be brief 😀.", 0.25),
    )
    verdict = Verdict((0,), False, "rests on ①")
    found = Sources("Ann.", passages, source("Who has a dog?", -1.0), -0.1, -9.5, verdict)
    chat.settings["sources"] = found.to_json()
    return chat
