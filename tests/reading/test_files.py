"""Readings as files: JSON comes back as exactly as safetensors, old files still load, and no file does harm."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from regard.errors import RegardError
from regard.reading import files
from regard.reading.media import ImageArea, Picture, Sound, SoundSpan, area_of, medium_of
from regard.reading.reading import Reading
from regard.reading.record import Check, Sequence, Token, Top

FLOATS = st.floats(0, 1, width=32)


def whole(weights=None):
    """A decoder and an encoder without any kept row, with all that a reading can have."""
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(3), size=(2, 2)).astype(np.float32) if weights is None else weights
    patch = Token(-1, "image patch (0, 0)", 0, 0, [], "image patch", ImageArea(0, 0, 0, 0.0, 0.0, 7.5, 14.0))
    tokens = [patch, *(Token(9, "é🙂", 0, 2, [0]) for _ in range(2))]
    induction = np.full((2, 3), np.nan, np.float32)
    induction[0, 1] = 1 / 3
    return Reading(
        model="toy",
        sequences={"text": Sequence("é🙂", tokens, ["é🙂"])},
        maps={("decoder", 3): weights, ("encoder", 0): np.zeros((4, 0, 3), np.float32)},
        checks={("decoder", 3): Check(1e-9, 3e-8, 2), ("decoder", 4): Check(math.nan, math.inf, 2)},
        refused={("decoder", 4): "its weights or values are not numbers (NaN)"},
        settings={"implementation": "sdpa", "prompt_tokens": 1},
        sides={"decoder": ("text", "text"), "encoder": ("text", "text")},
        kept={"decoder": [0, 2], "encoder": []},
        tops={("decoder", 3): Top(np.array([[[0, -1]] * 3] * 2), np.array([[[0.7, 0]] * 3] * 2, np.float32))},
        statistics={
            ("decoder", 3): {"induction": induction, "rollout": weights[0], "own.name": np.ones((2, 1), np.float32)},
            ("encoder", 0): {"value_norm": np.zeros((4, 0, 3), np.float32)},
        },
        media=[Picture("cat.png", "image/png", b"\x89PNG", 15, 28), Sound("hm.wav", "audio/wav", b"RIFF", 0.5)],
    )


def assert_same(again, reading):
    assert json.dumps(again.to_json(), sort_keys=True) == json.dumps(reading.to_json(), sort_keys=True)
    ours, theirs = dict(again.tensors()), dict(reading.tensors())
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        np.testing.assert_array_equal(table, theirs[name], err_msg=name, strict=True)
    assert again.sequences == reading.sequences
    assert (again.refused, again.sides, again.kept) == (reading.refused, reading.sides, reading.kept)
    assert again.checks["decoder", 3] == reading.checks["decoder", 3]
    assert math.isnan(again.checks["decoder", 4].row_sum_error)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_all_of_a_reading_comes_back_exactly(suffix, tmp_path):
    whole().save(tmp_path / f"a{suffix}")
    assert_same(Reading.load(tmp_path / f"a{suffix}"), whole())


@given(weights=arrays(np.float32, (2, 2, 3), elements=FLOATS))
def test_every_float32_comes_back_from_json(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("json") / "a.json"
    whole(weights).save(path)
    np.testing.assert_array_equal(Reading.load(path).weights("decoder", 3), weights, strict=True)


def test_the_json_is_json(tmp_path):
    path = tmp_path / "a.json"
    whole().save(path)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert document["statistics"]["decoder.3"]["induction"][0] == [None, float(np.float32(1 / 3)), None]
    assert document["shapes"]["weights.encoder.0"] == [4, 0, 3]
    assert document["checks"]["decoder.4"] == {"row_sum_error": None, "context_error": None, "rows": 2}


def test_what_json_has_no_number_for_is_told(tmp_path):
    reading = dataclasses.replace(whole(), statistics={("decoder", 3): {"mine": np.array([[np.inf]], np.float32)}})
    with pytest.raises(RegardError, match=r"a\.json: JSON cannot hold this reading .*; save it as \.safetensors"):
        reading.save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


# as 0.1.0 wrote them: tokens without a sort, JSON without format and shapes, and NaN as it stands
OLD_FACTS = {
    "model": "old",
    "sequences": {
        "source": {
            "text": "a b",
            "words": ["a", "b"],
            "tokens": [
                {"id": 5, "text": "a", "start": 0, "end": 1, "words": [0]},
                {"id": 6, "text": " b", "start": 1, "end": 3, "words": [1]},
            ],
        },
        "target": {
            "text": "c",
            "words": ["c"],
            "tokens": [
                {"id": 1, "text": "<s>", "start": 0, "end": 0, "words": []},
                {"id": -1, "text": "patch 1", "start": 0, "end": 1, "words": [0]},
            ],
        },
    },
    "checks": {"cross.1": {"row_sum_error": 0.0, "context_error": 1e-7, "rows": 1}},
    "refused": {"cross.0": "off by 5.0e-01"},
    "settings": {"num_beams": 4},
    "sides": {"cross": ["target", "source"]},
    "rows": {"cross": [0]},
}
OLD_TABLES = {
    "weights.cross.1": np.array([[[0.25, 0.75]]], np.float32),
    "top.cross.1.positions": np.array([[[1, 0]]]),
    "top.cross.1.weights": np.array([[[0.75, 0.25]]], np.float32),
    "statistic.cross.1.received": np.array([[0.25, 0.75]], np.float32),
    "statistic.cross.1.induction": np.array([[np.nan]], np.float32),
}


def test_a_safetensors_file_of_0_1_0_loads(tmp_path):
    save_file(
        OLD_TABLES, tmp_path / "old.safetensors", {"format": "regard-reading-1", "reading": json.dumps(OLD_FACTS)}
    )
    check_old(Reading.load(tmp_path / "old.safetensors"))


def test_a_json_file_of_0_1_0_loads(tmp_path):
    tables = {name: table.tolist() for name, table in OLD_TABLES.items()}
    document = OLD_FACTS | {
        "weights": {"cross.1": tables["weights.cross.1"]},
        "top": {"cross.1": {part: tables[f"top.cross.1.{part}"] for part in ("positions", "weights")}},
        "statistics": {"cross.1": {name: tables[f"statistic.cross.1.{name}"] for name in ("received", "induction")}},
    }
    text = json.dumps(document)
    assert "NaN" in text
    (tmp_path / "old.json").write_text(text)
    check_old(Reading.load(tmp_path / "old.json"))


def check_old(reading):
    assert [token.sort for sequence in reading.sequences.values() for token in sequence.tokens] == ["token"] * 4
    assert reading.tokens == {"source": ["a", " b"], "target": ["<s>", "patch 1"]}
    assert reading.weights("cross", -1).tolist() == [[[0.25, 0.75]]]
    assert reading.top("cross", 1).positions.tolist() == [[[1, 0]]]
    assert reading.top("cross", 1).positions.dtype == np.int64
    assert np.isnan(reading.statistic("induction", "cross", 1)).all()
    assert reading.checks == {("cross", 1): Check(0.0, 1e-7, 1)}
    with pytest.raises(RegardError, match="cross layer 0 was refused: off by 5"):
        reading.weights("cross", 0)


@pytest.mark.parametrize(
    "change",
    [{"sort": "image patch"}, {"sort": ""}, {"sort": 3}, {"sort": None}, {"sort": "token", "more": 1}],
)
def test_a_token_of_another_sort_has_no_id(change, tmp_path):
    facts = json.loads(json.dumps(OLD_FACTS))
    facts["sequences"]["source"]["tokens"][0] |= change
    save_file(OLD_TABLES, tmp_path / "a.safetensors", {"format": "regard-reading-1", "reading": json.dumps(facts)})
    with pytest.raises(RegardError, match="not valid: token 0 of sequence 'source'"):
        Reading.load(tmp_path / "a.safetensors")
    facts["sequences"]["source"]["tokens"][0] = OLD_FACTS["sequences"]["source"]["tokens"][0] | {"id": -1, "sort": "x"}
    save_file(OLD_TABLES, tmp_path / "a.safetensors", {"format": "regard-reading-1", "reading": json.dumps(facts)})
    assert Reading.load(tmp_path / "a.safetensors").sequences["source"].tokens[0].sort == "x"


def changed(place, value):
    """The JSON of a reading with another value at a place, or without it."""
    document = json.loads(json.dumps(whole().to_json()))
    holder = document
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    return json.dumps(document)


ROW = ("weights", "decoder.3", 0, 0)
HOSTILE = {
    "empty": "",
    "cut off": changed(("model",), "toy")[:-40],
    "a number": "7",
    "another document": '{"weights": {}}',
    "of another format": changed(("format",), "regard-view-1"),
    "deep": "[" * 200_000,
    "deep in a reading": '{"sequences": ' + "[" * 200_000,
    "ragged": changed(ROW, [0.5]),
    "texts for numbers": changed(ROW, ["0.5", "0.25", "0.25"]),
    "one text for a number": changed(ROW, [0.5, "0.25", 0.25]),
    "objects for numbers": changed(ROW, [{}, {}, {}]),
    "nothing for a weight": changed(ROW, [None, 0.5, 0.5]),
    "a number past every float": changed(ROW, [1e308, 0, 0]),
    "a number past every integer": changed(ROW, [10**400, 0, 0]),
    "a weight above 1": changed(ROW, [2.5, 0, 0]),
    "a shape that is another": changed(("shapes", "weights.decoder.3"), [2, 3, 2]),
    "a shape without end": changed(("shapes", "weights.encoder.0"), [4, 0, 10**15]),
    "a negative shape": changed(("shapes", "weights.encoder.0"), [4, 0, -1]),
    "a shape of texts": changed(("shapes", "weights.encoder.0"), ["4"]),
    "half a position": changed(("top", "decoder.3", "positions"), [[[0.5, -1]] * 3] * 2),
    "a position outside": changed(("top", "decoder.3", "positions"), [[[7, -1]] * 3] * 2),
    "strongest keys without weights": changed(("top", "decoder.3"), {"positions": [[[0, -1]] * 3] * 2}),
    "a layer that is none": changed(("weights", "decoder.x"), [[[1.0]]]),
    "a check that is no number": changed(("checks", "decoder.3", "row_sum_error"), None),
    "statistics of no layer": changed(("statistics", "decoder.8"), {"entropy": [[0.0]]}),
    "no sides": changed(("sides",), {}),
    "sides of no sequence": changed(("sides", "decoder"), ["text", "image"]),
    "infinite weights": changed(ROW, [1, 0, 0]).replace("[1, 0, 0]", "[Infinity, 0, 0]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_json_that_is_no_reading_is_told(name, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(HOSTILE[name], encoding="utf-8")
    with pytest.raises(RegardError, match=r"a\.json: not a (readable )?reading"):
        Reading.load(path)


def test_json_past_its_limits_is_told_before_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    whole().save(path)
    size = path.stat().st_size
    monkeypatch.setattr(files, "MOST_JSON", size)
    Reading.load(path)
    monkeypatch.setattr(files, "MOST_JSON", size - 1)
    with pytest.raises(RegardError, match=r"a\.json: .*too much to load; save the reading as \.safetensors"):
        Reading.load(path)
    monkeypatch.undo()
    monkeypatch.setattr(files, "MOST_LISTS", 20)
    with pytest.raises(RegardError, match=r"too much to load"):
        Reading.load(path)


def test_a_device_without_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_JSON", 1 << 16)
    (tmp_path / "a.json").symlink_to("/dev/zero")
    with pytest.raises(RegardError, match=r"a\.json: .*too much to load"):
        Reading.load(tmp_path / "a.json")


def with_sources():
    """A reading of an emoji with an answer that rests on it."""
    source = {
        "text": "é🙂",
        "start": 0,
        "end": 2,
        "estimate": -1,
        "effect": -2.5,
        "token_effects": [-2.5],
        "share": 1.0,
    }
    reading = whole()
    reading.settings["sources"] = {
        "answer": "é",
        "verdict": {"text": "rests on ①", "on": [0], "either": False},
        "log_probability": -0.5,
        "together": None,
        "method": "gradient",
        "why": "",
        "passes": 4.0,
        "question": None,
        "sources": [source],
    }
    return reading


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_sources_are_kept(suffix, tmp_path):
    with_sources().save(tmp_path / f"a{suffix}")
    assert Reading.load(tmp_path / f"a{suffix}").settings == with_sources().settings


SOURCES = {
    "no object": lambda sources: [],
    "no verdict": lambda sources: sources.pop("verdict") and sources,
    "a place past the text": lambda sources: sources["sources"][0].update(end=3, text="é🙂") or sources,
    "a place before the text": lambda sources: sources["sources"][0].update(start=-2) or sources,
    "another text": lambda sources: sources["sources"][0].update(text="e") or sources,
    "half a place": lambda sources: sources["sources"][0].update(end=1.5) or sources,
    "an effect of text": lambda sources: sources["sources"][0].update(effect="") or sources,
    "tokens of text": lambda sources: sources["sources"][0].update(token_effects="ab") or sources,
    "no share": lambda sources: sources["sources"][0].pop("share") and sources,
    "a question of text": lambda sources: sources | {"question": "why?"},
    "a source that is not there": lambda sources: sources["verdict"].update(on=[1]) or sources,
    "a source that was not tried": lambda sources: sources["sources"][0].update(effect=None) or sources,
    "either of one": lambda sources: sources["verdict"].update(either=True) or sources,
    "passes of text": lambda sources: sources | {"passes": "4"},
    "asked without a grain": lambda sources: sources | {"asked": {"of": None}},
    "asked of more than the text": lambda sources: sources | {"asked": {"grain": "turns", "of": [1, 4]}},
    "asked of nothing": lambda sources: sources | {"asked": {"grain": "turns", "of": [1, 1]}},
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_of_a_file_are_checked(name, tmp_path):
    reading = with_sources()
    reading.settings["sources"] = SOURCES[name](reading.settings["sources"])
    reading.save(tmp_path / "a.json")
    with pytest.raises(RegardError):
        Reading.load(tmp_path / "a.json")


def test_sources_of_a_reading_without_a_text_are_refused(tmp_path):
    reading = with_sources()
    reading = dataclasses.replace(
        reading,
        sequences={"image": reading.sequences["text"]},
        sides=dict.fromkeys(reading.sides, ("image", "image")),
    )
    reading.save(tmp_path / "a.json")
    with pytest.raises(RegardError):
        Reading.load(tmp_path / "a.json")


REMOVAL = {"start": 0, "end": 1, "first": 1, "effects": [-2.5, 0.25]}


def test_removals_and_how_sources_were_asked_for_are_kept(tmp_path):
    reading = with_sources()
    reading.settings["sources"]["asked"] = {"grain": "turns", "of": [1, 3]}
    reading.settings["removals"] = [REMOVAL]
    reading.save(tmp_path / "a.json")
    assert Reading.load(tmp_path / "a.json").settings == reading.settings


@pytest.mark.parametrize(
    "removals",
    [
        {},
        [3],
        [REMOVAL | {"more": 1}],
        [REMOVAL | {"start": -1}],
        [REMOVAL | {"start": 1}],
        [REMOVAL | {"end": 2}],
        [REMOVAL | {"end": True}],
        [REMOVAL | {"first": 2}],
        [REMOVAL | {"effects": []}],
        [REMOVAL | {"effects": "ab"}],
        [REMOVAL | {"effects": [None]}],
        [{"start": 0, "end": 1, "first": 1}],
    ],
)
def test_removals_of_a_file_are_checked(removals, tmp_path):
    reading = whole()
    reading.settings["removals"] = removals
    reading.save(tmp_path / "a.json")
    with pytest.raises(RegardError, match="not a readable reading"):
        Reading.load(tmp_path / "a.json")


def test_a_chat_saved_without_its_text_is_loaded(tmp_path):
    turns = [{"role": "user", "start": 3, "end": 5}]
    reading = Reading("toy", {}, {}, {}, refused={("decoder", 0): "no softmax"}, settings={"turns": turns}, sides={})
    reading.save(tmp_path / "a.json")
    assert Reading.load(tmp_path / "a.json").settings["turns"] == turns
    turns[0]["end"] = 3
    reading.save(tmp_path / "a.json")
    with pytest.raises(RegardError, match="not valid: turns"):
        Reading.load(tmp_path / "a.json")


def test_areas_and_media_come_back_and_others_are_refused():
    for area in (ImageArea(1, 2, 3, 0.0, 0.5, 7.0, 8.0), SoundSpan(0, 0.02, 0.04)):
        assert area_of(area._asdict()) == area
    for facts in (
        {"image": -1, "row": 0, "column": 0, "left": 0, "top": 0, "right": 1, "bottom": 1},
        {"sound": 0, "start": math.nan, "end": 1.0},
        {"sound": 0},
        {"sound": 0.5, "start": 0.0, "end": 1.0},
    ):
        with pytest.raises((ValueError, TypeError)):
            area_of(facts)
    picture = {"sort": "image", "name": "a", "media_type": "image/png", "data": "AAAA", "width": 1, "height": 1}
    assert medium_of(picture) == Picture("a", "image/png", b"\0\0\0", 1, 1)
    for change in ({"data": "?"}, {"media_type": "text/html"}, {"width": 0}, {"sort": "film"}, {"name": 3}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            medium_of({**picture, **change})


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_reading_of_a_later_format_asks_for_a_newer_regard(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"later{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMAT", "regard-reading-2")
        whole().save(path)
        assert_same(Reading.load(path), whole())
    with pytest.raises(RegardError, match="its format is regard-reading-2, this version of Regard reads regard-readin"):
        Reading.load(path)
