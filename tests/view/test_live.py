"""The live page from disk, without a network: what a reader does on it, and what it says."""

import re
from pathlib import Path

import pytest
from tests.view.live_models import build

import regard.view

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
AXE = Path(regard.view.__file__).parent / "page" / "node_modules" / "axe-core" / "axe.min.js"
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
LONG = "999,888,777,666,555"


def fill(page, value):
    page.locator("#number").fill(value)


def slide(page, name, value):
    """Set a slider, as dragging it does."""
    page.get_by_label(name, exact=True).evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", value
    )


def test_the_page_is_what_is_made_of_the_committed_weights():
    assert build.PAGE.read_text(encoding="utf-8") == build.site()


def test_the_page_is_small_and_names_no_address():
    page = build.PAGE.read_bytes()
    assert len(page) <= 4_000_000
    text = re.sub(r"base64\" id=\"[^\"]*\">[^<]*", "", page.decode())
    assert not re.findall(r"<(?:link|img|iframe|object|embed|base)\b|\bsrc=|@import|url\(", text)
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|innerHTML|\beval\(", text)
    assert "unsafe" not in text.split("</head>")[0]


def test_every_model_has_a_card_with_its_recipe_and_seed():
    for name, (recipe, changes) in build.MODELS.items():
        card = build.weights_path(name).with_suffix(".md").read_text(encoding="utf-8")
        assert f"# {recipe}" in card
        assert f"steps = {changes['train.steps']}" in card
        assert f"seed = {build.SEED}" in card
        assert "## In 8 bits" in card


def test_attention_translates_a_long_number_that_the_rnn_loses(live):
    fill(live, LONG)
    verdicts = live.locator(".verdict").all_inner_texts()
    assert [verdict[0] for verdict in verdicts] == ["✗", "✓", "✓"]
    assert live.locator(".card").nth(0).locator("mark").count() > 0
    assert live.locator(".card").nth(1).locator("mark").count() == 0
    live.wait_for_function(
        "() => ![...document.querySelectorAll('.digits td')].some((cell) => cell.textContent === '·')"
    )
    rnn, attention = (live.locator(".digits tbody tr").nth(row).locator("td").all_inner_texts() for row in (0, 1))
    assert len(rnn) == 15
    assert "✗" not in rnn[:10]
    assert rnn[-1] == "✗"
    assert attention[-1] == "✓"


def test_words_are_taken_as_digits_are_and_what_cannot_be_read_is_said(live):
    fill(live, "two hundred and six")
    assert live.locator(".card .translation").all_inner_texts() == ["deux cent six"] * 3
    fill(live, "206")
    assert live.locator(".source").inner_text() == "two hundred and six"
    fill(live, "1234567890123456")
    assert "at most 15 digits" in live.locator("#translate .fault").inner_text()
    fill(live, "")
    assert "Type a number" in live.locator("#translate .fault").inner_text()
    fill(live, "a purple cow")
    assert live.locator("#translate .fault").is_hidden()
    assert "cannot say which words are right" in live.locator(".reference").inner_text()
    fill(live, "é" * 160)
    assert "longer than the models can read" in live.locator("#translate .fault").inner_text()


def test_a_weight_that_is_put_to_zero_changes_the_translation_and_can_be_undone(live):
    fill(live, "206")
    live.evaluate("() => regard.search.go(0)")
    before, after = live.locator(".versions dd").nth(0), live.locator(".versions dd").nth(1)
    assert before.inner_text() == after.inner_text() == "deux cent six"
    slide(live, "weight of two at this step", 0)
    assert before.inner_text() == "deux cent six"
    assert not after.inner_text().startswith("deux")
    weights = live.locator("#search tbody tr td:nth-child(3)").all_inner_texts()
    assert weights[0] == "0.0000"
    assert sum(map(float, weights)) == pytest.approx(1, abs=1e-3)
    live.get_by_role("button", name="Undo my changes").click()
    assert after.inner_text() == "deux cent six"
    live.get_by_label("hide two at every step").check()
    assert "deux" not in after.inner_text()
    live.get_by_role("button", name="Undo my changes").click()


def test_the_soft_search_is_stepped_through_by_keyboard(live):
    fill(live, "1984")
    slider = live.get_by_label("Step of the translation").first
    slider.focus()
    told = [live.locator("#search .told").inner_text()]
    for _ in range(2):
        live.keyboard.press("ArrowRight")
        told.append(live.locator("#search .told").inner_text())
    places = [int(text.split()[1]) for text in told]
    assert places == [places[0], places[0] + 1, places[0] + 2]
    assert slider.get_attribute("aria-valuetext") == told[-1]
    score, softmax = (live.locator("#search .hand").nth(line).inner_text() for line in (0, 1))
    assert score.startswith("score(")
    assert re.search(r"= e\^.* = 0\.\d{4}$", softmax)


def test_numbers_follow_an_embedding_that_is_changed(live):
    live.locator("#words").fill("Your journey starts with one step")
    first = live.locator("#self .matrix").nth(1).locator("tbody tr").nth(0).locator("td").nth(0)
    assert first.inner_text() == "0.9995"
    live.get_by_label("Your, 1", exact=True).fill("1")
    # 1 + 0.15² + 0.89²
    assert first.inner_text() == f"{1 + 0.15**2 + 0.89**2:.4f}"
    live.locator("#words").fill("")
    assert "at least one word" in live.locator("#self .fault").inner_text()


def test_the_gpt_writes_and_shows_what_it_looked_at(live):
    live.locator("#prompt").fill("Emma ")
    written = live.locator(".written")
    live.get_by_role("button", name="One letter").click()
    assert len(written.inner_text()) == len("▸Emma ") + 1
    live.get_by_role("button", name="Write", exact=True).click()
    live.wait_for_function("() => document.querySelector('.written').textContent.length > 30")
    live.get_by_role("button", name="Pause").click()
    stopped = written.inner_text()
    assert stopped.startswith("▸Emma ")
    live.locator(".written span").nth(3).click()
    shaded = live.locator(".written span").evaluate_all("spans => spans.map((span) => Boolean(span.style.background))")
    assert any(shaded[:3])
    assert not any(shaded[3:])
    assert "“m”" in live.locator("#write .told").inner_text()


def test_the_gpt_writes_on_past_its_context(live):
    most = live.evaluate("() => regard.model('gpt').config.max_length")
    live.evaluate("(count) => { for (let letter = 0; letter < count; letter++) regard.write.write(); }", most + 10)
    assert live.evaluate("() => regard.write.letters.length") > most
    assert live.evaluate("() => regard.write.letters.at(-1).heads[0][0].length") <= most


def test_exercises_check_and_hint(live):
    fill(live, "7")
    answers = {"vector": "512", "additive": "1.93", "scale": "3", "mask": "0,27", "merge": "192"}
    for name, answer in answers.items():
        box = live.locator(f"[aria-labelledby=exercise-{name}]")
        box.locator("input").fill("17")
        box.get_by_role("button", name="Check").click()
        assert box.locator(".feedback").inner_text().startswith("✗")
        box.locator("input").fill(answer)
        box.locator("input").press("Enter")
        assert box.locator(".feedback").inner_text().startswith("✓"), name
        assert box.locator(".hint").is_hidden()
        box.get_by_role("button", name="Hint").click()
        assert box.locator(".hint").is_visible()


def test_all_is_said_in_chinese_and_kept(live):
    fill(live, "42")
    live.locator("#words").fill("six words of my own here")
    live.locator(".looks select").first.select_option("zh")
    assert live.locator("html").get_attribute("lang") == "zh-Hans"
    assert live.locator("h1").inner_text() == "为什么需要注意力？看它如何工作"
    assert live.locator("#number").input_value() == "42"
    assert live.locator(".card .translation").all_inner_texts() == ["quarante-deux"] * 3
    assert live.locator("#words").input_value() == "six words of my own here"
    assert live.locator("#self td").count() > 100
    live.locator(".looks select").first.select_option("en")


def test_both_languages_say_the_same_things(live):
    shapes = live.evaluate(
        """() => {
          const entries = (value) => Object.entries(value).map(([key, inside]) => [key, shape(inside)]);
          const shape = (value) => typeof value === "object" ? entries(value) : typeof value;
          return regard.languages.map(shape);
        }"""
    )
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_overflows(open_live, size, theme, lang):
    page = open_live(*SIZES[size], theme=theme, locale={"en": "en-US", "zh": "zh-CN"}[lang])
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"live-{size}-{theme}-{lang}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]


@pytest.mark.parametrize(("size", "theme", "locale"), [("wide", "light", "en-US"), ("narrow", "dark", "zh-CN")])
def test_axe_finds_no_serious_fault(open_live, size, theme, locale):
    if not AXE.is_file():
        pytest.skip("there is no axe-core: npm install --no-package-lock in src/regard/view/page/")
    page = open_live(*SIZES[size], theme=theme, locale=locale)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run()")
    faults = [
        (fault["id"], fault["impact"], [node["html"][:120] for node in fault["nodes"][:3]])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert faults == []
