"""The viewer in a real browser, from disk and without a network: what the page says is what the reading holds."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import regard.api
from regard.data.words import word_spans
from regard.reading.labels import placed
from regard.reading.reading import Reading
from regard.reading.record import Check
from regard.view import wire
from regard.view.html import asset, demo_html
from regard.view.shares import shares

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}


@pytest.fixture
def translated():
    """A translation with three kinds, two layers and two heads, whose cross-attention is random but known."""

    def sequence(words):
        text = " ".join(words)
        spans = word_spans(text)
        pieces = ["<s>", *words, "</s>"]
        places = [(0, 0), *spans, (len(text), len(text))]
        return placed(text, list(range(len(pieces))), pieces, places, spans)

    source, target = sequence(["the", "cat", "sleeps"]), sequence(["le", "chat", "dort", "ici"])
    shapes = {"encoder": (5, 5), "decoder": (5, 5), "cross": (5, 5)}
    random = np.random.default_rng(3)
    maps = {
        (kind, layer): random.dirichlet(np.full(keys, 0.4), size=(2, rows)).astype(np.float32)
        for kind, (rows, keys) in shapes.items()
        for layer in range(2)
    }
    checks = {key: Check(1e-7, 2e-7, 10) for key in maps}
    return Reading(model="by hand", sequences={"source": source, "target": target}, maps=maps, checks=checks)


def told(value: float) -> str:
    """A share as the page writes it."""
    percents = 100 * value
    if 0 < percents < 0.005:
        return "< 0.01 %"
    return f"{percents:.1f} %" if percents >= 1 or percents == 0 else f"{percents:.2f} %"


def token(page, name, place):
    return page.locator(f'[data-spine="{name}"] [data-t="{place}"]')


def strongest(page, nth=0):
    """Names and shares of the ranked list."""
    settle(page)
    rows = page.locator(".summary ol").nth(nth).locator("li:not(.columns)")
    return [(row.locator(".name").inner_text(), row.locator("b").inner_text()) for row in rows.all()]


def mean(reading, kind, rows):
    tables = np.concatenate([reading.weights(kind, layer) for layer in reading.layers(kind)]).astype(np.float64)
    return tables[:, rows].mean(axis=(0, 1))


def ranked(reading, kind, weights, *, apart):
    """What the list should say of these weights."""
    order = sorted(range(int(apart), len(weights)), key=lambda key: (-np.float32(weights[key]), key))
    keys = reading.keys(kind)
    return [(keys[key].text.strip(), told(weights[key])) for key in order if weights[key] > 0][:8]


def lightness(page, name, place):
    settle(page)
    colour = token(page, name, place).evaluate("node => getComputedStyle(node).backgroundColor")
    numbers = [float(part) for part in re.findall(r"[\d.]+", colour)]
    return 765 if len(numbers) > 3 and numbers[3] == 0 else sum(numbers[:3])


def set_grain(page, grain):
    """Of all that can be grouped."""
    for chosen in page.locator(".choices label", has_text=re.compile("Grain|by")).locator("select").all():
        chosen.select_option(grain)


def settle(page):
    """Until the page has drawn what was chosen."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def title(page):
    settle(page)
    return page.locator(".summary h2").first.inner_text()


def test_the_page_opens_with_the_whole_answer_and_what_it_looked_at(show, dogs):
    page = show(dogs)
    weights = mean(dogs, "decoder", [0, 1, 2])
    assert page.locator("h1").inner_text() == "by hand"
    assert title(page) == "The whole answer, 3 tokens"
    balance = page.locator(".balance li").all_inner_texts()
    assert balance == [
        f"{told(weights[1:12].sum())} prompt",
        f"{told(weights[12:].sum())} answer",
        f"{told(weights[0])} first token “Ann”",
    ]
    assert [share for _, share in strongest(page)] == [
        share for _, share in ranked(dogs, "decoder", weights, apart=True)
    ]


def test_over_a_token_the_input_is_coloured_by_its_weights(show, dogs):
    page = show(dogs)
    for row, place in enumerate([12, 13, 14]):
        token(page, "output", place).hover()
        weights = mean(dogs, "decoder", [row])
        page.locator(".summary h2", has_text=f"“{dogs.tokens['text'][place].strip()}”").wait_for()
        assert (
            dict(strongest(page)).items()
            <= dict([*ranked(dogs, "decoder", weights, apart=True), ("Bo", told(weights[5]))]).items()
        )
        shades = [lightness(page, "input", key) for key in range(1, 12)]
        # the darker, the more
        for one in range(1, 12):
            for other in range(1, 12):
                if weights[one] > weights[other]:
                    assert shades[one - 1] < shades[other - 1]
        # the first token would drown the rest
        assert lightness(page, "input", 0) == 765
    page.locator("h1").hover()
    assert title(page) == "The whole answer, 3 tokens"


def test_a_click_pins_and_escape_lets_go(show, dogs):
    page = show(dogs)
    token(page, "output", 13).click()
    token(page, "output", 14).hover()
    assert title(page) == "What “o” looked at"
    assert "active" in token(page, "output", 13).get_attribute("data-look")
    page.keyboard.press("Escape")
    page.locator("h1").hover()
    assert title(page) == "The whole answer, 3 tokens"
    token(page, "output", 12).click()
    token(page, "output", 12).click()
    page.locator("h1").hover()
    assert title(page) == "The whole answer, 3 tokens"


def test_arrows_and_buttons_walk_through_the_answer(show, dogs):
    page = show(dogs)
    seen = []
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(title(page))
    assert seen == ["What “B” looked at", "What “o” looked at", "What “.” looked at", "What “.” looked at"]
    page.get_by_role("button", name="one token back").click()
    assert title(page) == "What “o” looked at"
    # what comes later is not written yet
    assert "later" in token(page, "output", 14).get_attribute("data-look")
    page.get_by_role("button", name="to the start").click()
    assert title(page) == "What “B” looked at"
    page.get_by_role("button", name="play").click()
    page.locator(".summary h2", has_text="“.”").wait_for()
    page.get_by_role("button", name="play").wait_for()


