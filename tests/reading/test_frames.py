"""The tables of pandas and xarray hold the numbers of the reading, each beside the names of its place."""

import dataclasses
import importlib

import numpy as np
import pytest

import regard
from regard.errors import RegardError
from regard.reading.compute.statistics import SINK_SHARE, STATISTICS


@pytest.fixture(scope="module")
def reading(tiny_smollm2):
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    names = [name for name in STATISTICS if name != SINK_SHARE]
    return model.read("One, two. Three, one.", rows=[2, 3, 5], max_new_tokens=3, top_k=3, statistics=names)


@pytest.fixture(scope="module")
def translation(tmp_path_factory):
    """Two kinds whose layers have different numbers of heads."""
    tokens = [regard.reading.record.Token(7 + place, text, 0, 0, []) for place, text in enumerate("abc")]
    sequence = regard.reading.record.Sequence("", tokens, [])
    random = np.random.default_rng(2)
    maps = {
        ("encoder", 0): random.dirichlet(np.ones(3), size=(2, 3)).astype(np.float32),
        ("encoder", 1): random.dirichlet(np.ones(3), size=(4, 3)).astype(np.float32),
        ("cross", 0): random.dirichlet(np.ones(3), size=(2, 2)).astype(np.float32),
    }
    return regard.Reading(
        model="made",
        sequences={"source": sequence, "target": sequence},
        maps=maps,
        checks={},
        kept={"cross": [1, 2]},
        statistics={("encoder", 1): {"entropy": np.ones((4, 3), np.float32)}},
    )


def test_a_frame_has_a_line_for_every_weight(reading):
    pytest.importorskip("pandas")
    frame = reading.to_frame()
    weights = reading.weights()
    assert list(frame.columns) == [
        *("kind", "layer", "head", "query", "query_token", "written_token", "key", "key_token"),
        *("weight", "value_norm", "output_norm", "rollout"),
    ]
    assert len(frame) == weights.size
    for line in frame.sample(50, random_state=1).itertuples():
        place = (reading.layers().index(line.layer), line.head, reading.rows().index(line.query), line.key)
        assert line.weight == weights[place]
        assert line.value_norm == reading.statistic("value_norm")[place]
        assert line.rollout == reading.statistic("rollout")[place[0], *place[2:]]
        tokens = reading.tokens["text"]
        assert (line.kind, line.query_token, line.key_token) == ("decoder", tokens[line.query], tokens[line.key])
        assert line.written_token == tokens[line.query + 1]
    sums = frame.groupby(["layer", "head", "query"]).weight.sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    one = reading.to_frame(layer=-1)
    np.testing.assert_array_equal(one.weight, weights[-1].ravel())


@pytest.mark.parametrize("name", [name for name in STATISTICS if name != SINK_SHARE])
def test_a_frame_of_a_statistic_has_its_axes_as_columns(reading, name):
    pytest.importorskip("pandas")
    frame = reading.to_frame(name)
    table = reading.statistic(name)
    np.testing.assert_array_equal(frame[name], table.ravel())
    axes = {
        "row": ["query", "query_token", "written_token"],
        "query": ["query", "query_token"],
        "key": ["key", "key_token"],
    }
    columns = [column for axis in STATISTICS[name].axes for column in axes.get(axis, [axis])]
    assert list(frame.columns) == ["kind", "layer", *columns, name]


def test_a_frame_of_the_strongest_keys_has_those_that_there_are(reading):
    pytest.importorskip("pandas")
    frame = reading.to_frame("top", "decoder", 0)
    positions, weights = reading.top("decoder", 0)
    assert len(frame) == (positions >= 0).sum() < positions.size
    for line in frame.itertuples():
        assert positions[line.head, line.query, line.rank] == line.key
        assert weights[line.head, line.query, line.rank] == line.weight
        assert line.key_token == reading.tokens["text"][line.key]


