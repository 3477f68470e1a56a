"""What a viewer is sent decodes to what was read, as exactly as it says."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import regard
from regard.errors import RegardError
from regard.reading.record import Top
from regard.reading.removal import Removal
from regard.view import wire


def unpacked(sent: bytes, parts: list[dict]) -> dict[str, np.ndarray]:
    """The tables of a layer, read as the header tells."""
    found = {}
    for part in parts:
        count = math.prod(part["shape"])
        table = np.frombuffer(sent, np.dtype(part["dtype"]), count, part["offset"]).reshape(part["shape"])
        found[part["name"]] = wire.decode(table, part["top"]) if "top" in part else table
    return found


@given(st.floats(wire.FLOOR, 1), st.floats(1e-3, 1e3))
def test_a_value_is_rounded_by_no_more_than_is_stated(value, top):
    table = np.array([value * top], dtype=np.float32)
    found = wire.decode(wire.encode(table, top), top)
    assert abs(found[0] / table[0] - 1) <= wire.ROUNDING * 1.001


def test_nothing_and_all_are_exact_and_what_is_below_the_scale_is_nothing():
    table = np.array([0, wire.FLOOR / 2, 1], dtype=np.float32)
    assert wire.decode(wire.encode(table, 1.0), 1.0).tolist() == [0, 0, 1]
    assert wire.encode(np.zeros(3, np.float32), 0.0).tolist() == [0, 0, 0]


def test_a_layer_holds_the_tables_that_the_header_names(dogs):
    statistics = {"entropy": np.arange(28, dtype=np.float32).reshape(2, 14), "value_norm": 7 * dogs.maps["decoder", 1]}
    positions = np.full((2, 14, 2), -1)
    positions[:, :, 0] = 3
    reading = dataclasses.replace(
        dogs,
        statistics=dict.fromkeys(dogs.maps, statistics),
        tops={key: Top(positions, np.full((2, 14, 2), 0.25, np.float32)) for key in dogs.maps},
    )
    (kind,) = wire.header(reading)["kinds"]
    assert kind["measures"] == ["weights", "value_norm"]
    for layer in kind["layers"]:
        sent = wire.layer(reading, "decoder", layer["layer"])
        assert len(sent) == layer["bytes"]
        found = unpacked(sent, layer["parts"])
        for name in ("weights", "value_norm"):
            wanted = reading.weights("decoder", layer["layer"]) if name == "weights" else statistics[name]
            np.testing.assert_allclose(found[name], wanted, rtol=wire.ROUNDING * 1.001, atol=0)
        np.testing.assert_array_equal(found["entropy"], statistics["entropy"])
        assert found["top_positions"][0, 0].tolist() == [3, 2**16 - 1]
        np.testing.assert_allclose(found["top_weights"], 0.25, rtol=wire.ROUNDING)


def test_positions_past_two_bytes_take_four(by_hand):
    count = 2**16
    weights = np.zeros((1, 1, count), np.float32)
    weights[0, 0, -1] = 1
    reading = by_hand(["a"] * (count + 1), count, weights)
    top = Top(np.full((1, count, 1), count - 1), np.ones((1, count, 1), np.float32))
    reading = dataclasses.replace(reading, tops={("decoder", 0): top})
    parts = wire.header(reading)["kinds"][0]["layers"][0]["parts"]
    found = unpacked(wire.layer(reading, "decoder", 0), parts)
    assert found["top_positions"].dtype == np.uint32
    assert (found["top_positions"] == count - 1).all()


def test_means_and_single_rows_are_exact(dogs):
    both = np.concatenate([dogs.weights("decoder", 0), dogs.weights("decoder", 1)])
    found = np.frombuffer(wire.mean(dogs, "decoder"), "<f4").reshape(3, 14)
    np.testing.assert_allclose(found, both.mean(axis=0), rtol=1e-7)
    row = np.frombuffer(wire.exact(dogs, "decoder", 1, 0, 2), "<f4")
    np.testing.assert_array_equal(row, dogs.weights("decoder", 1)[0, 2])


def test_heads_of_layers_of_different_widths_count_alike(by_hand):
    one, three = np.zeros((1, 1, 3)), np.zeros((3, 1, 3))
    one[..., 0], three[..., 1] = 1, 1
    reading = by_hand(["a", "b", "c"], 0, one, three)
    assert np.frombuffer(wire.mean(reading, "decoder"), "<f4").tolist() == [0.25, 0.75, 0]
    assert [len(row) for row in wire.header(reading)["kinds"][0]["summary"]["strongest"]] == [1, 3]


def test_a_summary_is_what_the_rows_make_of_it(dogs):
    summary = wire.header(dogs)["kinds"][0]["summary"]
    weights = dogs.weights("decoder", 0)[0].astype(np.float64)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(axis=1).mean()
    away = np.abs(np.array(dogs.rows("decoder"))[:, None] - np.arange(14))
    assert summary["entropy"][0][0] == pytest.approx(entropy, rel=1e-5)
    assert summary["distance"][0][0] == pytest.approx((weights * away).sum(axis=1).mean(), rel=1e-5)
    assert summary["first_token"][0][0] == pytest.approx(0.5)
    assert summary["strongest"][1][1] == 1


def test_what_is_not_a_number_is_sent_as_none(dogs):
    nothing = {"induction": np.full((2, 14), np.nan, np.float32)}
    reading = dataclasses.replace(dogs, statistics=dict.fromkeys(dogs.maps, nothing))
    header = json.loads(json.dumps(wire.header(reading), allow_nan=False))
    assert header["kinds"][0]["summary"]["induction"] == [[None, None], [None, None]]


def test_offsets_count_as_a_browser_does(by_hand):
    pieces = ["a", " 😀", " 北京", "é"]
    reading = by_hand(pieces, 0, np.ones((1, 1, 4)) / 4)
    sent = wire.header(reading)["sequences"]["text"]
    units = sent["text"].encode("utf-16-le")
    found = [
        units[2 * start : 2 * end].decode("utf-16-le") for start, end in zip(sent["starts"], sent["ends"], strict=True)
    ]
    assert found == pieces


def test_turns_count_as_the_text_does(chat):
    header = json.loads(json.dumps(wire.header(chat)))
    units = header["sequences"]["text"]["text"].encode("utf-16-le")
    found = [units[2 * turn["start"] : 2 * turn["end"]].decode("utf-16-le") for turn in header["settings"]["turns"]]
    assert found == ["Be brief 😀.", "Ann has a dog. Bo has none.", "I see.", "Who has a dog?"]
    assert [turn["role"] for turn in header["settings"]["turns"]] == ["system", "user", "assistant", "user"]
    assert chat.settings["turns"][1]["start"] == header["settings"]["turns"][1]["start"] - 1


def test_a_chat_of_which_nothing_was_read_has_a_header(chat):
    reading = dataclasses.replace(chat, sequences={}, maps={}, sides={}, kept={}, checks={})
    assert "turns" not in wire.header(reading)["settings"]


def test_sources_count_as_the_text_does(sourced):
    header = json.loads(json.dumps(wire.header(sourced)))
    units = header["sequences"]["text"]["text"].encode("utf-16-le")
    found = header["settings"]["sources"]
    for source in (*found["sources"], found["question"]):
        assert units[2 * source["start"] : 2 * source["end"]].decode("utf-16-le") == source["text"]
    assert found["sources"][0]["start"] == sourced.settings["sources"]["sources"][0]["start"] + 1
    nothing = dataclasses.replace(sourced, sequences={}, maps={}, sides={}, kept={}, checks={})
    assert "sources" not in wire.header(nothing)["settings"]


def test_sources_are_sought_once_and_stay_with_the_reading(tiny_smollm2):
    prompt = "One two three. Four five six.\n\nWhat is it?"
    reading = regard.load(tiny_smollm2 / "models" / "smollm2").read(prompt, max_new_tokens=3)
    asked, steps = {"type": "sources", "grain": "sentences", "of": None}, []
    answer, tables = wire.answer(reading, asked, steps.append)
    # the estimates, and both sentences, together where neither is found alone
    assert steps in ([1] * 3, [1] * 4)
    sources = reading.settings["sources"]
    assert (answer["type"], tables) == ("sources", [])
    assert answer["sources"] == wire.header(reading)["settings"]["sources"]
    assert [source["text"] for source in sources["sources"]] == [source.text for source in reading.sources()]
    sources["answer"] = "kept"
    assert wire.answer(reading, asked)[0]["sources"]["answer"] == "kept"
    # asked otherwise, they are others
    count = reading.settings["prompt_tokens"]
    of = wire.answer(reading, asked | {"grain": "paragraphs", "of": [count + 1, count + 3]})[0]["sources"]
    assert of["asked"] == {"grain": "paragraphs", "of": [count + 1, count + 3], "within": None}
    wanted = reading.sources(grain="paragraphs", of=(1, 3))
    assert [source["text"] for source in of["sources"]] == ["One two three. Four five six."]
    assert of["log_probability"] == pytest.approx(wanted.log_probability, abs=1e-6)


ASKED = {"grain": "sentences", "of": None, "within": None}


def test_sources_within_a_passage_are_kept_with_those_around_it(tiny_smollm2, tmp_path):
    prompt = "😀 two three. Four five six.\n\nSeven eight nine.\n\nWhat is it?"
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    reading = model.read(prompt, max_new_tokens=3)
    text, tokens = reading.sequences["text"].text, reading.sequences["text"].tokens

    def positions(part):
        first, last = text.index(part), text.index(part) + len(part)
        inside = [number for number, token in enumerate(tokens) if first < token.end and token.start < last]
        return [inside[0], inside[-1] + 1]

    def ask(grain, within):
        found = wire.answer(reading, {"type": "sources", "grain": grain, "of": None, "within": within})[0]["sources"]
        return sorted(source["text"] for source in found["sources"]), found

    whole, outer = ask("paragraphs", None)
    assert whole == ["Seven eight nine.", "😀 two three. Four five six."]
    paragraph = positions("😀 two three. Four five six.")
    inner, found = ask("sentences", paragraph)
    assert inner == ["Four five six.", "😀 two three."]
    assert found["around"] == outer
    # units of the viewer's text, in which 😀 is two
    starts = {source["text"]: source["start"] for source in found["sources"]}
    assert starts["Four five six."] == text.index("Four") + 1
    words, deeper = ask("words", positions("Four five six."))
    assert words == ["Four", "five", "six."]
    assert deeper["around"] == found
    path = tmp_path / "a.safetensors"
    reading.save(path)
    assert wire.header(regard.Reading.load(path))["settings"]["sources"] == deeper
    # another paragraph stands in the whole, and what was asked before is not asked again
    assert ask("sentences", positions("Seven eight nine."))[1]["around"] == outer
    reading.settings["sources"]["around"]["answer"] = "kept"
    assert ask("paragraphs", None)[1]["answer"] == "kept"
    for wrong in ([0], [0, 0], [5, 4], [0, 1000], "all"):
        with pytest.raises(RegardError):
            ask("sentences", wrong)


def test_sources_of_a_file_that_says_nothing_else_are_by_sentence(sourced):
    assert wire.header(sourced)["settings"]["sources"]["asked"] == ASKED


def test_a_removal_is_run_once_and_stays_with_the_reading(dogs, monkeypatch):
    runs = []

    def removal(reading, span, *, progress):
        runs.append(span)
        progress(1)
        return Removal(*span, 12, np.array([-2.0, 0.5, len(runs)]))

    monkeypatch.setattr(type(dogs), "removal", removal)
    found = [{"start": 2, "end": 5, "first": 12, "effects": [-2.0, 0.5, 1.0]}]
    asked, steps = {"type": "removal", "start": 2, "end": 5}, []
    for _ in range(2):
        assert wire.answer(dogs, asked, steps.append) == ({**asked, "removals": found}, [])
    assert (runs, steps, wire.header(dogs)["settings"]["removals"]) == ([(2, 5)], [1], found)
    wire.answer(dogs, asked | {"start": 1})
    assert [each["start"] for each in dogs.settings["removals"]] == [2, 1]


def test_sources_that_are_no_numbers_are_refused(sourced, monkeypatch):
    found = sourced.settings.pop("sources")
    found["together"] = math.nan
    monkeypatch.setattr(type(sourced), "sources", lambda self, **options: SimpleNamespace(to_json=lambda: found))
    with pytest.raises(RegardError, match="not a finite number"):
        wire.answer(sourced, {"type": "sources", "grain": "sentences", "of": None})
    assert "sources" not in sourced.settings


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "layer", "kind": "decoder"},
        {"type": "layer", "kind": "decoder", "layer": "0"},
        {"type": "layer", "kind": "decoder", "layer": 9},
        {"type": "mean", "kind": "cross", "measure": "weights"},
        {"type": "mean", "kind": "decoder", "measure": "value_norm"},
        {"type": "exact", "kind": "decoder", "layer": 0, "head": 2, "row": 0},
        {"type": "exact", "kind": "decoder", "layer": 0, "head": 0, "row": -1},
        {"type": "removal", "start": 0, "end": 1},
        {"type": "removal", "start": 0},
        {"type": "why", "layer": 0, "head": 0, "row": 12},
        {"type": "why", "layer": 0, "head": 0, "row": 12, "key": 3},
        {"type": "sources"},
        {"type": "sources", "grain": "sentences", "of": None},
        {"type": "sources", "grain": "sentences", "of": [1, "2"]},
        {"type": "sources", "grain": ["sentences"], "of": None},
    ],
)
def test_what_cannot_be_answered_is_refused(dogs, message):
    with pytest.raises(RegardError):
        wire.answer(dogs, message)


def test_an_answer_repeats_the_question(dogs):
    asked = {"type": "layer", "kind": "decoder", "layer": 1}
    assert wire.answer(dogs, asked) == (asked, [wire.layer(dogs, "decoder", 1)])