def test_a_span_of_the_input_shows_who_looked_at_it(show, dogs):
    page = show(dogs)
    # from the letters of “Bo” to those of “cat”
    start, end = token(page, "input", 5).bounding_box(), token(page, "input", 8).bounding_box()
    page.mouse.move(start["x"] + 3, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] - 3, end["y"] + end["height"] / 2, steps=6)
    page.mouse.up()
    page.locator("h1").hover()
    assert page.locator(".summary h2").nth(1).inner_text() == "Who looked at “Bo has a cat”"
    used = [mean(dogs, "decoder", [row])[5:9].sum() for row in range(3)]
    names = [dogs.tokens["text"][place].strip() for place in (12, 13, 14)]
    wanted = sorted(zip(names, used, strict=True), key=lambda each: -each[1])
    assert strongest(page, 1) == [(name, told(share)) for name, share in wanted]
    shades = [lightness(page, "output", place) for place in (12, 13, 14)]
    assert shades[1] < shades[0]
    assert shades[1] < shades[2]
    page.get_by_label("Shown").select_option("span")
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    share = dogs.weights("decoder", 0)[0, :, 5:9].sum(axis=1).mean()
    page.locator("aside .readout", has_text="layer 0, head 0: ").wait_for()
    shown = float(re.search(r"head 0: ([\d.]+) %", page.locator("aside .readout").inner_text())[1])
    assert shown == pytest.approx(100 * share, rel=wire.ROUNDING, abs=0.05)


def test_a_head_is_chosen_by_keys_and_by_clicks(show, dogs):
    page = show(dogs)
    page.locator(".map").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.locator(".scope", has_text="layer 1, head 1").wait_for()
    # that head sees the first token alone
    page.locator(".balance li", has_text="0.0 % prompt").wait_for()
    assert strongest(page) == []
    page.get_by_role("button", name="all heads").click()
    page.locator(".scope", has_text="mean of 2 layers, 4 heads").wait_for()
    box = page.locator(".map").bounding_box()
    page.mouse.click(box["x"] + 30, box["y"] + 4)
    page.locator(".scope", has_text="layer 0, head 0").wait_for()
    weights = dogs.weights("decoder", 0)[0].mean(axis=0)
    for (_, shown), share in zip(strongest(page), np.sort(weights[1:])[::-1], strict=False):
        assert float(shown.removesuffix(" %")) == pytest.approx(100 * share, rel=wire.ROUNDING, abs=0.05)
    page.keyboard.down("Shift")
    page.mouse.click(box["x"] + 60, box["y"] + 4)
    page.keyboard.up("Shift")
    page.locator(".scope", has_text="mean of 2 heads").wait_for()


def test_the_largest_of_all_heads(show, translated):
    page = show(translated)
    page.get_by_label("Heads as").select_option("max")
    page.locator(".scope", has_text="largest single weight of 4 heads").wait_for()
    token(page, "output", 2).click()
    tables = np.concatenate([translated.weights("cross", layer) for layer in (0, 1)])
    wanted = np.sort(tables[:, 1].max(axis=0))[::-1]
    page.wait_for_selector('[data-ready="true"]')
    found = [float(share.removesuffix(" %")) for _, share in strongest(page)]
    assert found == pytest.approx((100 * wanted).tolist(), rel=wire.ROUNDING, abs=0.06)


@pytest.mark.parametrize("grain", ["token", "sentence"])
def test_largest_weights_are_never_summed(show, dogs, grain):
    page = show(dogs)
    set_grain(page, grain)
    page.get_by_label("Heads as").select_option("max")
    page.locator(".scope", has_text="largest single weight of 4 heads").wait_for()
    page.wait_for_selector('[data-ready="true"]')
    assert page.locator(".scale").first.inner_text().startswith("largest weight")
    assert page.locator(".balance").count() == 0
    # Bo has 30 % in the second row, cat 20 % in the third
    name, share = strongest(page)[0]
    assert name == {"token": "Bo", "sentence": "Bo has a cat."}[grain]
    assert float(share.removesuffix(" %")) == pytest.approx(30, rel=wire.ROUNDING)
    token(page, "input", 8).click()
    used = strongest(page, 1)
    assert float(used[0][1].removesuffix(" %")) == pytest.approx(30 if grain == "sentence" else 20, rel=wire.ROUNDING)


def test_a_translation_stands_below_its_source_in_three_kinds_of_attention(show, translated):
    page = show(translated)
    token(page, "output", 2).click()
    assert title(page) == "What “chat” looked at"
    assert strongest(page) == ranked(translated, "cross", mean(translated, "cross", [1]), apart=False)
    page.get_by_label("Attention").select_option("0")
    page.locator("[data-spine]").nth(1).wait_for(state="detached")
    token(page, "input", 3).click()
    # the query, for an encoder writes nothing
    assert strongest(page) == ranked(translated, "encoder", mean(translated, "encoder", [3]), apart=True)
    page.get_by_label("Attention").select_option("1")
    token(page, "input", 2).click()
    assert strongest(page) == ranked(translated, "decoder", mean(translated, "decoder", [1]), apart=True)


@pytest.mark.parametrize("grain", ["word", "sentence", "paragraph"])
def test_coarser_grains_sum_what_their_tokens_have(show, dogs, grain):
    page = show(dogs)
    set_grain(page, grain)
    page.wait_for_timeout(100)
    weights = mean(dogs, "decoder", [0, 1, 2])
    words = dogs.sequences["text"].words
    parts = {
        # the first token and the answer stand by themselves
        "word": {words[0]: [], "has": [1], "a": [2], "dog.": [3, 4], "Bo": [5], "cat.": [8, 9], "Who?": [10, 11]},
        "sentence": {"has a dog.": [1, 2, 3, 4], "Bo has a cat.": [5, 6, 7, 8, 9], "Who?": [10, 11], "Bo": [12, 13]},
        "paragraph": {"has a dog. Bo has a cat. Who?": [*range(1, 12)], "Bo": [12, 13]},
    }[grain]
    found = dict(strongest(page))
    for name, places in parts.items():
        if places and name in found and list(found).count(name) == 1 and name not in ("has", "a", "Bo"):
            assert found[name] == told(weights[places].sum()), name
    assert len(set(found) & set(parts)) >= min(2, len(parts))


