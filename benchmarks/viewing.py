"""The viewer in Chromium: how soon it shows a long reading, follows the pointer and scrolls, and what it takes.

Beside it BertViz's head view and CircuitsVis, whose pages hold every weight of every pair of tokens.
"""

import dataclasses
import io
import itertools
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Error, Page, sync_playwright

import regard.api  # noqa: F401  it brings what shows a reading
from benchmarks import report
from benchmarks.peers import Contender, environment
from regard.data.words import word_spans
from regard.reading.labels import placed
from regard.reading.media import ImageArea, Picture
from regard.reading.reading import Reading
from regard.reading.record import Check, Sequence, Token, Top

LAYERS, HEADS, ROWS, TOP = 30, 9, 64, 8
# of a picture's grid of patches
SIDE = 64
ROUNDS, HOVERS, SCROLL_SECONDS = 3, 40, 4
LENGTHS = (64, 256, 1024)
# at which a page is opened once: the others take minutes, if they come at all
LONGEST = 1024
PEERS = {"BertViz": ["bertviz==1.4.1"], "CircuitsVis": ["circuitsvis==1.43.3"]}
# whose page fetches its libraries from a network
FETCHES = "BertViz"
TORCH = "torch==2.13.0"
# milliseconds after which a page is taken to show nothing
PATIENCE = {64: 8_000, 256: 120_000, LONGEST: 300_000}
# without its libraries a page shows nothing however long it is waited for
OFFLINE_PATIENCE = 8_000
# the moment at which it shows something, and the time that each frame takes, told by the page itself
WATCH = """
const began = () => performance.getEntriesByType("navigation")[0].domInteractive;
globalThis.frames_ = [];
const ask = requestAnimationFrame.bind(globalThis);
globalThis.requestAnimationFrame = (act) => ask((time) => {
  const start = performance.now();
  act(time);
  document.body.offsetHeight;
  frames_.push(performance.now() - start);
});
new MutationObserver((_, observer) => {
  if (!document.querySelector(".picture[data-shown]")) return;
  observer.disconnect();
  ask(() => setTimeout(() => (globalThis.pictured_ = performance.now() - began())));
}).observe(document, { subtree: true, childList: true, attributes: true });
new MutationObserver((_, observer) => {
  if (!document.querySelector('[data-ready="true"]')) return;
  observer.disconnect();
  ask(() => setTimeout(() => (globalThis.shown_ = performance.now() - began())));
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
HOVER = """(places) => new Promise((done) => {
  const spans = places.map((place) => document.querySelector(`[data-spine="output"] [data-t="${place}"]`));
  const found = [];
  const next = () => {
    const span = spans.pop();
    if (!span) return done(found);
    frames_.length = 0;
    const start = performance.now();
    span.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    const handled = performance.now() - start;
    setTimeout(() => { found.push(handled + Math.max(...frames_)); next(); }, 60);
  };
  next();
})"""
# when the picture itself is drawn under its heat
PICTURE_SHOWN = "globalThis.pictured_ !== undefined && globalThis.shown_ !== undefined"
POINT = """(count) => new Promise((done) => {
  const box = document.querySelector(".picture");
  const [wide, tall] = [box.clientWidth, box.clientHeight];
  const found = [];
  const next = () => {
    if (found.length === count) return done(found);
    const [x, y] = [(0.03 + (found.length * 0.37) % 0.94) * wide, (0.03 + (found.length * 0.61) % 0.94) * tall];
    const { left, top } = box.getBoundingClientRect();
    frames_.length = 0;
    const start = performance.now();
    box.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: left + x, clientY: top + y }));
    const handled = performance.now() - start;
    setTimeout(() => { found.push(handled + Math.max(...frames_)); next(); }, 60);
  };
  next();
})"""
DRAWN = """() => [...document.querySelectorAll("[data-t], canvas, svg text")].some(
  (node) => node.getBoundingClientRect().width > 0
)"""
SCROLL = """(seconds) => new Promise((done) => {
  const box = document.querySelector('[data-spine="input"]');
  const times = [];
  const start = performance.now();
  const step = (time) => {
    times.push(time);
    box.scrollTop += 90;
    if (performance.now() - start < 1000 * seconds) requestAnimationFrame(step);
    else done(times.slice(1).map((time, index) => time - times[index]));
  };
  requestAnimationFrame(step);
})"""


def run() -> None:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        figures["4,096 tokens"] = _long(chromium, Path(folder), 4096)
        figures["4,096 patches"] = _pictured(chromium, Path(folder))
        figures["100,000 tokens"] = _scrolled(chromium, Path(folder), 100_000)
        figures["peers"] = _compared(chromium, Path(folder))
        chromium.close()
    _write(figures)


def synthetic(tokens: int, *, layers: int = LAYERS, heads: int = HEADS, rows: int = ROWS, top: int = TOP) -> Reading:
    """A language model's reading with random weights, its last `rows` rows kept."""
    random = np.random.default_rng(0)
    pieces = [f" {'word' if place % 7 else 'paragraph.'}{place % 100}" for place in range(tokens + 1)]
    ends = np.cumsum([0, *map(len, pieces)]).tolist()
    text = "".join(pieces)
    spans = list(itertools.pairwise(ends))
    sequence = placed(text, list(range(tokens + 1)), pieces, spans, word_spans(text))
    kept = list(range(tokens - rows, tokens))
    maps, tops, found = {}, {}, {}
    for layer in range(layers):
        weights = random.random((heads, rows, tokens), dtype=np.float32) ** 12
        maps["decoder", layer] = weights / weights.sum(axis=2, keepdims=True)
        if top:
            positions = random.integers(0, tokens, (heads, tokens, top), dtype=np.int32)
            tops["decoder", layer] = Top(positions, random.random((heads, tokens, top), dtype=np.float32))
            names = ("entropy", "distance", "first_token", "received")
            found["decoder", layer] = {name: random.random((heads, tokens), dtype=np.float32) for name in names}
    return Reading(
        model="synthetic",
        sequences={"text": sequence},
        maps=maps,
        checks={key: Check(1e-7, 1e-7, rows) for key in maps},
        settings={"prompt_tokens": tokens - rows + 1},
        sides={"decoder": ("text", "text")},
        kept={"decoder": kept},
        tops=tops,
        statistics=found,
    )


