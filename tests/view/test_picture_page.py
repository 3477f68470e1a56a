"""Pictures in a real browser: the heat is what the reading holds, and what is pointed at lights who looked."""

import base64
import dataclasses
import io
import re
import zlib

import numpy as np
import pytest
from tests.view import pictured

from regard.errors import RegardError
from regard.view import wire
from regard.view.pictures import looks, pictures

Image = pytest.importorskip("PIL.Image")
# the page's colours of heat: how much of the picture they cover, from no weight to the largest
COVERS = (0, 0.55, 0.78, 0.88)


def told(value):
    percents = 100 * value
    return f"{percents:.1f} %" if percents >= 1 or percents == 0 else f"{percents:.2f} %"


def settle(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def opened(show, reading, **how):
    page = show(reading, **how)
    page.locator(".picture[data-shown]").wait_for()
    return page


def layer(page, name):
    """One of the canvases that lie over each other: [y, x, red green blue cover]."""
    settle(page)
    link = page.locator(f".picture .{name}").evaluate("(canvas) => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))).convert("RGBA"))


def pixel(page, name, x, y):
    """A place of the picture, from 0 to 1 both ways."""
    image = layer(page, name)
    return image[int(y * len(image)), int(x * image.shape[1])].tolist()


def at(page, x, y):
    """A place of the picture on the page."""
    box = page.locator(".picture").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def written(page, number):
    return page.locator('[data-spine="output"] .t').nth(number)


def shades(page):
    """How dark each written token is."""
    settle(page)
    colours = page.locator('[data-spine="output"] .t').evaluate_all(
        "nodes => nodes.map((node) => getComputedStyle(node).backgroundColor)"
    )
    numbers = [[float(part) for part in re.findall(r"[\d.]+", colour)] for colour in colours]
    return np.array([0 if len(each) > 3 and each[3] == 0 else 765 - sum(each[:3]) for each in numbers])


def readout(page):
    settle(page)
    return page.locator(".picture-foot .readout").inner_text()


def assert_heat(page, heat):
    """The middle of every cell is covered as its density asks for."""
    top, image = heat.density.max(), layer(page, "heat")
    for row, column in np.ndindex(heat.density.shape):
        x = heat.xs[column : column + 2].mean() / heat.picture.width
        y = heat.ys[row : row + 2].mean() / heat.picture.height
        expected = 255 * np.interp(heat.density[row, column] / top, np.linspace(0, 1, 4), COVERS)
        # a step of 255 and a rounded pixel
        assert image[int(y * len(image)), int(x * image.shape[1]), 3] == pytest.approx(expected, abs=2.5)
    assert page.locator(".picture-foot .tick").nth(1).inner_text() == told(top)
    assert page.locator(".pictures .panel-head b").nth(heat.number).inner_text() == told(heat.share)


def test_the_picture_is_under_the_heat_of_the_whole_answer(show):
    reading = pictured.asked()
    page = opened(show, reading)
    (heat,) = looks(reading).heats
    assert_heat(page, heat)
    red, green, blue, _ = pixel(page, "photo", 0.25, 0.3)
    assert red > 180
    assert max(green, blue) < 60
    assert page.locator(".pictures .panel-head .readout").inner_text() == (
        f"drawn.png · 120 × 80 pixels, {max(1, round(len(reading.media[0].data) / 1e3))} kB · 4×6 patches"
    )
    shares = dict(looks(reading).shares)
    assert f"{told(shares['image 1'])} image 1" in page.locator(".balance li").all_inner_texts()
    assert f"{told(shares['text'])} prompt" in page.locator(".balance li").all_inner_texts()


def test_over_a_word_the_heat_is_its_own(show):
    reading = pictured.asked()
    page = opened(show, reading)
    for number in (0, 2, 5):
        written(page, number).hover()
        (heat,) = looks(reading, token=str(number)).heats
        assert_heat(page, heat)


def test_of_one_head_the_heat_is_that_head_s(show):
    reading = pictured.asked()
    page = opened(show, reading)
    page.locator(".map").focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.locator(".scope", has_text="layer 1, head 0").wait_for()
    written(page, 2).click()
    page.wait_for_timeout(100)
    (heat,) = looks(reading, layer=1, head=0, token="2").heats
    assert pixel(page, "heat", 0.25, 0.375)[3] == pytest.approx(0.88 * 255, abs=2)
    shown = page.locator(".pictures .panel-head b").inner_text()
    # a file has the weights of single heads as one byte each
    assert float(shown.removesuffix(" %")) == pytest.approx(100 * heat.share, rel=wire.ROUNDING)


def test_tiles_and_thumbnail_are_added_and_a_second_picture_is_a_tab_away(show):
    reading = pictured.tiled()
    page = opened(show, reading)
    first, second = looks(reading).heats
    assert_heat(page, first)
    assert "weight of 267 pixels" in page.locator(".picture-foot .scale").inner_text()
    page.locator(".pictures .tab", has_text="image 2").click()
    page.locator('.picture[data-shown="1"]').wait_for()
    assert_heat(page, second)
    box = page.locator(".picture").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(0.6, abs=0.02)


def test_a_place_that_is_pointed_at_lights_the_words_that_looked_there(show):
    reading = pictured.asked()
    page = opened(show, reading)
    # row 1 and column 1, which “red” and “disc” look at
    page.mouse.move(*at(page, 0.25, 0.375))
    patch = 2 + 7
    weights = np.concatenate([*reading.maps.values()])[:, :, patch].mean(0)
    found = shades(page)
    assert np.argsort(found)[-2:].tolist() == np.argsort(weights)[-2:].tolist()
    assert "who looked at “image 1, patch (1, 1)”" in page.locator(".summary").inner_text().lower()
    whole = looks(reading).heats[0].density[1, 1]
    assert readout(page) == f"image 1, patch (1, 1) · {told(whole)} · most by “disc”: {told(weights.max())}"
    page.locator("h1").hover()
    assert shades(page)[1] != found[1]


def test_a_rectangle_is_marked_and_let_go(show):
    reading = pictured.asked()
    page = opened(show, reading)
    page.mouse.move(*at(page, 0.52, 0.52))
    page.mouse.down()
    page.mouse.move(*at(page, 0.98, 0.98), steps=4)
    page.mouse.up()
    page.locator("h1").hover()
    marked = [2 + 6 * row + column for row in (2, 3) for column in (3, 4, 5)]
    weights = np.concatenate([*reading.maps.values()])[:, :, marked].sum(2).mean(0)
    assert readout(page).startswith(f"6 patches of image 1 · {told(weights.mean())}")
    listed = page.locator(".summary ol").nth(1).locator("b").all_inner_texts()
    assert listed == [told(weight) for weight in sorted(weights, reverse=True)]
    page.keyboard.press("Escape")
    settle(page)
    assert page.locator(".summary ol").count() == 1
    for _ in range(2):
        page.mouse.click(*at(page, 0.9, 0.9))
    page.locator("h1").hover()
    settle(page)
    assert page.locator(".summary ol").count() == 1


def test_the_keyboard_walks_over_the_patches_and_marks_one(show):
    page = opened(show, pictured.asked())
    page.locator(".picture").focus()
    for key, name in [
        ("ArrowRight", "(0, 0)"),
        ("ArrowRight", "(0, 1)"),
        ("ArrowDown", "(1, 1)"),
        ("ArrowLeft", "(1, 0)"),
    ]:
        page.keyboard.press(key)
        assert f"patch {name}" in readout(page)
    page.keyboard.press("Enter")
    page.locator("h1").hover()
    page.keyboard.press("Tab")
    assert "patch (1, 0)" in readout(page)
    assert "image 1: Point at a place" in page.locator(".picture").get_attribute("aria-label")


def test_a_patch_in_the_list_is_marked_in_its_picture(show):
    reading = pictured.tiled()
    page = opened(show, reading)
    page.locator(".summary .name", has_text="image 2, patch (0, 0)").click()
    page.locator('.picture[data-shown="1"]').wait_for()
    assert page.locator(".summary h2").nth(1).inner_text() == "Who looked at “image 2, patch (0, 0)”"
    # a corner of the patch at the upper left of 5 × 3, outlined
    assert pixel(page, "marks", 0.005, 0.1)[3] > 0
    page.locator(".picture").focus()
    page.keyboard.press("Escape")
    assert pixel(page, "marks", 0.005, 0.1)[3] == 0


def test_in_the_text_a_picture_is_one_piece_and_a_click_marks_all_of_it(show):
    reading = pictured.tiled()
    page = opened(show, reading)
    pieces = page.locator('[data-spine="input"] .t')
    assert pieces.all_inner_texts()[2] == "image 1 · 40 patches"
    assert not any("image patch" in text for text in pieces.all_inner_texts())
    pieces.nth(2).click()
    page.locator("h1").hover()
    assert "Who looked at “image 1 · 40 patches”" in page.locator(".summary").inner_text()
    listed = page.locator(".summary ol").nth(1).locator("b").first.inner_text()
    assert listed == told(np.concatenate([*reading.maps.values()])[:, :, 2:42].sum(2).mean(0).max())
    # the browser's own search has nothing of the patches' names, nor has the page's
    page.keyboard.press("/")
    page.keyboard.type("patch")
    assert page.locator(".find .count").inner_text() == "not found"


@pytest.mark.parametrize("has_turns", [True, False])
def test_a_chat_tells_the_role_of_a_message_with_pictures_once(show, has_turns):
    page = opened(show, pictured.chatted(has_turns=has_turns))
    pieces = page.locator('[data-spine="input"] .t').all_inner_texts()
    names = ["image 1 · 2×3 patches", "⋯", "image 2 · 3×2 patches", "⋯"]
    reading = pictured.chatted(has_turns=has_turns)
    folded = [place for place in range(23) if place not in (*range(2, 8), *range(9, 15), *range(16, 20))]
    weights = np.concatenate([*reading.maps.values()])[:, :, folded[1:]].sum(2).mean()
    assert f"{told(weights)} template" in page.locator(".balance li").all_inner_texts()
    assert [piece.strip() for piece in pieces] == ["user", *names, "What", "is", "red", "?", "assistant"]


def test_a_patch_of_an_image_encoder_shows_what_it_looked_at(show):
    reading = pictured.seen()
    page = opened(show, reading)
    # the patches are 16 pixels of 120 × 80, from 20 on
    page.mouse.move(*at(page, 28 / 120, 24 / 80))
    settle(page)
    assert page.locator(".summary h2").first.inner_text() == "What “image 1, patch (1, 0)” looked at"
    own = np.concatenate([*reading.maps.values()])[:, 3 + 5].mean(0)
    assert page.locator(".pictures .panel-head b").inner_text() == told(own[3:].sum())
    assert pixel(page, "heat", 5 / 120, 0.5)[3] == 0
    balance = page.locator(".balance li").all_inner_texts()
    assert balance == [
        f"{told(own[3:].sum())} image 1",
        f"{told(own[0])} class token",
        f"{told(own[1:3].sum())} registers",
    ]
    page.mouse.down()
    page.mouse.up()
    page.locator("h1").hover()
    assert page.locator(".summary h2").first.inner_text() == "What “image 1, patch (1, 0)” looked at"


def test_text_that_looks_at_a_picture_beside_it(show):
    reading = pictured.crossed()
    page = opened(show, reading)
    assert_heat(page, looks(reading).heats[0])
    headings = page.locator(".part-head h2").all_inner_texts()
    assert headings == ["Image", "Text"]


def test_edges_and_the_strength_of_the_heat(show):
    page = opened(show, pictured.asked())
    assert pixel(page, "edges", 1 / 6, 0.4)[3] == 0
    page.get_by_label("patches’ edges").check()
    settle(page)
    line = layer(page, "edges")[3, :, 3]
    assert {round(6 * place / len(line)) for place in np.nonzero(line)[0]} == set(range(7))
    page.get_by_role("slider", name="heat").fill("0")
    assert page.locator(".picture .heat").evaluate("node => node.style.opacity") == "0"
    assert page.locator(".picture .photo").evaluate("node => node.style.filter") == "grayscale(0)"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_chinese_fits_its_window(show, width, theme):
    page = opened(show, pictured.tiled(), width=width, theme=theme, lang="zh")
    assert "图 1" in page.locator(".pictures .panel-head").inner_text()
    assert page.locator('[data-spine="input"] .is-fold').first.inner_text() == "图 1 · 40 个图块"
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_picture_that_is_damaged_is_said_and_its_heat_stays(show):
    reading = pictured.asked()
    picture = dataclasses.replace(reading.media[0], data=b"no picture at all")
    page = show(dataclasses.replace(reading, media=[picture]))
    page.locator(".picture-foot .readout", has_text="cannot be shown").wait_for()
    assert_heat(page, looks(reading).heats[0])


def test_the_file_holds_the_picture_and_a_viewer_asks_for_it():
    reading = pictured.tiled()
    text = reading.to_html()
    for number, picture in enumerate(reading.media):
        (block,) = re.findall(rf'id="reading.medium.{number}">([^<]*)<', text)
        assert zlib.decompress(base64.b64decode(block)) == picture.data
        asked = {"type": "medium", "number": number}
        assert wire.answer(reading, asked) == (asked, [picture.data])
    facts = wire.header(reading)["media"]
    assert [(each["sort"], each["width"], each["bytes"]) for each in facts] == [
        ("image", picture.width, len(picture.data)) for picture in pictures(reading)
    ]
    with pytest.raises(RegardError, match="medium"):
        wire.answer(reading, {"type": "medium", "number": 2})


def test_a_reading_without_pictures_has_no_word_of_them(dogs):
    header = wire.header(dogs)
    assert "media" not in header
    assert not {"areas", "folds", "sorts"} & header["sequences"]["text"].keys()