def lines(page, name):
    settle(page)
    return page.locator(f'[data-spine="{name}"] .line').all_inner_texts()


def test_a_template_is_folded_into_the_roles_that_it_opens(show, chat):
    page = show(chat)
    told = [
        "systemBe brief 😀.",
        "userAnn has a dog. Bo has none.",
        "assistantI see.",
        "userWho has a dog?",
        "assistant",
    ]
    assert (lines(page, "input"), lines(page, "output")) == (told, ["Ann."])
    marks = page.locator(".is-fold")
    assert marks.nth(1).get_attribute("title") == "<|im_end|>↵<|im_start|>user↵"
    assert marks.evaluate_all("nodes => nodes.every((node) => !node.style.backgroundColor)")
    # a mark stands for all of its tokens
    marks.nth(1).click()
    assert page.locator(".summary h2").nth(1).inner_text() == "Who looked at “user:”"
    page.get_by_label("template folded").uncheck()
    assert lines(page, "input")[:2] == ["<|im_start|>system↵", "Be brief 😀.<|im_end|>↵"]
    assert lines(page, "output") == ["Ann."]
    chinese = show(chat, locale="zh-CN")
    assert [line[:2] for line in lines(chinese, "input")] == ["系统", "用户", "助手", "用户", "助手"]


def test_the_templates_weight_is_counted_apart(show, chat):
    page = show(chat)
    found = shares(chat)
    balance = [
        f"{told(found.prompt)} prompt",
        f"{told(found.template)} template",
        f"{told(found.answer)} answer",
        f"{told(found.first)} first token “<|im_start|>”",
    ]
    assert page.locator(".balance li").all_inner_texts() == balance
    prompt = {told(piece.share) for piece in [*found.pieces, *found.written] if not piece.is_folded}
    assert {share for _, share in strongest(page)} <= prompt
    page.get_by_label("template folded").uncheck()
    assert page.locator(".balance li").all_inner_texts() == balance


@pytest.mark.parametrize("grain", ["token", "word", "sentence", "paragraph"])
def test_no_list_shows_the_template_or_the_end_of_a_turn(show, chat, grain):
    page = show(chat)
    set_grain(page, grain)
    found = shares(chat)
    names = strongest(page)
    assert names
    assert not any("im_" in name or name.endswith(":") for name, _ in names)
    if grain == "sentence":
        sentences = {(part.text, told(part.share)) for part in found.parts}
        assert sentences <= {*names}
        assert ("Who has a dog?", told(found.parts[-1].share)) in names
    # what was walked through is the answer without its end
    page.keyboard.press("ArrowLeft")
    assert title(page) == {"token": "What “.” looked at"}.get(grain, "What “Ann.” looked at")
    token(page, "input", 3).click()
    assert not any("im_" in name for name, _ in strongest(page, nth=1))


def test_language_and_theme_are_the_readers(show, dogs):
    page = show(dogs, locale="zh-CN", theme="dark")
    root = page.locator(".regard-view")
    assert title(page) == "整个回答，3 个词元"
    assert (root.get_attribute("lang"), root.get_attribute("data-theme")) == ("zh-Hans", "dark")
    page.get_by_label("语言").select_option("en")
    page.locator(".summary h2", has_text="The whole answer").wait_for()
    page.get_by_label("Theme").focus()
    page.get_by_label("Theme").select_option("light")
    page.wait_for_selector('.regard-view[data-theme="light"]')
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Theme"
    assert title(show(dogs, locale="fr-FR")) == "The whole answer, 3 tokens"
    assert title(show(dogs, locale="en-US", lang="zh")) == "整个回答，3 个词元"


def test_every_word_of_one_language_is_there_in_the_other(show, dogs):
    source = (Path(regard.api.__file__).parent / "view" / "page" / "language.js").read_text(encoding="utf-8")
    english, chinese = source.split("\n  zh: {")
    names = [re.findall(r"^ {4}(\w+):", part, re.MULTILINE) for part in (english, chinese.split("\nexport")[0])]
    assert names[0] == names[1]
    assert len(names[0]) > 50


def test_text_is_only_ever_text(show, by_hand):
    pieces = [
        "a</script>",
        "<script>window.x=1</script>",
        "<img src=x onerror=window.x=1>",
        "\u202e",
        "\x1b[31m",
        "\u200b",
        "b",
    ]
    page = show(by_hand([*pieces, "\n", "c"], 0, np.full((1, 1, 9), 1 / 9)))
    shown = [token(page, "input", place).inner_text() for place in range(8)]
    assert shown == [*pieces[:3], "\\u202e", "\\x1b[31m", "\\u200b", "b", "↵"]
    assert page.evaluate("window.x === undefined && document.images.length === 0")
    assert not re.search("[\u202e\u200b\x1b]", page.locator("body").inner_text())
    page.get_by_role("button", name="Lines").click()
    page.locator("details.numbers summary").click()
    assert not re.search("[\u202e\u200b\x1b]", page.locator("body").text_content() or "")


def test_letters_of_several_tokens_and_other_scripts_are_whole(show, by_hand):
    reading = by_hand(["北京", "😀", " नमस्ते", " שלום", "\u200d", "end"], 0, np.full((1, 1, 6), 1 / 6))
    text = reading.sequences["text"]
    # a letter whose bytes are two tokens, which stand at the same place
    tokens = [*text.tokens[:2], text.tokens[1], *text.tokens[2:]]
    weights = np.array([[[0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1]]], np.float32)
    reading = dataclasses.replace(
        reading,
        sequences={"text": dataclasses.replace(text, tokens=tokens)},
        maps={("decoder", 0): weights},
        kept={"decoder": [6]},
    )
    page = show(reading)
    assert token(page, "input", 0).inner_text() == "北京"
    assert token(page, "input", 1).inner_text() == "😀"
    assert token(page, "input", 2).count() == 0
    assert lightness(page, "input", 1) < lightness(page, "input", 3)


