"""The live page in a real browser: a tiny model is asked, streams, is stopped, and shows what it looked at."""

import contextlib
import re
import threading
from dataclasses import replace

import pytest

import regard

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

from regard.view.server import serve  # noqa: E402
from regard.view.server.limits import LIMITS  # noqa: E402
from regard.view.server.models import serve_language_model  # noqa: E402
from regard.view.server.serve import Page  # noqa: E402

# two threads of a busy machine are slow
expect.set_options(timeout=30_000)

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202etxet\u200b \x1b[31m"
VIEWER = ".view .regard-view[data-ready=true]"


@pytest.fixture
def live(tiny_smollm2, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "history_path", lambda: tmp_path / "history.sqlite3")
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    page = Page([serve_language_model(model), serve_language_model(model)], (), port=0)
    ready = threading.Event()
    thread = threading.Thread(target=page.run, kwargs={"ready": ready.set})
    thread.start()
    assert ready.wait(10)
    yield page
    page.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def visit(browser, live):
    """Opens the page, and in the end asserts that nothing was complained of."""
    with contextlib.ExitStack() as stack:
        complaints = []

        def open(**settings):
            context = stack.enter_context(contextlib.closing(browser.new_context(locale="en-GB", **settings)))
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.goto(live.address)
            return page

        yield open
        assert complaints == []


def ask(page, text, **settings):
    page.locator("textarea:not(.system)").first.fill(text)
    if settings:
        page.locator("summary", has_text="Settings").first.click()
    for name, value in settings.items():
        page.locator(f"label[title={name}] input").first.fill(str(value))
    page.get_by_role("button", name="Ask", exact=True).click()


def test_a_model_is_asked_and_shows_what_it_looked_at(visit, live):
    page = visit()
    ask(page, "one two three", max_new_tokens=5)
    page.wait_for_selector(VIEWER)
    expect(page.locator(".answer > header .status")).to_have_text("5 tokens, the limit")
    expect(page.locator(".view")).to_contain_text("one two three")
    expect(page.locator(".view")).to_contain_text("5 tokens")
    expect(page.locator(".recent .entry .title")).to_have_text("one two three")


def test_the_text_comes_while_it_is_written_and_stops_when_it_is_told(visit, live):
    page = visit()
    ask(page, "one two", max_new_tokens=2000)
    written = page.locator(".written")
    expect(written).not_to_be_empty()
    first = written.text_content()
    page.wait_for_function("first => document.querySelector('.written').textContent.length > first", arg=len(first))
    assert page.locator(VIEWER).count() == 0
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(VIEWER, timeout=60_000)
    status = page.locator(".answer > header .status").text_content()
    count = int(re.fullmatch(r"(\d+) tokens, stopped", status)[1])
    (opened,) = live.api.readings._open.values()
    assert len(opened.reading.rows("decoder")) == count < 2000
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()


def test_the_model_stops_when_the_page_is_closed(visit, live):
    page = visit()
    ask(page, "one two", max_new_tokens=2000)
    expect(page.locator(".written")).not_to_be_empty()
    assert live.api.workers.count() == 1
    page.close()
    for _ in range(200):
        if live.api.workers.count() == 0:
            break
        threading.Event().wait(0.05)
    assert live.api.workers.count() == 0
    assert list(live.api.readings._open) == []


@pytest.mark.parametrize("mode", ["Chat", "Continue", "Read"])
def test_markup_and_unseen_characters_stay_text(visit, mode):
    page = visit()
    page.get_by_text(mode, exact=True).click()
    # what is typed into the page comes back as prompt, as title of the history and, read again, from it
    ask(page, EVIL, **({} if mode == "Read" else {"max_new_tokens": 2}))
    page.wait_for_selector(VIEWER)
    expect(page.locator(".recent .title")).to_contain_text("<img src=x onerror=")
    expect(page.locator(".recent .title")).to_contain_text("\\u202etxet\\u200b \\x1b[31m")
    page.locator(".recent .entry").click()
    expect(page.locator(".answer > header .status")).to_contain_text("<img src=x onerror=")
    page.wait_for_selector(VIEWER)
    expect(page.locator(".view")).to_contain_text("onerror")
    assert page.locator("img, .page script").count() == 0
    assert page.title() == "Regard"
    shown = page.locator("body").inner_text()
    assert not set(shown) & set("\u202e\u200b\x1b")


def test_a_reading_too_large_for_the_history_is_said_to_be(visit, live):
    live.api.limits = replace(live.api.limits, remembered=1000)
    page = visit()
    ask(page, "one two three", max_new_tokens=5)
    page.wait_for_selector(VIEWER)
    note = page.locator(".answer > .note")
    expect(note).to_have_text(
        re.compile(r"Not kept among recent readings: it holds \d+ MiB.*Save keeps it in a file\.")
    )
    assert live.api.history.entries() == []
    page.get_by_role("button", name="中文").click()
    expect(note).to_contain_text("未存入最近的读数")
    page.get_by_role("button", name="English").click()
    live.api.limits = LIMITS
    ask(page, "one two")
    expect(page.locator(".recent .entry .title")).to_have_text("one two")
    expect(note).to_be_hidden()


def test_two_models_and_two_prompts_stand_side_by_side(visit):
    page = visit(viewport={"width": 1400, "height": 900})
    page.locator("textarea").fill("one two")
    page.get_by_role("button", name="Compare").click()
    selects = page.locator(".pane select")
    assert [selects.nth(place).input_value() for place in (0, 1)] == ["smollm2", "smollm2 (2)"]
    second = page.locator("textarea").nth(1)
    expect(second).to_have_value("one two")
    second.fill("three four five")
    page.get_by_text("Continue", exact=True).first.click()
    page.get_by_text("Read", exact=True).nth(1).click()
    ask(page, "one two", max_new_tokens=3)
    expect(page.locator(VIEWER)).to_have_count(2)
    boxes = [page.locator(".answer").nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    expect(page.locator(".view").nth(1)).to_contain_text("three four five")
    page.get_by_role("button", name="Don’t compare").click()
    assert page.locator(".pane").count() == 1


def test_a_reading_is_saved_and_opened_again(visit, tmp_path):
    page = visit()
    ask(page, "one two three", max_new_tokens=4)
    page.wait_for_selector(VIEWER)
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Save .safetensors").click()
    path = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(path)
    assert path.name == "smollm2.safetensors"
    reading = regard.Reading.load(path)
    assert "one two three" in reading.sequences["text"].text
    page.reload()
    page.locator("input[type=file]").set_input_files(path)
    page.wait_for_selector(VIEWER)
    expect(page.locator(".view")).to_contain_text("one two three")


def test_the_token_leaves_the_address_bar_and_survives_a_reload(visit, live):
    page = visit()
    expect(page.locator("textarea")).to_be_visible()
    assert page.url == live.address.partition("#")[0]
    page.reload()
    expect(page.locator("textarea")).to_be_visible()
    assert page.url == live.address.partition("#")[0]


def test_without_its_token_the_page_says_what_to_do(browser, live):
    with contextlib.closing(browser.new_context(locale="en-GB")) as context:
        page = context.new_page()
        page.goto(live.address.partition("#")[0])
        expect(page.get_by_role("alert")).to_contain_text("needs the address that `regard view` printed")
        page.goto(live.address.partition("#")[0] + "#token=wrong")
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("the page's token is missing or of another run")


def test_it_speaks_chinese_and_what_is_open_stays(visit):
    page = visit()
    ask(page, "one two three", max_new_tokens=4)
    page.wait_for_selector(VIEWER)
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("button", name="提问")).to_be_visible()
    page.wait_for_selector(VIEWER)
    expect(page.locator("textarea")).to_have_value("one two three")
    expect(page.locator("label[title=max_new_tokens] input")).to_have_value("4")
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    assert (
        page.locator(".view").get_attribute("lang") or page.locator(".regard-view").get_attribute("lang") == "zh-Hans"
    )


def test_a_setting_out_of_range_is_not_sent(visit, live):
    page = visit()
    ask(page, "one two", max_new_tokens=-1)
    assert page.locator(".answer").count() == 0
    assert page.evaluate("document.querySelector('label[title=max_new_tokens] input').validity.rangeUnderflow")
    assert live.api.jobs == {}


def test_what_is_forgotten_is_gone(visit, live):
    page = visit()
    ask(page, "one two three", max_new_tokens=2)
    expect(page.locator(".recent .entry")).to_have_count(1)
    page.get_by_role("button", name="Forget", exact=True).click()
    expect(page.locator(".recent .entry")).to_have_count(0)
    assert live.api.history.entries() == []


def heard(live):
    """The turns of the newest reading, as role and content."""
    reading = list(live.api.readings._open.values())[-1].reading
    text = reading.sequences["text"].text
    return [(turn["role"], text[turn["start"] : turn["end"]]) for turn in reading.settings["turns"]]


def test_a_conversation_is_held_and_every_question_has_the_turns_before_it(visit, live):
    page = visit()
    page.get_by_text("Conversation", exact=True).click()
    text = page.get_by_label("Type a sentence or a prompt")
    page.get_by_label("System message").fill("Be brief. 🙂")

    def say(what, turns):
        text.fill(what)
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator(".turns li")).to_have_count(turns)
        expect(text).to_have_value("")
        page.wait_for_selector(VIEWER)

    page.locator("summary", has_text="Settings").click()
    page.locator("label[title=max_new_tokens] input").fill("5")
    say("one two", 2)
    assert heard(live) == [("system", "Be brief. 🙂"), ("user", "one two")]
    answer = list(live.api.readings._open.values())[-1].reading
    said = page.locator(".turns p").nth(1).text_content()
    say("three", 4)
    assert [role for role, _ in heard(live)] == ["system", "user", "assistant", "user"]
    assert heard(live)[3] == ("user", "three")
    assert answer.sequences["text"].text.endswith(heard(live)[2][1])
    assert said.strip() == heard(live)[2][1].strip() != ""
    assert page.locator(".view .is-fold").all_inner_texts() == ["system", "user", "assistant", "user", "assistant"]
    expect(page.locator(".recent .entry .title")).to_have_text(["three", "one two"])
    page.get_by_role("button", name="中文").click()
    expect(page.locator(".turns li")).to_have_count(4)
    expect(page.get_by_label("系统消息")).to_have_value("Be brief. 🙂")
    page.get_by_role("button", name="新对话").click()
    expect(page.locator(".turns li")).to_have_count(0)
    page.get_by_role("button", name="three").click()
    expect(page.locator(".view .is-fold")).to_have_text(["系统", "用户", "助手", "用户", "助手"])


