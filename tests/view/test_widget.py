"""In a notebook: a still that needs no script, and a widget that answers the viewer."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest

import regard
from regard.errors import RegardError
from regard.view import wire


def test_a_still_shades_tokens_by_their_share_and_runs_nothing(dogs):
    still = dogs._repr_html_()
    assert not re.search(r"<(?:script|style|link|img)|\son\w+=|javascript:", still)
    shades = {
        text.strip(): float(strength)
        for strength, text in re.findall(r"rgba\([\d,]+,([\d.]+)\)[^>]*>([^<]*)</span>", still)
    }
    # the mean of three rows gave 17 % to “Bo”, more than to any other; the first token stands apart
    assert max(shades, key=shades.__getitem__) == "Bo"
    assert "Ann" not in shades
    assert "first token apart, 62" in still


def test_a_still_shows_text_as_text(by_hand):
    reading = by_hand(["a", "<script>x</script>", "\u202e", "b"], 0, [[[0.1, 0.6, 0.2, 0.1]]])
    still = reading._repr_html_()
    assert "&lt;script&gt;" in still
    assert "\\u202e" in still
    assert "<script" not in still


def test_a_long_text_is_shown_around_what_is_strongest(by_hand):
    weights = np.full((1, 1, 5000), 1e-5)
    weights[0, 0, 3000] = 0.9
    pieces = [f" w{place}" for place in range(5000)]
    still = by_hand(pieces, 0, weights)._repr_html_()
    assert " w3000<" in still
    assert " w100<" not in still
    assert "tokens" in still
    assert len(still) < 40_000


def test_a_reading_without_weights_has_no_still(dogs):
    assert dataclasses.replace(dogs, maps={}, checks={})._repr_html_() is None


def test_a_widget_answers_what_the_viewer_asks(dogs):
    pytest.importorskip("anywidget")
    made, sent = dogs.widget(lang="zh"), []
    made.send = lambda content, buffers=None: sent.append((content, buffers))
    assert (made.lang, made.live, made.exact) == ("zh", False, True)
    assert made.header["kinds"][0]["rows"] == dogs.rows("decoder")
    asked = {"type": "layer", "kind": "decoder", "layer": 1}
    made._handle_custom_msg(asked, [])
    assert sent.pop() == (asked, [wire.layer(dogs, "decoder", 1)])
    asked = {"type": "removal", "start": 0, "end": 1}
    made._handle_custom_msg(asked, [])
    told, buffers = sent.pop()
    assert (told["type"], told["asked"], buffers) == ("error", asked, [])
    assert "needs the model itself" in told["message"]


def test_an_interrupt_of_the_kernel_ends_what_runs(dogs, monkeypatch):
    pytest.importorskip("anywidget")

    def interrupted(reading, span, *, progress):
        progress(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(dogs), "removal", interrupted)
    made, sent = dogs.widget(), []
    made.send = lambda content, buffers=None: sent.append(content)
    asked = {"type": "removal", "start": 0, "end": 1}
    made._handle_custom_msg(asked, [])
    assert sent == [{"type": "progress", "asked": asked, "done": 1}, {"type": "stopped", "asked": asked}]


def test_a_widget_seeks_sources_which_stay_with_the_reading(tiny_smollm2, tmp_path):
    pytest.importorskip("anywidget")
    prompt = "One two three. Four five six.\n\nWhat is it?"
    reading = regard.load(tiny_smollm2 / "models" / "smollm2").read(prompt, max_new_tokens=3)
    made, sent = reading.widget(), []
    made.send = lambda content, buffers=None: sent.append((content, buffers))
    made._handle_custom_msg({"type": "sources", "grain": "sentences", "of": None}, [])
    *steps, (answer, buffers) = sent
    assert (answer["type"], buffers) == ("sources", [])
    assert [told["done"] for told, _ in steps] == list(range(1, len(steps) + 1))
    reading.save(tmp_path / "a.safetensors")
    assert regard.Reading.load(tmp_path / "a.safetensors").settings["sources"] == answer["sources"]


def test_a_widget_of_a_live_reading_says_so(dogs):
    pytest.importorskip("anywidget")
    assert dataclasses.replace(dogs, knockout=lambda row, spans: np.zeros(1)).widget().live is True


def test_without_anywidget_the_remedy_is_told(dogs, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RegardError, match=r"pip install 'regard\[view\]'"):
        dogs.widget()


def test_anywidget_is_imported_only_when_a_widget_is_made():
    program = "import sys, regard.api; print([name for name in ('anywidget', 'traitlets') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