def test_the_table_has_the_numbers_themselves(show, dogs):
    page = show(dogs)
    token(page, "output", 14).click()
    page.locator("details.numbers summary").click()
    rows = page.locator("table tbody tr")
    rows.first.wait_for()
    weights = mean(dogs, "decoder", [2])
    found = {
        int(row.locator("td").nth(0).inner_text()): float(row.locator("td").nth(1).inner_text()) for row in rows.all()
    }
    assert found == pytest.approx({place: share for place, share in enumerate(weights.tolist()) if share > 0}, rel=1e-6)
    assert "exact to float32" in page.locator("caption").inner_text()
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("caption", has_text="rounded to within 2.8 %").wait_for()
    found = {
        int(row.locator("td").nth(0).inner_text()): float(row.locator("td").nth(1).inner_text()) for row in rows.all()
    }
    assert found[8] == pytest.approx(dogs.weights("decoder", 0)[0, 2, 8], rel=wire.ROUNDING + 0.005)


def test_the_norm_of_weight_times_value_stands_beside(show, dogs):
    norms = {key: {"value_norm": table[:, :, ::-1] * 4} for key, table in dogs.maps.items()}
    page = show(dataclasses.replace(dogs, statistics=norms))
    page.locator(".columns small", has_text="‖weight · value‖").wait_for()
    total = np.concatenate([found["value_norm"] for found in norms.values()]).astype(np.float64).mean(axis=(0, 1))
    page.locator(".summary li", has=page.locator(".name", has_text="Bo")).first.locator(
        "small", has_text="%"
    ).wait_for()
    shown = page.locator(".summary li", has=page.locator(".name", has_text="Bo")).first.locator("small").inner_text()
    assert shown == told(total[5] / total.sum())
    page.get_by_label("Measure").select_option("value_norm")
    page.wait_for_timeout(100)
    assert float(strongest(page)[0][1].removesuffix(" %")) == pytest.approx(100 * total[1:].max(), abs=0.06)


def test_what_was_refused_and_what_proves_the_rest_is_told(show, dogs):
    page = show(
        dataclasses.replace(dogs, refused={("decoder", 2): "it has no softmax", ("decoder", 3): "it has no softmax"})
    )
    assert page.locator(".refused").all_inner_texts() == ["Refused: decoder 2, 3: it has no softmax"]
    page.get_by_text("what these numbers say").click()
    about = page.locator(".about").inner_text()
    assert "6 rows were computed again" in about
    assert "2e-7" in about
    assert "Attention is not explanation" in about


def test_a_long_text_keeps_few_tokens_in_the_page(show, by_hand):
    count = 20_000
    weights = np.zeros((1, 2, count))
    weights[0, 0, 15_000], weights[0, 1, 7] = 0.9, 0.8
    pieces = [f" word{place}" for place in range(count)] + [" yes", " no"]
    page = show(by_hand(pieces[: count + 1], count - 1, weights))
    nodes = "document.querySelectorAll('[data-t]').length"
    assert page.evaluate(nodes) < 1200
    page.locator(".summary .name", has_text="word15000").click()
    token(page, "input", 15_000).wait_for()
    assert page.evaluate(nodes) < 2400
    # the lower end of the minimap is the lower end of the text; what stands below may cover a part of its last pixel
    box = page.locator("canvas.minimap").first.bounding_box()
    page.mouse.click(box["x"] + 10, box["y"] + box["height"] - 3)
    token(page, "input", count - 2).wait_for()
    assert page.evaluate(nodes) < 2400


def marked(page, look):
    settle(page)
    found = page.locator(f'[data-look~="{look}"]')
    return [int(place) for place in found.evaluate_all("nodes => nodes.map((node) => node.dataset.t)")]


def test_all_of_a_text_is_searched(show, by_hand):
    count = 20_000
    pieces = [f" word{place}" for place in range(count)]
    pieces[9_000], pieces[15_000], pieces[19_999] = " 😀 Straße", " Straße", " (a+b)"
    page = show(by_hand([*pieces, " STRASSE,", " straße"], count, np.full((1, 2, count + 1), 1 / count)))
    page.keyboard.press("/")
    field, told = page.get_by_role("textbox"), page.locator(".find .count")
    field.fill("straße")
    for place, token_ in enumerate([9_000, 15_000, 20_001, 9_000], start=1):
        assert told.inner_text() == f"{(place - 1) % 3 + 1} of 3"
        assert marked(page, "found") == [token_]
        name = "output" if token_ > count else "input"
        box, spine = token(page, name, token_).bounding_box(), page.locator(f'[data-spine="{name}"]').bounding_box()
        assert spine["y"] <= box["y"] <= spine["y"] + spine["height"] - box["height"] + 4
        page.keyboard.press("Enter")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    assert told.inner_text() == "3 of 3"
    # one that goes over several tokens, and signs that mean something in a pattern
    field.fill("WORD12345 word12346")
    assert (told.inner_text(), marked(page, "found")) == ("1 of 1", [12_345, 12_346])
    field.fill("(a+b)")
    assert (told.inner_text(), marked(page, "found")) == ("1 of 1", [19_999])
    field.fill("nowhere")
    assert (told.inner_text(), marked(page, "found")) == ("not found", [])
    field.fill("word1")
    # 1, 10 to 19, …, 10000 to 19999, but for the two that are others
    assert told.inner_text() == f"1 of {11_111 - 2}"
    page.keyboard.press("Escape")
    assert not field.is_visible()
    assert marked(page, "hit") == []


def test_the_search_opens_by_key_and_button_and_finds_no_folded_template(show, chat):
    page = show(chat, locale="zh-CN")
    page.keyboard.press("Control+f")
    page.keyboard.type("dog")
    told = page.locator(".find .count")
    assert told.inner_text() == "第 1 处，共 2 处"
    # keys of the text are letters here
    page.keyboard.type("/")
    assert told.inner_text() == "没有找到"
    page.keyboard.press("Escape")
    page.locator(".walk").get_by_label("在文本中查找").click()
    page.keyboard.type("user")
    assert told.inner_text() == "没有找到"
    page.get_by_label("折叠模板").uncheck()
    assert told.inner_text() == "第 1 处，共 2 处"


def test_all_of_a_text_is_printed(show, by_hand):
    pieces = [f" word{place}" for place in range(1500)]
    page = show(by_hand(pieces, 0, np.full((1, 1, 1500), 1 / 1500)), theme="dark")
    assert token(page, "input", 1499).count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("[data-t]").count() == 1500
    assert page.locator(".regard-view").get_attribute("data-theme") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_selector('.regard-view[data-theme="dark"]')