def _long(chromium: Any, folder: Path, tokens: int) -> dict[str, Any]:
    path = folder / "long.html"
    path.write_text(synthetic(tokens).to_html(), encoding="utf-8")
    shown, hovers, most, opened, whole = [], [], [], [], []
    places = list(range(tokens - ROWS + 1, tokens - ROWS + 1 + HOVERS))
    for _ in range(ROUNDS):
        page = _open(chromium, path)
        shown.append(page.evaluate("globalThis.shown_"))
        opened.append(_memory(page))
        hovers += page.evaluate(HOVER, places)
        page.get_by_label("Heads as").select_option("max")
        page.wait_for_selector('.status:not(:has-text("layer"))')
        page.locator(".scope", has_text="largest").wait_for()
        page.wait_for_timeout(500)
        whole.append(_memory(page))
        # for the first time each, so that nothing is remembered
        most += page.evaluate(HOVER, places)
        page.context.close()
    return {
        "file_mb": path.stat().st_size / 1e6,
        "first_paint_ms": shown,
        "hover_mean_ms": hovers,
        "hover_largest_ms": most,
        "opened_mb": opened,
        "all_layers_mb": whole,
    }


def pictured(rows: int, side: int, *, layers: int = LAYERS, heads: int = HEADS, pixels: int = 1344) -> Reading:
    """A reading of a model that was given a photograph-like picture of side × side patches before its question."""
    random = np.random.default_rng(0)
    question = [" What", " is", " there", "?"]
    answer = [f" word{place}" for place in range(rows)]
    patches = [f"image patch ({row}, {column})" for row in range(side) for column in range(side)]
    pieces = ["<s>", *(f" {patch}" for patch in patches), *question, *answer]
    ends = np.cumsum([0, *map(len, pieces)]).tolist()
    text = "".join(pieces)
    step = pixels / side
    areas: dict[int, ImageArea] = {}
    for place in range(side * side):
        row, column = divmod(place, side)
        areas[1 + place] = ImageArea(0, row, column, column * step, row * step, (column + 1) * step, (row + 1) * step)
    tokens = [
        Token(
            -1 if place in areas else place,
            piece,
            start,
            end,
            [],
            "image patch" if place in areas else "token",
            areas.get(place),
        )
        for place, (piece, (start, end)) in enumerate(zip(pieces, itertools.pairwise(ends), strict=True))
    ]
    keys = len(tokens) - 1
    kept = list(range(keys - rows, keys))
    maps = {}
    for layer in range(layers):
        weights = random.random((heads, rows, keys), dtype=np.float32) ** 12
        maps["decoder", layer] = weights / weights.sum(axis=2, keepdims=True)
    return Reading(
        model="synthetic",
        sequences={"text": Sequence(text, tokens, [])},
        maps=maps,
        checks={key: Check(1e-7, 1e-7, rows) for key in maps},
        settings={"prompt_tokens": keys - rows + 1},
        sides={"decoder": ("text", "text")},
        kept={"decoder": kept},
        media=[_photograph(random, pixels)],
    )


