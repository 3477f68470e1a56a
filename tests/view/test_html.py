"""The file is whole: its tables are those of the wire, its policy lets its own script run and no other."""

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pytest

import regard.api
from regard.reading.reading import Reading
from regard.view import wire
from regard.view.html import asset

BLOCK = re.compile(r'<script type="application/octet-stream;base64" id="([^"]*)">([^<]*)</script>\n')
HOSTILE = ["a</script>", "<script>alert(1)</script>", "<!--", "\u202eevil", "\x1b[31m", "]]>", "'\"&"]


def blocks(page: str) -> dict[str, bytes]:
    return {name: zlib.decompress(base64.b64decode(text)) for name, text in BLOCK.findall(page)}


def test_the_tables_of_the_file_are_those_of_the_wire(dogs):
    found = blocks(dogs.to_html())
    assert json.loads(found.pop("document")) == json.loads(json.dumps(wire.header(dogs)))
    assert found == {
        "reading.mean.decoder.weights": wire.mean(dogs, "decoder"),
        "reading.layer.decoder.0": wire.layer(dogs, "decoder", 0),
        "reading.layer.decoder.1": wire.layer(dogs, "decoder", 1),
    }


def test_the_policy_names_the_hashes_of_the_one_script_and_the_one_style(dogs):
    page = BLOCK.sub("", dogs.to_html())
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0]
    assert policy.startswith("default-src 'none'; ")
    for name, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_nothing_is_fetched_and_the_page_itself_is_small(dogs):
    page = BLOCK.sub("", dogs.to_html())
    assert len(page.encode()) < 300_000
    assert not re.findall(r"<(?:link|img|iframe|object|embed|base)\b|\bsrc=|\bhref=|@import|url\(", page)
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|innerHTML|\beval\(", page)


@pytest.mark.parametrize("lang", [None, "zh"])
def test_no_text_breaks_out_of_the_data(by_hand, lang):
    reading = by_hand([*HOSTILE, "end"], 0, np.ones((1, 1, len(HOSTILE) + 1)) / 8)
    page = Reading(**{**vars(reading), "model": "<b>\u202e</title>"}).to_html(lang)
    assert page.count("<script") == len(BLOCK.findall(page)) + 1
    assert "alert(1)" not in BLOCK.sub("", page)
    assert not {"\u202e", "\x1b"} & set(page)
    assert "&lt;b&gt;\\u202e&lt;/title&gt;" in page
    assert json.loads(blocks(page)["document"])["sequences"]["text"]["text"] == "".join([*HOSTILE, "end"])


def test_a_file_is_saved_by_its_suffix_after_loading_too(dogs, tmp_path):
    dogs.save(tmp_path / "dogs.safetensors")
    regard.Reading.load(tmp_path / "dogs.safetensors").save(tmp_path / "dogs.html")
    saved = (tmp_path / "dogs.html").read_text(encoding="utf-8")
    assert blocks(saved)["reading.layer.decoder.1"] == wire.layer(dogs, "decoder", 1)


def test_the_assets_are_part_of_the_package():
    assert "export" in asset("viewer.bundle.js")
    # an end tag would end the page's own script
    assert "</script" not in asset("viewer.bundle.js")
    assert "</style" not in asset("viewer.css")