def test_the_heatmap_tells_what_is_under_its_crosshair(show, translated):
    page = show(translated)
    canvas = page.locator("canvas.heatmap")
    canvas.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    share = mean(translated, "cross", [1])[1]
    readout = page.locator(".heatmap-box + .readout")
    assert readout.inner_text() == f"“chat” on “the”: {told(share)}"
    page.keyboard.press("Enter")
    assert title(page) == "What “chat” looked at"


def test_lines_join_a_token_to_what_it_looked_at(show, translated):
    page = show(translated)
    page.get_by_role("button", name="Lines").click()
    token(page, "output", 3).click()
    weights = mean(translated, "cross", [2])
    largest = max(mean(translated, "cross", [row]).max() for row in range(5))
    page.wait_for_timeout(100)
    assert page.locator(".lines path").count() == sum(share >= 0.03 * largest for share in weights)
    assert page.locator(".lines text.is-active").inner_html() == "dort"


def assert_named(page):
    for found in page.locator("button, select, canvas:not([hidden]), [tabindex='0']").all():
        name = found.evaluate("node => node.getAttribute('aria-label') || node.textContent.trim()")
        assert name, found.evaluate("node => node.outerHTML")


def test_everything_can_be_named_by_a_screen_reader(show, translated):
    page = show(translated)
    assert_named(page)
    assert page.locator(".summary").get_attribute("aria-live") == "polite"


def test_a_table_that_is_missing_is_told(show, dogs):
    page = show(re.sub(r'<script [^>]*id="reading.layer.decoder.1"[^\n]*\n', "", dogs.to_html()))
    page.get_by_label("Heads as").select_option("max")
    status = page.locator(".status", has_text="could not be had")
    status.wait_for()
    assert "layer.decoder.1 is not in this file" in status.inner_text()


@pytest.fixture
def show_live(browser):
    """Shows a reading with its model at hand, by the narrow interface of anywidget, which `answer` has in Python."""
    contexts = []

    def show(reading, answer=wire.answer, **settings):
        def answered(message):
            told, buffers = answer(reading, message)
            return [told, [list(buffer) for buffer in buffers]]

        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 800}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.expose_function("answer", answered)
        page.set_content(f"<style>{asset('viewer.css')}</style><div id=place></div>")
        page.evaluate(
            """async ([script, header]) => {
              const blob = new Blob([script], { type: "text/javascript" });
              const { default: viewer } = await import(URL.createObjectURL(blob));
              const heard = { "msg:custom": [], "change:lang": [] };
              const facts = { header, live: true, exact: true, lang: "en" };
              const send = async (message) => {
                const [told, buffers] = await answer(message);
                const views = buffers.map((bytes) => new DataView(Uint8Array.from([0, 0, 0, ...bytes]).buffer, 3));
                for (const listener of heard["msg:custom"]) listener(told, views);
              };
              const model = { get: (name) => facts[name], save_changes() {}, off() {}, send };
              model.on = (name, listener) => heard[name].push(listener);
              model.set = (name, value) => {
                facts[name] = value;
                for (const listener of heard[`change:${name}`]) listener();
              };
              globalThis.model_ = model;
              globalThis.close_ = viewer.render({ model, el: document.getElementById("place") });
            }""",
            [asset("viewer.bundle.js"), wire.header(reading)],
        )
        page.wait_for_selector('[data-ready="true"]')
        return page

    yield show
    for context in contexts:
        context.close()


def test_with_the_model_at_hand_values_are_exact(show_live, dogs):
    asked = []

    def answer(reading, message):
        asked.append(message["type"])
        return wire.answer(reading, message)

    page = show_live(dogs, answer)
    token(page, "output", 14).click()
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("details.numbers summary").click()
    page.locator("caption", has_text="exact to float32").wait_for()
    row = page.locator("tbody tr", has=page.locator("td", has_text=re.compile("^8$")))
    assert float(row.locator("td").nth(1).inner_text()) == pytest.approx(0.2, rel=1e-6)
    assert set(asked) == {"mean", "layer", "exact"}
    page.evaluate("close_()")


# without “Bo has a cat.” each token of the answer is less likely, without “a dog” the last is likelier
REMOVALS = [
    {"start": 5, "end": 10, "first": 12, "effects": [-3.0, -2.0, -0.02]},
    {"start": 2, "end": 4, "first": 12, "effects": [-0.5, 0.0, 1.5]},
]


def drag(page, first, last, beyond=0):
    """With the mouse from the space before a token to the space behind another, or so many pixels beyond it."""
    start, end = token(page, "input", first).bounding_box(), token(page, "input", last).bounding_box()
    page.mouse.move(start["x"] - 1, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] + 1 + beyond, end["y"] + end["height"] / 2, steps=4)
    page.mouse.up()
    settle(page)


def passages(page, panel):
    settle(page)
    return page.locator(f"{panel} .passages li").all_inner_texts()


def test_what_is_marked_is_asked_about_and_told_of_the_answer_and_of_a_token(show_live, dogs):
    asked = []

    def answer(reading, message):
        if message["type"] != "removal":
            return wire.answer(reading, message)
        asked.append((message["start"], message["end"]))
        return {**message, "removals": REMOVALS[: len(asked)]}, []

    page = show_live(dogs, answer)
    strip, button = page.locator(".matters"), page.get_by_role("button", name="Does it matter?")
    assert not strip.is_visible()
    # the mouse is let go over the panels beside the text
    drag(page, 5, 11, beyond=700)
    assert page.locator(".marked").inner_text() == "Bo has a cat. Who?"
    page.keyboard.press("Escape")
    drag(page, 5, 9)
    assert page.locator(".marked").inner_text() == "Bo has a cat."
    button.click()
    told = page.locator(".matters .told")
    page.wait_for_function("told => told.textContent.startsWith('Without')", arg=told.element_handle())
    assert told.inner_text() == "Without it the answer is 151 times less likely (5.02 nats)."
    assert not button.is_visible()
    # back where it was marked, for the keyboard
    assert page.evaluate("document.activeElement.dataset.spine") == "input"
    token(page, "output", 13).click()
    settle(page)
    assert told.inner_text() == "Without it “o” is 7.4 times less likely (2.00 nats)."
    token(page, "output", 14).click()
    settle(page)
    assert told.inner_text() == "Hardly: without it “.” is as likely."
    # by keys: from the mark to the left, and on
    page.locator('[data-spine="input"]').focus()
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("told => told.textContent.includes('more')", arg=told.element_handle())
    assert asked == [(5, 10), (2, 4)]
    assert page.locator(".marked").inner_text() == "a dog"
    assert told.inner_text() == "Without it “.” is 4.5 times more likely (−1.50 nats)."
    assert passages(page, ".removals") == ["0.02\nBo has a cat.", "−1.50\na dog"]
    page.keyboard.press("Escape")
    assert passages(page, ".removals") == ["5.02\nBo has a cat.", "−1.00\na dog"]
    page.locator(".removals .name", has_text="Bo has a cat.").click()
    settle(page)
    assert told.inner_text().startswith("Without it the answer is 151 times")
    assert asked == [(5, 10), (2, 4)]


