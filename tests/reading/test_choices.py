"""Kinds and layers are named as little as they need to be, and an error says what is to be written."""

import copy
import itertools
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from regard.errors import RegardError
from regard.reading.labels import placed
from regard.reading.reading import Reading
from regard.reading.record import Check, Top

TEXT = "one two three four"
SPANS = [(0, 3), (3, 7), (7, 13), (13, 18)]


def made(kinds=("decoder",), heads=(2, 2, 2), refused=()):
    """Random weights of three layers with the numbers 0, 2 and 5."""
    words = [(0, 3), (4, 7), (8, 13), (14, 18)]
    sequence = placed(TEXT, [7, 8, 9, 10], [TEXT[start:end] for start, end in SPANS], SPANS, words)
    random = np.random.default_rng(1)
    layers = dict(zip((0, 2, 5), heads, strict=True))
    places = [(kind, layer) for kind in kinds for layer in layers if (kind, layer) not in refused]
    maps = {place: random.dirichlet(np.ones(4), size=(layers[place[1]], 4)).astype(np.float32) for place in places}
    return Reading(
        model="made",
        sequences={"text": sequence},
        maps=maps,
        checks={place: Check(0.0, 0.0, 4) for place in places},
        refused=dict.fromkeys(refused, "its rows do not sum to 1: off by 5.0e-01"),
        sides=dict.fromkeys(kinds, ("text", "text")),
        tops={place: Top(np.argsort(-maps[place])[..., :2], -np.sort(-maps[place])[..., :2]) for place in places},
        statistics={place: {"received": maps[place].sum(1), "entropy": maps[place][:, :, 0]} for place in places},
    )


def test_without_a_layer_the_tables_of_all_layers_come_in_the_order_of_their_numbers():
    reading = made()
    assert reading.layers() == [0, 2, 5]
    assert reading.weights().shape == (3, 2, 4, 4)
    for index, layer in enumerate(reading.layers()):
        np.testing.assert_array_equal(reading.weights()[index], reading.maps["decoder", layer])
        np.testing.assert_array_equal(reading.weights(layer=layer), reading.maps["decoder", layer])
        np.testing.assert_array_equal(reading.weights("decoder", layer), reading.maps["decoder", layer])
        np.testing.assert_array_equal(reading.top().positions[index], reading.tops["decoder", layer].positions)
        np.testing.assert_array_equal(reading.top("decoder").weights[index], reading.top("decoder", layer).weights)
        np.testing.assert_array_equal(
            reading.statistic("received")[index], reading.statistic("received", "decoder", np.int64(layer))
        )
    np.testing.assert_array_equal(reading.weights(layer=-1), reading.weights()[2])
    assert reading.rows() == [0, 1, 2, 3]
    assert len(reading.queries()) == len(reading.keys()) == len(reading.written()) == 4


def test_a_refused_layer_is_in_no_table_of_all_and_layers_say_so():
    reading = made(refused=[("decoder", 2)])
    assert reading.layers() == [0, 5]
    np.testing.assert_array_equal(reading.weights()[1], reading.weights(layer=5))
    with pytest.raises(RegardError, match="decoder layer 2 was refused: its rows do not sum"):
        reading.weights(layer=2)


@pytest.mark.parametrize("ask", ["weights", "rows", "queries", "keys", "written"])
def test_a_kind_of_which_every_layer_was_refused_says_why(ask):
    reading = replace(made(refused=[("cross", 0)]), sides={"decoder": ("text", "text")})
    with pytest.raises(RegardError, match="refused cross layer 0: its rows do not sum to 1"):
        getattr(reading, ask)("cross")


@pytest.mark.parametrize("of", ["weights", "top", "received"])
def test_layers_that_differ_in_shape_are_named(of):
    reading = made(heads=(2, 3, 2))
    ask = {"weights": reading.weights, "top": reading.top, "received": lambda: reading.statistic("received")}[of]
    with pytest.raises(RegardError, match=r"differ in shape: 2 × .* in layers 0, 5; 3 × .* in layers 2; ask for one"):
        ask()
    assert reading.weights(layer=2).shape == (3, 4, 4)