def _photograph(random: np.random.Generator, pixels: int) -> Picture:
    """Clouds of noise at several sizes, as hard to decode as a photograph."""
    image = np.zeros((pixels, pixels, 3))
    for cells in (4, 16, 64, 256):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(noise.resize((pixels, pixels), Image.Resampling.BICUBIC)) / 4
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=90)
    return Picture("clouds.jpg", "image/jpeg", file.getvalue(), pixels, pixels)


def _pictured(chromium: Any, folder: Path) -> dict[str, Any]:
    path = folder / "pictured.html"
    reading = pictured(ROWS, SIDE)
    path.write_text(reading.to_html(), encoding="utf-8")
    first = reading.rows("decoder")[0] + 1
    shown, drawn, hovers, points, most = [], [], [], [], []
    for _ in range(ROUNDS):
        page = _open(chromium, path, PICTURE_SHOWN)
        shown.append(page.evaluate("globalThis.shown_"))
        drawn.append(page.evaluate("globalThis.pictured_"))
        hovers += page.evaluate(HOVER, list(range(first, first + HOVERS)))
        points += page.evaluate(POINT, HOVERS)
        page.get_by_label("Heads as").select_option("max")
        page.wait_for_selector('.status:not(:has-text("layer"))')
        page.locator(".scope", has_text="largest").wait_for()
        page.wait_for_timeout(500)
        most += page.evaluate(HOVER, list(range(first, first + HOVERS)))
        page.context.close()
    return {
        "file_mb": path.stat().st_size / 1e6,
        "first_paint_ms": shown,
        "picture_ms": drawn,
        "hover_mean_ms": hovers,
        "point_ms": points,
        "hover_largest_ms": most,
    }


def _scrolled(chromium: Any, folder: Path, tokens: int) -> dict[str, Any]:
    path = folder / "longest.html"
    path.write_text(synthetic(tokens, layers=2, heads=2, rows=16, top=0).to_html(), encoding="utf-8")
    page = _open(chromium, path)
    shown = page.evaluate("globalThis.shown_")
    intervals = page.evaluate(SCROLL, SCROLL_SECONDS)
    nodes = page.evaluate("document.querySelectorAll('[data-t]').length")
    page.context.close()
    return {"first_paint_ms": [shown], "frame_ms": intervals, "token_nodes": nodes}


def _open(chromium: Any, path: Path, until: str = "globalThis.shown_ !== undefined") -> Page:
    page = chromium.new_context(viewport={"width": 1280, "height": 800}, offline=True).new_page()
    page.set_default_timeout(120_000)
    page.add_init_script(WATCH)
    page.goto(path.as_uri())
    page.wait_for_function(f"() => {until}")
    return page