def test_a_removal_that_fails_is_told_and_may_be_asked_again(show_live, dogs):
    answers = iter(["too much", None])

    def answer(reading, message):
        if message["type"] != "removal":
            return wire.answer(reading, message)
        why = next(answers)
        if why is None:
            return {"type": "stopped", "asked": message}, []
        return {"type": "error", "asked": message, "message": why}, []

    page = show_live(dogs, answer)
    token(page, "input", 5).click()
    button = page.get_by_role("button", name="Does it matter?")
    button.click()
    page.locator(".matters .told", has_text="This could not be had: too much").wait_for()
    # by keys it comes after the two texts
    page.locator('[data-spine="input"]').focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Does it matter?"
    page.keyboard.press("Enter")
    page.locator(".matters .told:empty").wait_for(state="attached")
    assert button.is_enabled()


def test_what_was_asked_stays_in_a_file(show, dogs):
    dogs.settings["removals"] = REMOVALS
    page = show(dogs, locale="zh-CN")
    assert page.locator(".removals h2").inner_text() == "有影响吗？"
    assert passages(page, ".removals") == ["5.02\nBo has a cat.", "−1.00\na dog"]
    page.locator(".removals .name").first.click()
    settle(page)
    assert page.locator(".matters .told").inner_text() == "没有它，这个回答的可能性只有 1/151（5.02 纳特）。"
    # there is no model to ask about anything else
    token(page, "input", 1).click()
    settle(page)
    assert not page.locator(".matters").is_visible()


def test_sources_are_asked_for_by_grain_and_of_a_part_of_the_answer(show_live, sourced):
    found, asked = sourced.settings.pop("sources"), []

    def answer(reading, message):
        if message["type"] != "sources":
            return wire.answer(reading, message)
        asked.append({name: message[name] for name in ("grain", "of", "within")})
        reading.settings["sources"] = {**found, "asked": asked[-1]}
        return {**message, "sources": wire.header(reading)["settings"]["sources"]}, []

    page = show_live(sourced, answer)
    form, button = page.locator(".ask-row"), page.get_by_role("button", name="Sources")
    assert form.locator(".part-name").inner_text() == "of the whole answer"
    count = sourced.settings["prompt_tokens"]
    token(page, "output", count + 1).click()
    settle(page)
    assert form.locator(".part-name").inner_text() == "of “nn”"
    form.get_by_label("Passages").select_option("turns")
    button.click()
    page.locator(".verdict", has_text="“nn” rests on ①").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Ask again").click()
    page.locator(".verdict", has_text="This answer rests on ①").wait_for()
    whole = {"grain": "turns", "of": None, "within": None}
    assert asked == [whole | {"of": [count + 1, count + 2]}, whole]
    token(page, "input", 4).click()
    settle(page)
    assert_named(page)


def test_a_passage_is_split_into_what_it_is_made_of(show_live, sourced):
    text, asked = sourced.sequences["text"], []
    whole = {"grain": "turns", "of": None, "within": None}
    sourced.settings["sources"]["asked"] = whole

    def answer(reading, message):
        if message["type"] == "sources":
            asked.append({name: message[name] for name in whole})
            found = reading.settings["sources"]
            inner = [{**source, "effect": None, "token_effects": None} for source in found["sources"][:1]]
            verdict = {"text": "", "on": [], "either": False}
            reading.settings["sources"] = found | {
                "sources": inner,
                "verdict": verdict,
                "around": found,
                "asked": asked[-1],
            }
            return {**message, "sources": wire.header(reading)["settings"]["sources"]}, []
        return wire.answer(reading, message)

    page = show_live(sourced, answer)
    assert not page.locator(".sources").get_by_role("button", name="by paragraphs").is_visible()
    page.locator(".passages .name", has_text="Ann has a dog.").click()
    page.get_by_role("button", name="① by paragraphs").click()
    page.locator(".sources .scope", has_text="Within “Ann has a dog.”").wait_for()
    (only,) = asked
    assert "".join(each.text for each in text.tokens[slice(*only["within"])]).strip() == "Ann has a dog."
    assert only | {"within": None} == whole | {"grain": "paragraphs"}
    assert page.locator(".passages li").count() == 2
    assert_named(page)
    page.get_by_role("button", name="← All turns").click()
    page.locator(".verdict", has_text="This answer rests on ①").wait_for()
    assert page.locator(".passages li").count() == 4


def test_the_language_changes_from_outside_and_what_is_chosen_stays(show_live, dogs):
    page = show_live(dogs)
    token(page, "output", 13).click()
    page.evaluate("model_.set('lang', 'zh')")
    assert title(page) == "“o”看了哪里"


def test_input_and_output_have_grains_of_their_own(show, dogs):
    page = show(dogs)
    page.get_by_label("Prompt by").select_option("sentence")
    token(page, "output", 13).click()
    assert title(page) == "What “o” looked at"
    weights = mean(dogs, "decoder", [1])
    parts = {"has a dog.": weights[1:5], "Bo has a cat.": weights[5:10], "Who?": weights[10:12], "B": weights[12:13]}
    found = dict(strongest(page))
    assert found == {"Bo" if name == "B" else name: told(part.sum()) for name, part in parts.items()}
    page.get_by_label("Prompt by").select_option("token")
    page.get_by_label("Answer by").select_option("word")
    assert title(page) == "What “Bo.” looked at"
    assert strongest(page)[0] == ("Bo", told(mean(dogs, "decoder", [0, 1, 2])[5]))


