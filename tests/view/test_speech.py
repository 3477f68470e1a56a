"""Where words looked in a sound is shown over its time: as numbers, in a terminal, as a picture, in the page."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from tests.sounds import RATE, tone
from tests.view.heard import FRAMES, SECONDS, SILENT, spoken

import regard
from regard.errors import RegardError
from regard.reading.media import Sound
from regard.view import wire
from regard.view.folds import folds
from regard.view.html import to_html
from regard.view.speech import has_sound, heard, loudness, over, samples
from regard.view.speech_terminal import axis, blocks, speech_view


def printed(reading, *, width=90, **shown):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*speech_view(reading, **shown), sep="\n")
    return console.export_text()


def test_each_word_has_its_weights_and_its_time():
    found = heard(spoken())
    assert (found.kind, found.subject) == ("cross", "the whole answer (5 tokens)")
    assert found.scope == "mean of the model's 2 alignment heads"
    assert [line.text for line in found.lines] == ["one", "two", "three", "four"]
    for place, line in enumerate(found.lines):
        own = np.flatnonzero(line.weights)
        assert (own.min(), own.max()) == (25 * place, 25 * place + 24)
        assert line.time.text == line.text
        assert line.time.start == pytest.approx(0.5 * place, abs=0.05)
    assert dict(found.shares) == pytest.approx({"the sound": 0.8, "the silence after it": 0.2})
    assert "the model's alignment heads" in found.note
    assert heard(spoken(), token="two").subject == "“two”"
    assert heard(spoken(), layer=0, head=1).scope == "layer 0, head 1"


def test_weight_over_equal_parts_of_the_time_is_all_of_it():
    found = heard(spoken())
    for count in (1, 7, 100, 333):
        assert over(found, found.whole, count).sum() == pytest.approx(0.8, abs=1e-6)
    np.testing.assert_allclose(over(found, found.lines[1].weights, 4), [0, 0.8, 0, 0], atol=1e-6)


def test_loudness_is_the_largest_amplitude_of_each_part():
    reading = spoken()
    values, rate = samples(reading.media[0])
    assert rate == RATE
    np.testing.assert_allclose(values, tone(SECONDS), atol=1e-4)
    found = loudness(reading.media[0], 50)
    assert found.max() == 1
    parts = np.abs(values).reshape(50, -1).max(axis=1)
    np.testing.assert_allclose(found, parts / parts.max())


def test_a_terminal_shows_blocks_over_a_time_axis():
    told = printed(spoken())
    lines = {line.split()[0]: line for line in told.splitlines() if line.split()[:1]}
    assert "one two three four" in told
    assert "a.wav · 2.00 s" in told
    assert "0.51–1.01" in lines["two"]
    blocks_of = [lines[word][16:] for word in ("one", "two", "three", "four")]
    centres = [np.mean([place for place, letter in enumerate(each) if letter == "█"]) for each in blocks_of]
    assert centres == sorted(centres)
    assert "the silence after it" in told
    assert "20.0 %" in told
    narrow = printed(spoken(), width=40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert "two" in printed(spoken(), token="two")


def test_words_of_other_scripts_keep_their_columns():
    told = printed(spoken(("一", "海", "岸", "山")))
    rows = [line for line in told.splitlines() if line[:1] in "一海岸山" and "–" in line]
    assert len(rows) == 4


def test_blocks_and_axis():
    assert blocks(np.array([0, 0.01, 0.03, 0.5, 1, 2])) == "  ▁▄██"
    assert axis(2.0, 40) == "0 s       0.5       1         1.5       "
    assert len(axis(0.03, 8)) == 8


def test_a_picture_has_a_line_for_each_word(tmp_path):
    reading = spoken(("one", "two", "$x$", "海"))
    figure = reading.plot("speech", tmp_path / "it.png")
    wave, heat, *_ = figure.axes
    assert [label.get_text() for label in heat.get_yticklabels()] == ["one", "two", "$x$", "海"]
    assert wave.get_xlim() == (0, SECONDS)
    mesh = heat.collections[0]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(4, FRAMES).sum(axis=1), 0.8, atol=1e-6)
    # the times are marked where the words were spoken
    boxes = [(patch.get_x(), patch.get_y()) for patch in heat.patches]
    assert boxes == [(pytest.approx(time.start), row) for row, time in enumerate(reading.word_times())]
    assert (tmp_path / "it.png").stat().st_size > 10_000
    # it is what is drawn where nothing is asked for
    assert len(reading.plot(path=tmp_path / "same.svg").axes) == len(figure.axes)
    reading.save(tmp_path / "same.pdf")


def test_what_cannot_be_drawn_is_told():
    reading = spoken()
    assert has_sound(reading)
    other = dataclasses.replace(reading, media=[Sound("b.mp3", "audio/mpeg", b"ID3", SECONDS)])
    with pytest.raises(RegardError, match=r"b.mp3: not a WAV file that can be read"):
        other.plot("speech")
    with pytest.raises(RegardError, match=r"this reading has no sound; read\(audio=…\) gives the model one"):
        dataclasses.replace(reading, media=[]).plot("speech")
    with pytest.raises(RegardError, match="there is no sound 3; the reading has 1, counted from 0"):
        heard(reading, number=3)
    with pytest.raises(RegardError, match="there is no head 7"):
        reading.plot("speech", layer=0, head=7)


def test_the_header_has_seconds_and_times_and_no_file():
    reading = spoken()
    header = json.loads(json.dumps(wire.header(reading)))
    spans = header["sequences"]["source"]["spans"]
    assert spans["tokens"] == list(range(FRAMES))
    assert (spans["starts"][0], spans["ends"][-1]) == (0, 2)
    assert header["word_times"] == [[n, time.start, time.end] for n, time in enumerate(reading.word_times())]
    assert header["media"] == [
        {
            "sort": "sound",
            "name": "a.wav",
            "media_type": "audio/wav",
            "seconds": 2.0,
            "bytes": len(reading.media[0].data),
        }
    ]
    assert wire.answer(reading, {"type": "medium", "number": 0})[1] == [reading.media[0].data]


def test_a_text_shows_a_sound_as_one_piece():
    [fold] = folds(spoken().sequences["source"].tokens)
    assert (fold.first, fold.last, fold.image, fold.is_sound) == (0, FRAMES + SILENT, 0, True)
    assert fold.name == f"sound 1 · {FRAMES} frames"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_plays_the_sound_and_lights_the_words_that_looked_at_a_time(browser, tmp_path, theme):
    (tmp_path / "it.html").write_text(to_html(spoken(), "en"))
    page = browser.new_page(color_scheme=theme)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(f"file://{tmp_path}/it.html")
    page.wait_for_selector('[data-ready="true"]')
    page.wait_for_function("() => document.querySelector('audio').readyState >= 1")
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(SECONDS)
    assert page.locator(".speech h2").inner_text() == "sound 1 80.0 %"
    box = page.locator(".speech-box canvas").first.bounding_box()
    # in the third word's half second
    page.mouse.move(box["x"] + box["width"] * 0.62, box["y"] + 80)
    page.wait_for_function("() => document.querySelector('.speech .readout').textContent.includes('most by “three”')")
    page.mouse.move(0, 0)
    page.locator('[data-spine="output"] [data-t]', has_text="two").first.click()
    page.wait_for_function("() => document.querySelector('.speech .readout').textContent.includes('spoken from 0.5')")
    page.locator(".speech-box canvas").first.click(position={"x": box["width"] * 0.5, "y": 60})
    page.wait_for_function("() => document.querySelector('audio').currentTime >= 0.95")
    assert not wrong
    page.close()


def test_a_saved_reading_has_its_sound_again(tmp_path):
    reading = spoken()
    for name in ("it.json", "it.safetensors"):
        reading.save(tmp_path / name)
        found = regard.Reading.load(tmp_path / name)
        assert found.media == reading.media
        assert heard(found).shares == heard(reading).shares