def _memory(page: Page) -> float:
    """Private megabytes of the process that shows the page, once it has cleaned up."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    title = page.evaluate("performance.now()")
    assert title
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"--type=renderer" in status.read_bytes():
                rollup = (status.parent / "smaps_rollup").read_text()
                lines = (line.split() for line in rollup.splitlines() if line.startswith("Private_"))
                found.append(sum(int(line[1]) for line in lines) / 1e3)
        except OSError:
            # it ended meanwhile, or is another user's
            continue
    return max(found)


def _compared(chromium: Any, folder: Path) -> dict[str, Any]:
    makers = {
        name: Contender(environment(name.lower(), [TORCH, *packages]), "in_pages", name.lower(), threads=1)
        for name, packages in PEERS.items()
    }
    figures: dict[str, Any] = {}
    for length in LENGTHS:
        reading = synthetic(length, layers=4, heads=4, rows=length, top=0)
        reading = dataclasses.replace(reading, settings={})
        paths = {"regard": folder / f"regard-{length}.html"}
        paths["regard"].write_text(reading.to_html(), encoding="utf-8")
        for name, maker in makers.items():
            paths[name] = folder / f"{name}-{length}.html"
            maker.turn(length=length, layers=4, heads=4, path=str(paths[name]))
        for name, path in paths.items():
            figures[f"{name} {length}"] = {
                "mb": path.stat().st_size / 1e6,
                "shown_ms": _shown(chromium, path, name, length),
            }
    for maker in makers.values():
        maker.last()
    return figures


def _shown(chromium: Any, path: Path, name: str, length: int) -> list[float]:
    """From the start of the page to a frame with something drawn, in each of some rounds; none where nothing comes."""
    found = []
    patience = OFFLINE_PATIENCE if name == FETCHES else PATIENCE[length]
    for _ in range(1 if length == LONGEST else ROUNDS):
        page = chromium.new_context(viewport={"width": 1280, "height": 800}, offline=True).new_page()
        page.set_default_timeout(patience)
        try:
            page.goto(path.as_uri(), wait_until="commit")
            page.wait_for_function(DRAWN)
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            found.append(page.evaluate("performance.now()"))
        except Error:
            # no time left, or the page has died of its size
            return []
        finally:
            page.context.close()
    return found


def _write(figures: dict[str, Any]) -> None:
    long, longest = figures["4,096 tokens"], figures["100,000 tokens"]
    seen = figures["4,096 patches"]
    frames = sorted(longest["frame_ms"])
    rate = 1000 / statistics.median(frames)
    rows = [
        [f"4,096 tokens × {LAYERS} layers × {HEADS} heads, file", f"{long['file_mb']:.0f} MB", ""],
        ["first paint after the page has come", report.spread(long["first_paint_ms"], "{:.0f}") + " ms", "1,000 ms"],
        ["hover to recolour, mean of all heads", _percentiles(long["hover_mean_ms"]), "16 ms"],
        ["hover to recolour, largest of all heads", _percentiles(long["hover_largest_ms"]), "16 ms"],
        ["memory of the page when shown", report.spread(long["opened_mb"], "{:.0f}") + " MB", "300 MB"],
        ["memory with every layer unpacked", report.spread(long["all_layers_mb"], "{:.0f}") + " MB", "300 MB"],
        [f"a picture of {SIDE}×{SIDE} patches and {ROWS} rows, file", f"{seen['file_mb']:.0f} MB", ""],
        ["its page: first paint", report.spread(seen["first_paint_ms"], "{:.0f}") + " ms", "1,000 ms"],
        ["its page: the picture under its heat", report.spread(seen["picture_ms"], "{:.0f}") + " ms", "1,000 ms"],
        ["its page: hover over a word to heat, mean of all heads", _percentiles(seen["hover_mean_ms"]), "16 ms"],
        ["its page: hover over a word to heat, largest of all heads", _percentiles(seen["hover_largest_ms"]), "16 ms"],
        ["its page: pointing at a patch to the words that looked", _percentiles(seen["point_ms"]), "16 ms"],
        ["100,000 tokens: first paint", f"{longest['first_paint_ms'][0]:.0f} ms", ""],
        ["100,000 tokens: scrolling", f"{rate:.0f} frames/s, 99 % within {frames[int(0.99 * len(frames))]:.0f} ms", ""],
    ]
    for name, found in figures["peers"].items():
        times = found["shown_ms"]
        peer, length = name.split()
        never = f"in {PATIENCE[int(length)] // 1000} s or dies of its size" if peer != FETCHES else "without a network"
        shown = f"shown after {report.spread(times, '{:.0f}')} ms" if times else f"shows nothing {never}"
        rows.append([f"4 × 4 heads, all rows: {name} tokens", f"{found['mb']:.1f} MB, {shown}", ""])
    report.write(
        "viewing",
        "Looking at readings",
        ["what", "measured", "bound"],
        rows,
        json.loads(json.dumps(figures)),
        f"Chromium without a GPU, at 1,280 × 800. Hover to recolour is the work from the event to the end of the frame "
        f"that shows it, style and layout included: median, 95th percentile and largest of {ROUNDS} × {HOVERS}. Memory "
        "is what the page's process has for itself. Pages of the others are opened without a network too: BertViz's "
        "fetches its libraries from one.",
    )


def _percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    middle, high = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    return f"{middle:.1f} ms, 95 % within {high:.1f}, at most {ordered[-1]:.1f}"