def test_sources_are_asked_for_and_stay(visit, live):
    page = visit()
    page.get_by_text("Continue", exact=True).click()
    ask(page, "One two three. Four five six.\n\nWhat is it?", max_new_tokens=4)
    page.wait_for_selector(VIEWER)
    page.get_by_role("button", name="Sources", exact=True).click()
    expect(page.locator(".verdict")).to_contain_text("This answer rests on")
    expect(page.locator(".passages li")).to_have_count(3)
    expect(page.locator(".passages .name").last).to_have_text("What is it?")
    page.get_by_role("button", name="中文").click()
    expect(page.locator(".verdict")).to_contain_text("这个回答")
    page.get_by_role("button", name="English").click()
    expect(page.locator(".verdict")).to_contain_text("This answer rests on")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("button", name="Sources", exact=True)).to_be_visible()
    page.locator(".recent .entry").last.click()
    expect(page.locator(".verdict")).to_contain_text("This answer rests on")


def test_sources_that_cannot_be_had_are_told_and_may_be_asked_again(visit, live):
    page = visit()
    page.get_by_text("Continue", exact=True).click()
    ask(page, "one two", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    button = page.get_by_role("button", name="Sources", exact=True)
    button.click()
    expect(page.locator(".sources .note")).to_contain_text("one passage and nothing else")
    expect(button).to_be_enabled()
    page.locator('[data-spine="output"] .t').first.click()
    expect(page.locator(".summary h2").first).to_contain_text("looked at")


def test_sources_wait_for_their_model_and_say_so(visit, live):
    page = visit()
    page.get_by_text("Continue", exact=True).click()
    ask(page, "One two three. Four five six.\n\nWhat is it?", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    busy = threading.Event()
    live.api.workers.submit("smollm2", lambda: busy.wait(60))
    page.get_by_role("button", name="Sources", exact=True).click()
    expect(page.locator(".sources .note")).to_have_text("Waiting for 1 other answer…")
    busy.set()
    expect(page.locator(".verdict")).to_be_visible()


def test_what_is_asked_of_the_model_can_be_stopped(visit, live):
    page = visit()
    page.get_by_text("Continue", exact=True).click()
    ask(page, "One two three. Four five six.\n\nWhat is it?", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    page.locator('[data-spine="input"] [data-t="2"]').click()
    busy = threading.Event()
    live.api.workers.submit("smollm2", lambda: busy.wait(60))
    page.get_by_role("button", name="Does it matter?").click()
    expect(page.locator(".matters .told")).to_have_text("Waiting for 1 other answer…")
    page.locator(".matters").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Does it matter?")).to_be_enabled()
    page.get_by_role("button", name="Sources", exact=True).click()
    page.locator(".sources").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Sources", exact=True)).to_be_enabled()
    busy.set()
    page.get_by_role("button", name="Does it matter?").click()
    expect(page.locator(".matters .told")).to_contain_text("ithout it the answer is")
    page.locator(".recent .entry").last.click()
    expect(page.locator(".removals .passages li")).to_have_count(1)
    (kept,) = list(live.api.readings._open.values())[-1].reading.settings["removals"]
    assert (kept["start"], kept["end"]) == (2, 3)


def test_a_change_of_language_loses_nothing_that_is_under_way(visit, live):
    page = visit()
    ask(page, "one two three", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    page.locator('[data-spine="output"] .t').first.click()
    # both in one turn of the page's loop, before any answer of the server can come
    page.evaluate(
        """() => {
          document.querySelector(".top button[lang]").click();
          document.querySelector(".recent .entry").click();
          document.querySelector(".top button[lang]").click();
        }"""
    )
    expect(page.locator(".answer > header .status")).to_have_text("one two three")
    page.wait_for_selector(VIEWER)
    page.locator("label[title=max_new_tokens] input").fill("2000")
    ask(page, "one two")
    expect(page.locator(".written")).not_to_be_empty()
    page.get_by_role("button", name="中文").click()
    expect(page.locator(".answer > header .status")).to_have_text("书写中…")
    page.get_by_role("button", name="停止").click()
    page.wait_for_selector(VIEWER, timeout=60_000)
    expect(page.locator(".answer > header .status")).to_contain_text("已停止")
    expect(page.get_by_role("button", name="提问")).to_be_enabled()


def test_an_answer_that_the_history_cannot_keep_comes_with_a_warning(visit, live):
    page = visit()
    live.api.history.path.write_bytes(b"no database " * 400)
    ask(page, "one two three", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    expect(page.locator(".answer > .note")).to_contain_text("Not kept among recent readings: ")
    page.reload()
    expect(page.locator(".recent .error")).to_contain_text("the history cannot be used")
    ask(page, "one two three", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    expect(page.locator(".answer > header .status")).to_have_text("3 tokens, the limit")
    page.get_by_role("button", name="中文").click()
    expect(page.locator(".answer > .note")).to_contain_text("未存入最近的读数：")


def test_escape_in_the_search_stops_no_answer(visit, live):
    page = visit()
    ask(page, "one two three", max_new_tokens=3)
    page.wait_for_selector(VIEWER)
    page.locator('[data-spine="input"]').first.click()
    page.keyboard.press("Control+f")
    page.keyboard.type("two")
    expect(page.locator(".find .count")).to_have_text("1 of 1")
    page.evaluate("document.querySelector('.page').addEventListener('keydown', () => (window.heard = true))")
    page.keyboard.press("Escape")
    expect(page.locator(".find")).to_be_hidden()
    assert page.evaluate("window.heard === undefined")


def test_a_question_that_fails_stays_to_be_asked_again(visit, live):
    page = visit()
    page.get_by_text("Conversation", exact=True).click()
    ask(page, "one two " * 2000, max_new_tokens=2)
    text = page.get_by_label("Type a sentence or a prompt")
    expect(page.locator(".answer .error")).to_contain_text("the model takes 2048")
    expect(text).not_to_have_value("")
    assert page.locator(".turns li").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(visit, width, scheme):
    page = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    ask(page, "one two three " * 20 + "x" * 300, max_new_tokens=20)
    page.wait_for_selector(VIEWER)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