def test_a_text_alone_has_one_grain(show, by_hand):
    page = show(by_hand(["A", " b.", " C", " d."], 0, np.full((1, 1, 4), 0.25)))
    page.get_by_label("Grain").select_option("sentence")
    assert page.locator(".choices select").count() == 1
    assert strongest(page) == [("C d.", "50.0 %"), ("b.", "25.0 %")]


def test_the_scale_of_colours_is_the_prompts_and_a_known_question_is_apart(show, chat, sourced):
    keys = len(chat.keys("decoder"))
    text, count = chat.sequences["text"].text, chat.settings["prompt_tokens"]
    of = {token.text.strip(): place for place, token in enumerate(chat.sequences["text"].tokens[:count])}
    weights = np.full(keys, 0.01)
    asks = next(place for place, each in enumerate(chat.keys("decoder")) if each.start >= text.index("Who"))
    weights[of["none"]], weights[asks], weights[count], weights[0] = 0.05, 0.1, 0.3, 0.2
    tables = {key: np.broadcast_to(weights, table.shape) for key, table in chat.maps.items()}
    sources = sourced.settings.pop("sources")
    page = show(dataclasses.replace(chat, maps=tables, settings=sourced.settings))
    settle(page)
    # the answer is stronger than all of the prompt
    assert page.locator(".tick").last.inner_text() == "≥ 10.0 %"
    assert lightness(page, "input", asks) < lightness(page, "input", of["none"]) < 765
    page = show(dataclasses.replace(chat, maps=tables, settings={**sourced.settings, "sources": sources}))
    settle(page)
    assert page.locator(".tick").last.inner_text() == "≥ 5.0 %"
    assert lightness(page, "input", asks) == 765
    assert not {"Who", "?"} & {name for name, _ in strongest(page)}
    # the five tokens of the question
    assert "14.0 % question" in page.locator(".balance li").all_inner_texts()
    set_grain(page, "sentence")
    assert not any("Who" in name for name, _ in strongest(page))
    set_grain(page, "token")
    page.get_by_label("question apart").uncheck()
    settle(page)
    assert page.locator(".tick").last.inner_text() == "≥ 10.0 %"
    assert strongest(page)[1] == ("Who", "10.0 %")


def outlined(page, look):
    """The words of the prompt that look so, with the sign before them."""
    settle(page)
    nodes = page.locator(f'[data-spine="input"] .t[data-look~="{look}"]').all()
    return [(node.get_attribute("data-sign"), node.inner_text()) for node in nodes]


def test_the_verdict_is_on_top_and_its_passages_are_marked(show, sourced):
    page = show(sourced)
    panel = page.locator("aside .panel").first
    assert panel.locator("h2").inner_text() == "This answer rests on ①"
    assert panel.locator(".scope").inner_text() == "without ① it is 10,405 times less likely"
    assert panel.locator("li").all_inner_texts() == [
        "①\n9.25\nAnn has a dog.",
        "②\n−0.50\nBo has none.",
        "③\n≈−0.25\nBe brief 😀.",
        "?\n≈1.00\nWho has a dog?",
    ]
    widths = [bar.evaluate("node => node.style.width") for bar in panel.locator("li .share").all()]
    assert widths == ["100%", "0%", "0%", f"{100 / 9.25:.4f}%"]
    assert outlined(page, "source") == [("①", "Ann"), (None, "has"), (None, "a"), (None, "dog"), (None, ".")]
    assert outlined(page, "asks") == [("?", "Who"), (None, "has"), (None, "a"), (None, "dog"), (None, "?")]
    assert outlined(page, "lit") == []


def test_a_click_goes_to_a_passage_and_lights_it(show, sourced):
    page = show(sourced, height=300)
    spine = page.locator('[data-spine="input"]')
    name = page.locator(".passages .name", has_text="Bo has none.")
    name.click()
    assert outlined(page, "lit") == [("②", "Bo"), (None, "has"), (None, "none"), (None, ".")]
    assert name.get_attribute("aria-pressed") == "true"
    page.wait_for_function("spine => spine.scrollTop > 0", arg=spine.element_handle())
    page.locator(".passages .name", has_text="Who has a dog?").click()
    assert [text for _, text in outlined(page, "lit")] == ["Who", "has", "a", "dog", "?"]
    page.keyboard.press("Escape")
    assert outlined(page, "lit") == []
    assert [text for _, text in outlined(page, "source")] == ["Ann", "has", "a", "dog", "."]


def test_a_verdict_is_said_in_both_languages(show, sourced):
    sources = sourced.settings["sources"]
    sources["verdict"].update(on=[0, 1], either=True)
    page = show(sourced, locale="zh-CN")
    assert page.locator(".verdict").inner_text() == "这个回答依据①或②"
    page.get_by_label("语言").select_option("en")
    page.locator(".verdict", has_text="This answer rests on ① or ②").wait_for()
    assert "without all that were tried it is 13,360 times less likely" in page.locator(".sources .scope").inner_text()
    sources["verdict"].update(on=[], either=False)
    page = show(sourced)
    assert page.locator(".verdict").inner_text() == (
        "This answer rests on no passage: on the question, or on what the model knows"
    )


def test_what_each_sentence_of_an_answer_rests_on_is_said(show, sourced):
    nothing, found = {"on": [], "either": False, "text": ""}, sourced.settings["sources"]
    found["sentences"] = [{"text": "Ann.", "start": 0, "end": 4, "verdict": found["verdict"]}]
    assert show(sourced).locator(".by-sentence").count() == 0
    found["sentences"].append({"text": "Yes\n so.", "start": 5, "end": 13, "verdict": nothing})
    assert show(sourced).locator(".by-sentence li").all_inner_texts() == [
        "“Ann.” rests on ①",
        "“Yes so.” rests on no passage: on the question, or on what the model knows",
    ]


