"""What a researcher takes from a reading: all layers at once, tables with names, files, copies without the model."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from benchmarks.zoo import ARCHITECTURES

import regard
from regard.errors import RegardError
from regard.reading.record import Reading

pytest.importorskip("transformers")


def read(name="llama", **settings):
    architecture = ARCHITECTURES[name]
    model = architecture.build("sdpa")
    with torch.no_grad(), regard.watching(model, rows="all", **settings) as watch:
        model(**architecture.inputs())
    return watch.reading(1)


def test_all_layers_are_one_array_in_the_order_of_layers():
    reading = read(top_k=2, statistics=("entropy",))
    assert reading.weights().shape == (2, 4, 9, 9)
    assert (reading.weights()[1] == reading.weights("decoder", 1)).all()
    assert (reading.top().positions[0] == reading.top("decoder", 0).positions).all()
    assert (reading.statistic("entropy")[1] == reading.statistic("entropy", "decoder", 1)).all()


@pytest.mark.parametrize(
    "ask",
    [
        lambda reading: reading.weights(3, "decoder"),
        lambda reading: reading.weights("decoder", [0, 1]),
        lambda reading: reading.weights("decoder", slice(0, 1)),
        lambda reading: reading.weights("decoder", 0.5),
        lambda reading: reading.weights("decoder", True),
        lambda reading: reading.statistic("decoder", "entropy", 1),
        lambda reading: reading.top("decoder", "last"),
    ],
)
def test_what_is_no_kind_or_layer_is_an_error_that_says_what_to_write(ask):
    with pytest.raises(RegardError):
        ask(read(top_k=2, statistics=("entropy",)))


def test_of_several_kinds_one_has_to_be_named():
    with pytest.raises(RegardError, match=r"encoder.*decoder.*cross"):
        read("bart").weights()


def test_a_reading_is_copied_and_pickled_as_it_is():
    reading = read(statistics=("received",))
    for other in (copy.deepcopy(reading), pickle.loads(pickle.dumps(reading))):
        assert (other.weights() == reading.weights()).all()
        assert other.tokens == reading.tokens


def test_json_loads_as_it_was_saved(tmp_path):
    reading = read(top_k=2, statistics=("entropy", "induction"))
    reading.save(tmp_path / "a.json")
    json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    again = Reading.load(tmp_path / "a.json")
    assert (again.weights() == reading.weights()).all()
    np.testing.assert_array_equal(again.statistic("induction"), reading.statistic("induction"))
    assert again.sequences == reading.sequences


def test_a_frame_and_a_data_set_have_every_weight_by_name():
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    reading = read()
    frame = reading.to_frame()
    assert len(frame) == reading.weights().size
    row = frame[(frame.layer == 1) & (frame["head"] == 2) & (frame["query"] == 5) & (frame.key == 3)]
    assert float(row.weight.iloc[0]) == pytest.approx(float(reading.weights("decoder", 1)[2, 5, 3]))
    data = reading.to_xarray()
    assert data["weights"].dims == ("layer", "head", "row", "key")
    assert float(data["weights"].sel(layer=1, head=2, row=5, key=3)) == pytest.approx(
        float(reading.weights("decoder", 1)[2, 5, 3])
    )
