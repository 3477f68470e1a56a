"""A picture of 4,096 patches in the viewer: how soon it is shown, and how soon its heat follows the pointer."""

import io
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import regard.api  # noqa: F401  it brings what shows a reading
from benchmarks import report
from benchmarks.viewing import HEADS, HOVER, HOVERS, LAYERS, ROUNDS, ROWS, WATCH, open_page, percentiles
from regard.reading.media import ImageArea, Picture
from regard.reading.reading import Reading
from regard.reading.record import Check, Sequence, Token

# patches on a side
SIDE = 64
# when the picture itself is drawn under its heat
DRAWN = """
new MutationObserver((_, observer) => {
  if (!document.querySelector(".picture[data-shown]")) return;
  observer.disconnect();
  ask(() => setTimeout(() => (globalThis.pictured_ = performance.now() - began())));
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
SHOWN = "globalThis.pictured_ !== undefined && globalThis.shown_ !== undefined"
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


def run() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tool:
        chromium = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        figures = measured(chromium, Path(folder))
        chromium.close()
    rows = [
        ["file", f"{figures['file_mb']:.0f} MB", ""],
        ["first paint after the page has come", report.spread(figures["first_paint_ms"], "{:.0f}") + " ms", "1,000 ms"],
        ["the picture under its heat", report.spread(figures["picture_ms"], "{:.0f}") + " ms", "1,000 ms"],
        ["hover over a word to its heat, mean of all heads", percentiles(figures["hover_mean_ms"]), "16 ms"],
        ["hover over a word to its heat, largest of all heads", percentiles(figures["hover_largest_ms"]), "16 ms"],
        ["pointing at a patch to the words that looked there", percentiles(figures["point_ms"]), "16 ms"],
    ]
    report.write(
        "viewing-pictures",
        "Looking at a picture",
        ["what", "measured", "bound"],
        rows,
        json.loads(json.dumps(figures)),
        f"A picture of 1,344 × 1,344 pixels in {SIDE}×{SIDE} patches before a question, {ROWS} rows of {LAYERS} layers "
        f"× {HEADS} heads, as one HTML file. Chromium without a GPU, at 1,280 × 800. Hover is the work from the event "
        "to the end of the frame that shows it, style and layout included: median, 95th percentile and largest of "
        f"{ROUNDS} × {HOVERS}. The machine's load, which is 0 when nothing runs, was {os.getloadavg()[0]:.1f}.",
    )


def measured(chromium: Any, folder: Path) -> dict[str, Any]:
    path = folder / "pictured.html"
    reading = pictured(ROWS, SIDE)
    path.write_text(reading.to_html(), encoding="utf-8")
    first = reading.rows("decoder")[0] + 1
    words = list(range(first, first + HOVERS))
    figures: dict[str, Any] = {"file_mb": path.stat().st_size / 1e6}
    names = ("first_paint_ms", "picture_ms", "hover_mean_ms", "point_ms", "hover_largest_ms")
    figures |= {name: [] for name in names}
    for _ in range(ROUNDS):
        page = open_page(chromium, path, SHOWN, WATCH + DRAWN)
        figures["first_paint_ms"].append(page.evaluate("globalThis.shown_"))
        figures["picture_ms"].append(page.evaluate("globalThis.pictured_"))
        figures["hover_mean_ms"] += page.evaluate(HOVER, words)
        figures["point_ms"] += page.evaluate(POINT, HOVERS)
        page.get_by_label("Heads as").select_option("max")
        page.wait_for_selector('.status:not(:has-text("layer"))')
        page.locator(".scope", has_text="largest").wait_for()
        page.wait_for_timeout(500)
        figures["hover_largest_ms"] += page.evaluate(HOVER, words)
        page.context.close()
    return figures


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
