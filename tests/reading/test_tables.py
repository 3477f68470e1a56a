"""What a researcher takes from a reading: all layers at once, tables with names, files, copies without the model."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES

import regard
from regard.errors import RegardError
from regard.reading.reading import Reading

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


@pytest.mark.parametrize("name", ["llama", "gemma3", "falcon_alibi", "bart"])
def test_scores_are_what_the_softmax_of_a_witness_takes(name, tmp_path):
    architecture = ARCHITECTURES[name]
    model, inputs = architecture.build("sdpa"), architecture.inputs()
    with torch.no_grad(), regard.watching(model, rows="all", scores=True) as watch:
        calls = witness.capture(model, lambda: model(**inputs), kinds=architecture.kinds)
    reading = watch.reading(0)
    assert reading.score_maps.keys() == reading.maps.keys() != set()
    for call in calls:
        found = torch.as_tensor(reading.scores(call.kind, call.layer)).double()
        truth = witness.truth(call)[0]
        torch.testing.assert_close(found.softmax(-1).nan_to_num(), truth, rtol=0, atol=1e-5)
        # not up to a constant alone: the product of queries and keys themselves, where nothing is added
        if name == "llama":
            products = (call.query @ call.key.repeat_interleave(2, dim=1).mT)[0].double() * call.settings["scaling"]
            seen = ~torch.isneginf(found)
            torch.testing.assert_close(found[seen], products[seen], rtol=0, atol=1e-4)
    for suffix in (".safetensors", ".json"):
        reading.save(tmp_path / f"a{suffix}")
        again = Reading.load(tmp_path / f"a{suffix}")
        for place, table in reading.score_maps.items():
            np.testing.assert_array_equal(again.scores(*place), table)


def test_scores_that_were_not_asked_for_or_not_seen_are_an_error_that_says_so():
    with pytest.raises(RegardError, match="scores=True"):
        read().scores()
    architecture = ARCHITECTURES["openai_gpt"]
    model = architecture.build("eager")
    with torch.no_grad(), regard.watching(model, rows="all", scores=True) as watch:
        model(**architecture.inputs())
    with pytest.raises(RegardError, match="softmax itself"):
        watch.reading(0).scores()


def test_a_watched_run_is_asked_for_effects_only_where_its_tokens_are_all_that_it_was_given():
    architecture = ARCHITECTURES["llama"]
    model, ids = architecture.build("sdpa"), architecture.inputs()["input_ids"][:1]
    with torch.no_grad(), regard.watching(model, rows="all") as watch:
        model(input_ids=ids)
    effect = watch.reading(0).effect(8, (2, 5))
    with torch.no_grad():
        mask = torch.ones(9, 9, dtype=torch.bool).tril()
        mask[8, 2:5] = False
        hidden = model(input_ids=ids[:, :9], attention_mask=mask[None, None], position_ids=torch.arange(9)[None])
        plain = model(input_ids=ids[:, :9])
    change = [each.logits[0, 8].double().log_softmax(-1)[ids[0, 9]] for each in (hidden, plain)]
    assert effect == pytest.approx(float(change[0] - change[1]), abs=1e-5)
    others = (
        {"inputs_embeds": model.get_input_embeddings()(ids).detach() + 1},
        {"input_ids": ids, "position_ids": torch.arange(13)[None] + 3},
        {"input_ids": ids, "attention_mask": torch.ones(1, 1, 13, 13, dtype=torch.bool)},
    )
    for inputs in others:
        with torch.no_grad(), regard.watching(model, rows="all") as watch:
            model(**inputs)
        with pytest.raises(RegardError, match="effects need the model"):
            watch.reading(0).effect(8, (2, 5))
