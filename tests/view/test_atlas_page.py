"""The page of an atlas in a real browser: every number is the atlas's own, and every head can be reached."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import regard.api
from regard.data.words import word_spans
from regard.reading.atlas import Atlas
from regard.reading.atlas_difference import AtlasDifference
from regard.reading.measures import MEASURES
from regard.reading.tally import PromptRows, Tally
from regard.view.atlas_page import atlas_html, document
from regard.view.html import page as html_page

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
CHANCE = {"share": 0.1, "nats": 1.0, "tokens": 3.0}
TEXTS = [
    "the cat saw the cat on the mat",
    "一 只 𠮷 猫 看见 了 另 一只",
    "قطة <script>window.x=1</script> رأت 😀 قطة على سجادة ثم",
]


def rows_of(text, place, layers, heads, seed, refused=None):
    """What a prompt gives where heads are as random as they can be; by name heads 1 to 3 are local or segment."""
    random = np.random.default_rng([seed, place])
    spans = word_spans(text)
    queries = len(spans)
    values, strongest = {}, {}
    for layer in range(layers):
        if layer in (refused or {}):
            continue
        shares = random.beta(0.5, 1.5, size=(len(MEASURES), heads, queries)).astype(np.float32)
        shares[list(MEASURES).index("own_segment"), 2:] = 0.9
        shares[list(MEASURES).index("local"), 1:3] = 0.8
        scales = {"share": 1, "nats": 3, "tokens": 9}
        values[layer] = {name: shares[at] * scales[each.unit] for at, (name, each) in enumerate(MEASURES.items())}
        positions = random.integers(0, queries, size=(heads, queries, 3))
        strongest[layer] = positions, np.broadcast_to(np.array([0.5, 0.25, 0.125], np.float32), positions.shape)
    return PromptRows(
        id=f"text-{place}",
        place=place,
        text=text,
        spans=spans,
        shapes=dict.fromkeys(range(layers), heads),
        values=values,
        strongest=strongest,
        chance={name: np.full(queries, CHANCE[each.unit]) for name, each in MEASURES.items()},
        refused=refused or {},
    )


def atlas_of(layers=3, heads=4, *, seed=1, texts=TEXTS, model="by hand", refused=None, effects=False):
    tally = Tally(list(range(layers)), [heads] * layers, cut=1)
    for place, text in enumerate(texts):
        # refused in all texts but the first
        tally.add(rows_of(text, place, layers, heads, seed, refused if place else None))
    if effects:
        tally.effects[0] = np.random.default_rng(seed).normal(-0.2, 0.4, size=(layers, heads))
    return Atlas(model, "decoder", tally, {"max_tokens": 8, "segments": "sentences"})


@pytest.fixture(scope="module")
def atlas():
    return atlas_of(effects=True)


def share(value):
    percents = 100 * round(float(value), 5)
    if 0 < percents < 0.005:
        return "< 0.01 %"
    return f"{percents:.1f} %" if percents >= 1 or percents == 0 else f"{percents:.2f} %"


def plain(value):
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def value_of(name, value):
    return share(value) if MEASURES[name].unit == "share" else plain(round(float(value), 5))


def chosen(page):
    return page.locator("#atlas-head").inner_text()


def listed(page):
    return page.locator(".list a").all_inner_texts()


def order(table, count=10):
    places = sorted(np.ndindex(table.shape), key=lambda place: -table[place])
    return [f"{layer}.{head}" for layer, head in places[:count]]


def test_all_numbers_of_a_head_are_the_atlas_own(show, atlas):
    page = show(atlas.to_html())
    tokens = sum(len(word_spans(text)) for text in TEXTS)
    assert page.locator("h1").inner_text() == "What each head of by hand does"
    assert page.locator(".intro p").first.inner_text() == (
        f"Measured over 3 texts with {tokens} tokens; 1 was cut to 8 tokens. 3 layers × 4 heads"
    )
    assert listed(page) == order(atlas.mean("prefix_matching"))
    layer, head = map(int, listed(page)[0].split("."))
    assert chosen(page) == f"Layer {layer}, head {head}"
    rows = page.locator(".measures tbody tr").all()
    for row, name in zip(rows, MEASURES, strict=True):
        mean, _, chance = row.locator("td:not(.drawn)").all()
        low, high = (value_of(name, table[layer, head]) for table in atlas.interval(name))
        assert mean.locator("b").inner_text() == value_of(name, atlas.mean(name)[layer, head])
        assert mean.locator("small").inner_text() == f"{low.replace(' %', '')} – {high}"
        assert chance.inner_text() == value_of(name, atlas.chance(name)[layer])
        if MEASURES[name].unit == "share":
            quantiles = " · ".join(f"{100 * atlas.quantile(name, q)[layer, head]:.0f}" for q in (0.1, 0.5, 0.9))
            assert row.locator("td").nth(2).inner_text() == f"{quantiles} %"


def test_every_measure_can_be_chosen_and_is_explained(show, atlas):
    page = show(atlas.to_html())
    for name, measure in MEASURES.items():
        page.get_by_label("Colour by").select_option(name)
        assert page.locator(".tools .note").inner_text() == " · ".join(filter(None, (measure.meaning, measure.source)))
        assert listed(page) == order(atlas.mean(name))


def test_the_legend_counts_roles_and_lights_their_heads(show, atlas):
    page = show(atlas.to_html())
    page.get_by_label("Colour by").select_option("roles")
    roles = [name for name, measure in MEASURES.items() if measure.role]
    without = sum(not named for row in atlas.roles() for named in row)
    counts = page.locator(".legend b").all_inner_texts()
    assert counts == [*(str(len(atlas.heads(name))) for name in roles), str(without)]
    before = page.locator(".map").evaluate("canvas => canvas.toDataURL()")
    for name in ("own_segment", "local"):
        page.locator(".legend button", has_text=MEASURES[name].role).click()
        assert listed(page) == [f"{layer}.{head}" for layer, head in atlas.heads(name, 10)]
        assert page.locator('.legend [aria-pressed="true"]').count() == 1
    assert page.locator(".map").evaluate("canvas => canvas.toDataURL()") != before
    page.locator('.legend [aria-pressed="true"]').click()
    assert page.locator(".map").evaluate("canvas => canvas.toDataURL()") == before


def test_a_head_is_reached_by_address_by_link_by_click_and_by_keys(show, atlas):
    page = show(atlas.to_html())
    page.goto(f"{page.url}#2.3")
    page.reload()
    page.wait_for_selector('[data-ready="true"]')
    assert chosen(page) == "Layer 2, head 3"
    page.locator(".list a").nth(1).click()
    layer, head = listed(page)[1].split(".")
    page.locator("#atlas-head", has_text=f"Layer {layer}, head {head}").wait_for()
    assert page.locator('.list [aria-current="true"]').all_inner_texts() == [f"{layer}.{head}"]
    page.go_back()
    page.locator("#atlas-head", has_text="Layer 2, head 3").wait_for()
    page.locator(".map").focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert page.locator("#atlas-readout").inner_text().startswith("Layer 1, head 1: ")
    page.keyboard.press("Enter")
    page.locator("#atlas-head", has_text="Layer 1, head 1").wait_for()
    assert page.url.endswith("#1.1")
    page.locator(".map").click(position={"x": 26 + 5, "y": 5})
    page.locator("#atlas-head", has_text="Layer 0, head 0").wait_for()
    # what is no head changes nothing
    page.evaluate("location.hash = '#9.9'")
    page.locator(".map").hover()
    assert chosen(page) == "Layer 0, head 0"


def test_examples_mark_the_very_tokens_in_any_script(show, atlas):
    page = show(atlas.to_html())
    seen = set()
    for layer in range(3):
        for head in range(4):
            page.evaluate(f"location.hash = '#{layer}.{head}'")
            page.locator("#atlas-head", has_text=f"Layer {layer}, head {head}").wait_for()
            quotes = page.locator("blockquote").all()
            wanted = [each for name in atlas.nearest(layer, head)[:2] for each in atlas.examples(layer, head, name)]
            assert len(quotes) == len(wanted) > 0
            for quote, example in zip(quotes, wanted, strict=True):
                assert quote.text_content() == example.text
                assert "".join(quote.locator(".row").all_text_contents()) == example.text[slice(*example.row)]
                keys = {example.text[first:last] for first, last, _ in example.keys}
                assert set(quote.locator("mark").all_text_contents()) == keys
                seen.add(example.id)
    assert seen == {"text-0", "text-1", "text-2"}
    assert page.evaluate("window.x") is None


def test_effects_and_changes_are_shown_with_their_signs(show, atlas):
    after = atlas_of(seed=2, model="<b>after", effects=True)
    difference = AtlasDifference(atlas, after)
    page = show(atlas_html(after, difference=difference))
    assert page.locator("h1").inner_text() == "What each head of <b>after does"
    assert "Compared with by hand, over the same texts." in page.locator(".intro").inner_text()
    mean = after.effects.mean
    page.get_by_label("Colour by").select_option("effect")
    assert listed(page) == [f"{layer}.{head}" for layer, head in after.effects.strongest(10) if mean[layer, head] < 0]
    assert page.locator(".list b").first.inner_text().startswith("−")
    for name in MEASURES:
        page.get_by_label("Colour by").select_option(f"change:{name}")
        wanted = [f"{change.layer}.{change.head}" for change in difference.strongest(10, name)]
        assert listed(page) == wanted
    layer, head = map(int, chosen(page).replace("Layer ", "").split(", head "))
    sure = [(low[layer, head] > 0 or high[layer, head] < 0) for low, high in map(difference.interval, MEASURES)]
    assert [
        row.locator("td").last.get_attribute("class") == "is-sure" for row in page.locator("tbody tr").all()
    ] == sure


def test_refused_layers_are_told_and_have_no_numbers(show):
    page = show(atlas_of(refused={1: "it is linear <i>attention"}).to_html())
    assert page.locator(".refused").inner_text() == (
        "Layer 1 was not measured: it is linear <i>attention (in 2 of 3 prompts)"
    )


def test_language_and_theme_are_the_readers_and_everything_is_named(show, atlas):
    page = show(atlas.to_html(), locale="zh-CN", theme="dark")
    root = page.locator(".regard-view")
    assert page.locator("h1").inner_text() == "by hand 的每个头做什么"
    assert (root.get_attribute("lang"), root.get_attribute("data-theme")) == ("zh-Hans", "dark")
    page.get_by_label("主题").focus()
    page.get_by_label("主题").select_option("light")
    page.wait_for_selector('.regard-view[data-theme="light"]')
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "主题"
    for found in page.locator("button, select, canvas, nav, [tabindex='0']").all():
        assert found.evaluate("node => node.getAttribute('aria-label') || node.textContent.trim()")
    assert page.locator("[aria-live]").count() == 2
    identifiers = page.locator("[id]").evaluate_all("nodes => nodes.map(node => node.id)")
    for attribute in ("aria-describedby", "aria-labelledby"):
        for found in page.locator(f"[{attribute}]").all():
            assert found.get_attribute(attribute) in identifiers


def test_every_word_of_one_language_is_there_in_the_other():
    source = (Path(regard.api.__file__).parent / "view" / "page" / "atlas_words.js").read_text(encoding="utf-8")
    english, chinese = source.split("\n  zh: {")
    names = [re.findall(r"^ {4}(\w+):", part, re.MULTILINE) for part in (english, chinese)]
    assert names[0] == names[1]
    named = [re.findall(r"^ {6}(\w+):", part.split("    does: {")[1], re.MULTILINE) for part in (english, chinese)]
    roles = [name for name, measure in MEASURES.items() if measure.role]
    assert sorted(named[0]) == sorted(roles)
    assert sorted(named[1]) == sorted([*roles, *MEASURES])


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_its_window(show, atlas, size, theme, language):
    width, height = SIZES[size]
    difference = AtlasDifference(atlas_of(seed=3), atlas)
    html = atlas_html(atlas, language, difference=difference)
    page = show(html, width=width, height=height, theme=theme)
    page.locator(".tools select").select_option("roles" if language == "en" else "change:local")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"atlas-{size}-{theme}-{language}.png", full_page=True)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_model_of_five_thousand_heads_fits_too(show, atlas):
    made = document(atlas)
    tile = [[(layer % 3, head % 4) for head in range(64)] for layer in range(80)]
    made |= {
        "layers": list(range(80)),
        "heads": [64] * 80,
        "roles": [[made["roles"][a][b] for a, b in row] for row in tile],
    }
    del made["effects"]
    for measure in made["measures"].values():
        for name in ("mean", "low", "high", "q10", "q50", "q90"):
            measure[name] = [[measure[name][a][b] for a, b in row] for row in tile]
        measure["chance"] = [measure["chance"][0]] * 80
    found = made["examples"]
    made["examples"] = {
        f"{layer}.{head}": found[f"{layer % 3}.{head % 4}"] for layer in range(80) for head in range(64)
    }
    page = show(html_page("large", made, {}, lang=None), width=390, height=844)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert "80 layers × 64 heads" in page.locator(".intro").inner_text()
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert json.loads(page.evaluate("JSON.stringify(document.querySelectorAll('*').length)")) < 600
