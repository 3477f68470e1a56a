"""Files that are opened come from anywhere: whatever is in them is shown or told, and nothing else happens."""

import copy
import json
import random

import numpy as np
import pytest
from safetensors.numpy import save_file

import regard
from regard.errors import RegardError
from regard.reading.files import FORMAT
from regard.reading.reading import Reading
from regard.view import wire
from regard.view.server.limits import LIMITS
from regard.view.server.readings import OpenReadings, title

ODD = [
    None,
    True,
    -1,
    0,
    3,
    10**30,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\u202e",
    [],
    {},
    [1],
    ["a"],
    {"a": 1},
    [[]],
]
STATISTICS = ("value_norm", "entropy", "received", "segments", "rollout")


@pytest.fixture(scope="module")
def reading(tiny_smollm2):
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    return model.read(text="one two three", rows=[1, 3], top_k=2, statistics=STATISTICS, layers=[0, 5])


def show(facts, tensors, folder):
    """All that the page makes of a file."""
    path = folder / "reading.safetensors"
    metadata = {"format": FORMAT, "reading": json.dumps(facts)}
    save_file({name: np.ascontiguousarray(table) for name, table in tensors.items()}, path, metadata)
    reading = Reading.load(path)
    shown = OpenReadings(LIMITS).add(reading, title=title(reading))
    json.dumps([shown.title, reading.model, wire.header(reading)], allow_nan=False, ensure_ascii=False).encode("utf-8")
    for kind in reading.kinds:
        for layer in reading.layers(kind):
            wire.layer(reading, kind, layer)
        wire.mean(reading, kind)
        for measure in wire.header(reading)["kinds"][0]["measures"]:
            wire.mean(reading, kind, measure)
        wire.exact(reading, kind, reading.layers(kind)[0], 0, 0)
    return reading


def told(facts, tensors, folder):
    """What is told of a file, None where it is shown."""
    try:
        show(facts, tensors, folder)
    except RegardError as error:
        return str(error)
    return None


def places(value, before=()):
    """The ways to all values within a value."""
    yield before
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, each in items:
        yield from places(each, (*before, name))


def changed(value, place, new):
    value = copy.deepcopy(value)
    if not place:
        return new
    holder = value
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = new
    return value


def test_an_honest_file_is_shown(reading, tmp_path):
    assert wire.header(show(reading.facts(), dict(reading.tensors()), tmp_path)) == wire.header(reading)


def test_whatever_its_facts_say_it_is_shown_or_told(reading, tmp_path):
    facts, tensors = reading.facts(), dict(reading.tensors())
    chance = random.Random(0)
    found = [
        told(changed(facts, place, new), tensors, tmp_path) for place in places(facts) for new in chance.sample(ODD, 4)
    ]
    refused = [message for message in found if message is not None]
    assert all("not a readable reading" in message for message in refused)
    assert 0 < len(found) - len(refused) < len(refused)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.reshape(-1),
        lambda table: table[:1],
        lambda table: table[..., :1],
        lambda table: table[None],
        lambda table: np.zeros((0,) * table.ndim, table.dtype),
        lambda table: np.full(table.shape, np.nan),
        lambda table: np.full(table.shape, np.inf),
        lambda table: table.astype(np.float32) - 2,
        lambda table: table.astype(np.float32) + 99,
        lambda table: table.astype(np.uint8),
        lambda table: table.astype(bool),
    ],
)
def test_whatever_its_tables_are_it_is_shown_or_told(reading, change, tmp_path):
    facts, tensors = reading.facts(), dict(reading.tensors())
    for name, table in tensors.items():
        message = told(facts, {**tensors, name: change(table)}, tmp_path)
        assert message is None or "not a readable reading" in message
        # what the viewer would misread is never shown
        assert message or not name.startswith(("weights", "top")) or change(table).shape == table.shape


@pytest.mark.parametrize(
    "name", ["weights.decoder.77", "weights.x.0", "weights", "top.decoder.0.more", "statistic.decoder.0.more"]
)
def test_tables_that_no_reading_has_are_shown_or_told(reading, name, tmp_path):
    tensors = dict(reading.tensors())
    message = told(reading.facts(), {**tensors, name: tensors["weights.decoder.0"]}, tmp_path)
    assert message is None or "not a readable reading" in message or "no 'x' attention" in message


@pytest.mark.parametrize("weight", [-0.1, 1.5, np.nan, np.inf])
def test_a_weight_that_is_none_is_told(reading, weight, tmp_path):
    tensors = {name: table.copy() for name, table in reading.tensors()}
    tensors["weights.decoder.5"][0, 0, 0] = weight
    with pytest.raises(RegardError, match="not valid: the weights of decoder layer 5"):
        show(reading.facts(), tensors, tmp_path)


def test_metadata_without_end_is_told(reading, tmp_path):
    path = tmp_path / "deep.safetensors"
    save_file({"weights.decoder.0": np.ones((1, 1, 1), np.float32)}, path, {"format": FORMAT, "reading": "[" * 200_000})
    with pytest.raises(RegardError, match="not a readable reading"):
        Reading.load(path)