ERRORS = {
    "several kinds": (
        lambda reading: reading.weights(),
        r"encoder, decoder attention; name one of them, as in weights\('encoder', 3\)",
    ),
    "a layer alone": (lambda reading: reading.weights(3), r"is a word: write weights\('encoder', 3\), not 3"),
    "swapped": (lambda reading: reading.weights(3, "decoder"), r"write weights\('encoder', 3\), not 3"),
    "swapped top": (lambda reading: reading.top(3, "decoder"), r"write top\('encoder', 3\), not 3"),
    "a kind that is a list": (lambda reading: reading.weights(["decoder"]), r"is a word: .*, not \['decoder'\]"),
    "an array": (lambda reading: reading.weights(np.arange(2)), "the kind of attention is a word"),
    "no such kind": (lambda reading: reading.weights("decode"), "no 'decode' attention; did you mean 'decoder'"),
    "a list": (lambda reading: reading.weights("decoder", [0, 2]), r"one whole number, .* not \[0, 2\]; leave it out"),
    "a slice": (lambda reading: reading.weights("decoder", slice(2)), "one whole number, .* not slice"),
    "a float": (lambda reading: reading.weights("decoder", 2.0), r"one whole number, .* not 2\.0"),
    "a bool": (lambda reading: reading.weights("decoder", True), "one whole number, .* not True"),
    "a string": (lambda reading: reading.weights("decoder", "2"), "one whole number, .* not '2'"),
    "a tuple": (lambda reading: reading.top("decoder", (0,)), r"one whole number, .* not \(0,\)"),
    "out of range": (lambda reading: reading.weights("decoder", 1), "there is no decoder layer 1; layers: 0, 2, 5"),
    "a kind as name": (
        lambda reading: reading.statistic("decoder", "received", 1),
        r"name comes first: statistic\('entropy', 'decoder', 3\), not 'decoder'",
    ),
    "a layer as name": (lambda reading: reading.statistic(1, "decoder", "received"), "name comes first: .* not 1"),
    "a layer as kind": (
        lambda reading: reading.statistic("received", 1, "decoder"),
        r"write statistic\('received', 'encoder', 3\), not 1",
    ),
    "a statistic that was not read": (
        lambda reading: reading.statistic("entropi", "decoder"),
        "decoder layer 0 has no statistic 'entropi'; did you mean 'entropy'",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_to_write(name):
    ask, message = ERRORS[name]
    with pytest.raises(RegardError, match=message):
        ask(made(kinds=("encoder", "decoder")))


def test_a_reading_of_nothing_says_why():
    reading = made(kinds=("decoder",), refused=[("decoder", layer) for layer in (0, 2, 5)])
    with pytest.raises(RegardError, match=r"no attention; refused decoder layer 0: its rows"):
        reading.weights()
    with pytest.raises(RegardError, match=r"no 'decoder' attention; refused decoder layer 0: its rows"):
        reading.weights("decoder")


def test_a_reading_pickles_and_is_copied_without_its_model():
    unpicklable = made()
    object.__setattr__(unpicklable, "knockout", lambda row, spans: np.zeros(len(spans)))
    for again in (pickle.loads(pickle.dumps(unpicklable)), copy.deepcopy(unpicklable)):
        assert again.facts() == unpicklable.facts()
        np.testing.assert_array_equal(again.weights(), unpicklable.weights())
        with pytest.raises(RegardError, match="effects need the model itself"):
            again.effect(2, (0, 1))
    assert unpicklable.effect(2, (0, 1)) == 0


class Asked:
    """Notes what it is asked, in place of a model."""

    def __call__(self, row, spans):
        self.row, self.spans = row, spans
        return np.arange(len(spans), dtype=float)


@pytest.fixture
def asked():
    pieces = ["北京", "很大", "。", " The", " light", "house", " the", " light", "."]
    text = "".join(pieces)
    ends = np.cumsum([0, *map(len, pieces)]).tolist()
    sequence = placed(text, list(range(9)), pieces, [*itertools.pairwise(ends)], [])
    return Reading(
        model="made",
        sequences={"text": sequence},
        maps={("decoder", 0): np.full((1, 1, 8), 1 / 8, np.float32)},
        checks={},
        sides={"decoder": ("text", "text")},
        kept={"decoder": [7]},
        knockout=Asked(),
    )


def test_a_span_may_be_a_text_which_stands_for_all_tokens_that_have_a_part_of_it(asked):
    spans = ["北京", "京很", "很大。", "house", "ghthous", (2, 5), [0, 1], (np.int64(1), 3), " The"]
    assert asked.effects(7, spans).tolist() == [*range(9)]
    assert asked.knockout.spans == [(0, 1), (0, 2), (1, 3), (5, 6), (4, 6), (2, 5), (0, 1), (1, 3), (3, 4)]
    # where the row does not see the second, the first is meant
    asked.effect(5, "light")
    assert asked.knockout.spans == [(4, 5)]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda reading: reading.effect(7, "dark"), "'dark' cannot be hidden: the text does not have it"),
        (lambda reading: reading.effect(3, "house"), "'house' cannot be hidden: row 3 does not see all of it"),
        (lambda reading: reading.effect(4, "lighthouse"), "row 4 does not see all of it"),
        (lambda reading: reading.effect(7, "light"), r"row 7 sees 'light' 2 times; .* of one: \(4, 5\), \(7, 8\)"),
        (lambda reading: reading.effect(7, ""), "a span of no text hides nothing"),
        (lambda reading: reading.effect((0, 2), 5), "comes after the row, not 5"),
        (lambda reading: reading.effects([(0, 2)], 5), r"the row comes first .* not \[\(0, 2\)\]"),
        (lambda reading: reading.effect("light", 5), "comes after the row, not 5"),
        (lambda reading: reading.effects(True, [(0, 2)]), "the row comes first .* not True"),
        (lambda reading: reading.effects(7, "house"), "effects takes several spans, .* not 'house'"),
        (lambda reading: reading.effects(7, 5), "effects takes several spans, .* not 5"),
        (lambda reading: reading.effects(7, (1, 5)), "a span is a pair of positions, .* not 1"),
        (lambda reading: reading.effect(7, (1, 2, 3)), r"a span is a pair of positions, .* not \(1, 2, 3\)"),
        (lambda reading: reading.effect(7, (0.0, 2)), r"a span is a pair of positions, .* not \(0\.0, 2\)"),
    ],
)
def test_a_span_that_is_none_is_told(asked, ask, message):
    with pytest.raises(RegardError, match=message):
        ask(asked)


def test_a_text_that_stands_everywhere_offers_a_few_places(asked):
    sequence = placed("a" * 30, [1] * 30, ["a"] * 30, [(place, place + 1) for place in range(30)], [])
    asked.sequences["text"] = sequence
    with pytest.raises(RegardError, match=re.escape("'a' 21 times; give the positions of one: (0, 1), (1, 2), (2, 3)")):
        asked.effect(20, "a")