def test_a_frame_takes_kinds_and_layers_that_differ(translation):
    pytest.importorskip("pandas")
    frame = translation.to_frame()
    assert len(frame) == sum(table.size for table in translation.maps.values())
    assert frame.written_token[frame.kind == "encoder"].isna().all()
    cross = frame[frame.kind == "cross"]
    assert cross.written_token[cross["query"] == 1].eq("c").all()
    assert cross.written_token[cross["query"] == 2].isna().all()
    entropy = translation.to_frame("entropy")
    assert entropy.layer.eq(1).all()
    assert len(entropy) == 12
    with pytest.raises(RegardError, match="no 'entropi' to make a frame of; did you mean 'entropy'"):
        translation.to_frame("entropi")
    with pytest.raises(RegardError, match=r"name one of them, as in to_frame\(kind='encoder'\)"):
        translation.to_frame(layer=0)


def test_a_dataset_has_every_table_by_the_names_of_its_axes(reading):
    pytest.importorskip("xarray")
    found = reading.to_xarray()
    keys = len(reading.keys())
    sizes = {"layer": 6, "head": 4, "row": 3, "key": keys, "query": keys, "segment": 2, "rank": 3}
    assert dict(found.sizes) == sizes
    np.testing.assert_array_equal(found.weights.sel(layer=1, head=2, row=3), reading.weights("decoder", 1)[2, 1])
    for name, statistic in STATISTICS.items():
        if name != SINK_SHARE:
            assert found[name].dims == ("layer", *statistic.axes)
            assert found[name].attrs == {"long_name": statistic.label, "units": statistic.unit or "1"}
            np.testing.assert_array_equal(found[name], reading.statistic(name))
    np.testing.assert_array_equal(found.top_positions, reading.top().positions)
    assert found.key_token.values.tolist() == [token.text for token in reading.keys("decoder")]
    assert found.row_token.values.tolist() == [token.text for token in reading.queries()]
    assert found.written_token.values.tolist() == [token.text for token in reading.written()]
    assert found["query"].values.tolist() == [*range(keys)]
    assert found.attrs["model"] == reading.model


def test_a_dataset_marks_what_a_layer_lacks_and_names_what_was_refused(reading):
    pytest.importorskip("xarray")
    statistics = {place: found for place, found in reading.statistics.items() if place[1] != 2}
    maps = {place: table for place, table in reading.maps.items() if place[1] != 4}
    statistics.pop(("decoder", 4))
    tops = {place: top for place, top in reading.tops.items() if place[1] != 4}
    poorer = dataclasses.replace(
        reading, maps=maps, statistics=statistics, tops=tops, refused={("decoder", 4): "linear attention"}
    )
    found = poorer.to_xarray()
    assert found.layer.values.tolist() == [0, 1, 2, 3, 5]
    assert found.entropy.sel(layer=2).isnull().all()
    np.testing.assert_array_equal(found.entropy.sel(layer=5), reading.statistic("entropy", "decoder", 5))
    assert found.attrs["refused"] == ["4: linear attention"]


def test_a_dataset_is_of_one_kind_whose_layers_agree(translation):
    pytest.importorskip("xarray")
    with pytest.raises(RegardError, match=r"encoder, cross attention; name one of them, as in to_xarray\('encoder'\)"):
        translation.to_xarray()
    with pytest.raises(RegardError, match="weights of encoder layers differ in shape"):
        translation.to_xarray("encoder")
    assert translation.to_xarray("cross").written_token.values.tolist() == ["c", ""]


@pytest.mark.parametrize(("method", "library"), [("to_frame", "pandas"), ("to_xarray", "xarray")])
def test_what_is_not_installed_is_told_with_the_command(translation, monkeypatch, method, library):
    def missing(name, *_):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RegardError, match=rf"{method} needs {library}; pip install 'regard\[frames\]'"):
        getattr(translation, method)(kind="cross")