def test_of_many_passages_the_rest_is_summed_until_it_is_asked_for(show, sourced):
    sources = sourced.settings["sources"]
    sources["sources"] += [sources["sources"][2]] * 9
    page = show(sourced)
    assert page.locator(".passages li").nth(6).inner_text() == "−1.50\nthe other 6"
    page.get_by_role("button", name="the other 6").click()
    settle(page)
    signs = page.locator(".passages .sign").all_inner_texts()
    assert signs == [*"①②③④⑤⑥⑦⑧⑨⑩", "(11)", "(12)", "?"]


def test_without_sources_and_model_there_is_no_panel_of_them(show, dogs):
    assert not show(dogs).locator(".sources").is_visible()


def test_the_ladder_shows_quality_translations_and_every_reading(show, dogs, translated):
    def model(name, *shares):
        parts = [
            {"from": 5 * at + 1, "to": 5 * at + 5, "count": 20, "exact": share, "exact_low": share, "exact_high": share}
            for at, share in enumerate(shares)
        ]
        return {"name": name, "count": 40, "by_length": parts}

    html = demo_html(
        [model("RNN", 1, 0.25), model("RNN + attention", 1, 0.95)],
        source="the cat sleeps",
        reference="le chat dort ici",
        translations={"RNN": "le chat <b>mange", "RNN + attention": "le chat dort ici"},
        readings={"RNN + attention": translated, "smollm2": dogs},
        live="live.html",
    )
    page = show(html, locale="zh-CN")
    page.get_by_label("语言").first.select_option("en")
    page.locator("h1", has_text="From one hidden state to attention").wait_for()
    assert page.locator("a", has_text="live in your browser").get_attribute("href") == "live.html"
    assert page.locator(".curve .end").all_text_contents() == ["RNN + attention  95 %", "RNN  25 %"]
    assert page.locator("mark").all_inner_texts() == ["✗ <b>mange"]
    assert page.locator("small", has_text="No attention").count() == 1
    viewers = page.locator(".embedded .regard-view")
    assert viewers.count() == 2
    viewers.nth(1).locator('[data-spine="output"] [data-t="13"]').click()
    # keys go to the one that was clicked, and to no other
    page.keyboard.press("ArrowRight")
    viewers.nth(1).locator(".summary h2", has_text="“.”").wait_for()
    assert viewers.nth(0).locator(".summary h2").first.inner_text() == "All 5 rows"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["dogs", "translated", "chat", "sourced"])
def test_the_page_fits_its_window(show, request, name, size, theme):
    width, height = SIZES[size]
    page = show(request.getfixturevalue(name), width=width, height=height, theme=theme)
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}-{size}-{theme}.png", full_page=True)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    colours = page.locator(".regard-view").evaluate(
        "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]"
    )
    paper, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert (paper > ink) == (theme == "light")


def part(kind, layer=None, head=None, score=None):
    return {"kind": kind, "layer": layer, "head": head} | ({} if score is None else {"score": score})


def why(message):
    return {
        **{name: message[name] for name in ("layer", "head", "row", "key")},
        "row_token": "",
        "key_token": "",
        "score": 3.0,
        "weight": 0.2,
        "added": -0.5,
        "softcap": 50.0,
        "strongest": [
            {"query": part("head", 0, 1), "key": part("token embedding"), "score": 4.0},
            {"query": part("bias"), "key": part("feed-forward", 0), "score": -1.0},
        ],
        "by_query": [part("head", 0, 1, 4.0), part("bias", score=-1.0)],
        "by_key": [part("token embedding", score=4.0), part("feed-forward", 0, score=-1.0)],
    }


def choose(page, *keys):
    page.locator(".map").focus()
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def test_why_a_head_looked_there_is_asked_with_one_head_and_one_token_chosen(show_live, dogs):
    asked = []

    def answer(reading, message):
        if message["type"] != "why":
            return wire.answer(reading, message)
        asked.append(message)
        if len(asked) == 1:
            return {"type": "error", "asked": message, "message": "too much"}, []
        return {**message, "why": why(message)}, []

    page = show_live(dogs, answer)
    panel, ask = page.locator(".why"), page.locator(".why .act")
    token(page, "output", 14).click()
    assert not panel.is_visible()
    choose(page, "ArrowRight", "ArrowRight", "Enter")
    # by itself about what got most of the row, but for the first token
    row = dogs.weights("decoder", 1)[0, 2]
    key = 1 + int(row[1:].argmax())
    names = dogs.tokens["text"]
    assert ask.inner_text() == f"Why at “{names[key].strip()}”?"
    ask.click()
    panel.get_by_text("This could not be had: too much").wait_for()
    # and about what is marked
    token(page, "input", 3).click()
    settle(page)
    assert ask.inner_text() == f"Why at “{names[3].strip()}”?"
    ask.click()
    panel.locator(".met").first.wait_for()
    place = {"type": "why", "layer": 1, "head": 0, "row": 13}
    assert asked == [{**place, "key": key}, {**place, "key": 3}]
    assert panel.locator(".told").inner_text() == (
        "The score is 3.00, the weight 20.0 %. Position adds −0.50 to the score. The score is capped at ±50 afterwards."
    )
    lists = [" ".join(each.split()) for each in panel.locator(".met li").all_inner_texts()]
    assert lists == [
        "+4.00 head 0.1 × token embedding",
        "−1.00 bias × feed-forward 0",
        "+4.00 head 0.1",
        "−1.00 bias",
        "+4.00 token embedding",
        "−1.00 feed-forward 0",
    ]
    page.evaluate("model_.set('lang', 'zh')")
    settle(page)
    assert panel.locator("h2").inner_text() == "为什么看那里？"
    assert "头 0.1 × 词元嵌入" in panel.inner_text()
    # the head of an earlier layer, from the same token
    panel.get_by_role("button", name="头 0.1").first.click()
    settle(page)
    assert "第 0 层，第 1 头" in page.locator(".summary .scope").first.inner_text()
    assert title(page) == "“.”看了哪里"


def test_without_the_model_nobody_is_asked_why(show, dogs):
    page = show(dogs)
    token(page, "output", 14).click()
    choose(page, "ArrowRight", "Enter")
    assert not page.locator(".why").is_visible()
