"""A reading comes back from disk as it went, and its alignment is the arithmetic it says it is."""

import itertools
import json
import xml.etree.ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

from regard.errors import RegardError
from regard.reading.alignment import word_alignment
from regard.reading.reading import Reading
from regard.reading.record import Check, Sequence, Token
from regard.reading.replay import replay
from regard.view import renderers

renderers.register()


def assert_same(ours, theirs):
    assert ours.facts() == theirs.facts()
    assert ours.maps.keys() == theirs.maps.keys()
    for key, table in ours.maps.items():
        np.testing.assert_array_equal(table, theirs.maps[key], strict=True)


def with_a_refusal():
    """A reading without any model: of two layers one was refused."""
    token = Token(id=4, text="a\n\"é\u2028🙂", start=0, end=1, words=[0])  # fmt: skip
    end = Token(id=2, text="</s>", start=1, end=1, words=[])
    return Reading(
        model="toy",
        sequences={"source": Sequence("a", [token, end], ["a"]), "target": Sequence("a", [end, token, end], ["a"])},
        maps={("cross", 3): np.full((1, 2, 2), 0.5, dtype=np.float32)},
        checks={("cross", 3): Check(0.0, 1e-7, 2), ("cross", 5): Check(0.5, 0.5, 2)},
        refused={("cross", 5): "off by 5.0e-01"},
        settings={"num_beams": 4},
    )


def test_a_saved_reading_comes_back_exactly(read, tmp_path):
    path = tmp_path / "reading.safetensors"
    reading = read()
    reading.save(path)
    again = Reading.load(path)
    assert_same(again, reading)
    assert again.sequences == reading.sequences
    assert (again.checks, again.refused) == (reading.checks, reading.refused)
    np.testing.assert_array_equal(again.alignment(), reading.alignment())


def test_refusals_settings_and_any_text_come_back_too(tmp_path):
    path = tmp_path / "reading.safetensors"
    reading = with_a_refusal()
    reading.save(path)
    again = Reading.load(path)
    assert_same(again, reading)
    assert again.sequences["source"].tokens[0].text == "a\n\"é\u2028🙂"  # fmt: skip
    with pytest.raises(RegardError, match=r"cross layer 5 was refused: off by 5.0e-01"):
        again.weights("cross", -1)


def test_the_file_is_plain_safetensors(read, tmp_path):
    path = tmp_path / "reading.safetensors"
    reading = read()
    reading.save(path)
    assert set(load_file(path)) == {f"weights.{kind}.{layer}" for kind, layer in reading.maps}


def test_the_json_holds_every_weight_and_every_token(read, tmp_path):
    path = tmp_path / "reading.json"
    reading = read()
    reading.save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(reading.to_json()))
    for (kind, layer), table in reading.maps.items():
        # float32 is written in so many digits that it comes back
        np.testing.assert_array_equal(np.array(document["weights"][f"{kind}.{layer}"], dtype=np.float32), table)
    for name, sequence in reading.sequences.items():
        found = document["sequences"][name]
        assert [token["text"] for token in found["tokens"]] == reading.tokens[name]
        assert (found["text"], found["words"]) == (sequence.text, sequence.words)


@pytest.fixture
def reading(module_of, tokenizer):
    target = tokenizer.encode("un deux")
    return replay(module_of("transformer"), tokenizer, "one two three", target, model="toy", max_length=40)


def test_a_reading_is_drawn_as_a_picture_with_its_words(reading, tmp_path):
    from matplotlib.image import imread

    reading.save(tmp_path / "reading.png")
    assert imread(tmp_path / "reading.png").std() > 0
    reading.save(tmp_path / "reading.svg")
    tree = xml.etree.ElementTree.parse(tmp_path / "reading.svg")
    assert tree.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    text = (tmp_path / "reading.svg").read_text(encoding="utf-8")
    for word in ("one", "two", "three", "un", "deux"):
        assert word in text


@pytest.mark.parametrize("name", ["reading.csv", "reading", "reading.pt"])
def test_another_suffix_is_refused_with_those_there_are(reading, tmp_path, name):
    with pytest.raises(RegardError, match=r"saved as \.safetensors, \.json, \.png, \.svg, \.pdf, \.html, not"):
        reading.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def spoilt(path, tensors, **facts):
    """The reading in `path`, with other tensors and some facts changed."""
    reading = with_a_refusal()
    metadata = {"format": "regard-reading-1", "reading": json.dumps(reading.facts() | facts)}
    save_file(tensors, path, metadata)


TABLE = np.full((1, 2, 2), 0.5, dtype=np.float32)
SPOILS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "of another make": lambda path: save_file({"cross.0": TABLE}, path),
    "of another format": lambda path: save_file({"cross.0": TABLE}, path, {"format": "regard-reading-0"}),
    "without facts": lambda path: save_file({"cross.0": TABLE}, path, {"format": "regard-reading-1"}),
    "facts that are no JSON": lambda path: save_file(
        {"cross.0": TABLE}, path, {"format": "regard-reading-1", "reading": "{"}
    ),
    "facts that are a list": lambda path: save_file(
        {"cross.0": TABLE}, path, {"format": "regard-reading-1", "reading": "[]"}
    ),
    "sequences that are a list": lambda path: spoilt(path, {"weights.cross.3": TABLE}, sequences=[]),
    "a check without figures": lambda path: spoilt(path, {"weights.cross.3": TABLE}, checks={"cross.3": {}}),
    "a layer without number": lambda path: spoilt(path, {"weights.cross": TABLE}),
    "a tensor of no known sort": lambda path: spoilt(path, {"cross.3": TABLE}),
    "a layer of no known kind": lambda path: spoilt(path, {"weights.crosses.3": TABLE}),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_file_that_is_no_reading_is_refused_by_name(spoil, tmp_path):
    path = tmp_path / "reading.safetensors"
    with_a_refusal().save(path)
    Reading.load(path)
    spoil(path)
    why = r"reading\.safetensors: (not a (readable )?reading|its format is regard-reading-0)"
    with pytest.raises(RegardError, match=why):
        Reading.load(path)


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 3, 2), (1, 1, 2), (1, 2, 1), (2, 2), (1, 1, 2, 2)])
def test_weights_that_do_not_fit_the_tokens_are_refused(shape, tmp_path):
    path = tmp_path / "reading.safetensors"
    spoilt(path, {"weights.cross.3": TABLE})
    Reading.load(path)
    spoilt(path, {"weights.cross.3": np.full(shape, 0.5, dtype=np.float32)})
    with pytest.raises(RegardError, match=r"reading\.safetensors: not a readable reading: cross layer 3 has .* 2 rows"):
        Reading.load(path)


def test_a_reading_says_in_a_line_what_it_is(reading):
    told = []
    for kind in ("encoder", "decoder", "cross"):
        heads, rows, keys = reading.weights(kind, 0).shape
        told.append(f"{kind} 2 layers × {heads} heads × {rows} rows × {keys} keys")
    assert repr(reading) == f"<Reading of toy: source 'one two three'; target 'un deux'; {'; '.join(told)}>"


def test_its_line_tells_refusals_sorts_and_layers_with_other_numbers_of_heads(tmp_path):
    patch = Token(-1, "image patch (0, 0)", 0, 0, [], "image patch")
    words = [Token(5, "a\n", 0, 2, [0]), Token(6, "b" * 60, 2, 62, [1])]
    reading = Reading(
        model="toy",
        sequences={"text": Sequence("a\n" + "b" * 60, [patch, patch, *words], ["a", "b" * 60])},
        maps={("decoder", layer): np.full((2 + layer, 1, 4), 0.25, np.float32) for layer in (0, 2)},
        checks={},
        refused={("decoder", 1): "linear attention"},
        sides={"decoder": ("text", "text")},
        kept={"decoder": [3]},
    )
    assert repr(reading) == (
        f"<Reading of toy: text 'a\\n{37 * 'b'}…'; decoder 2 layers × 2 or 4 heads × 1 rows × 4 keys; "
        "1 layers refused; image patch × 2, token × 2>"
    )


def test_readings_are_told_apart_by_identity():
    # arrays have no one truth, so == between their tables would raise
    reading = with_a_refusal()
    assert reading in [with_a_refusal(), reading]
    assert reading != with_a_refusal()


def test_a_file_that_is_not_there_and_a_folder_are_told(tmp_path):
    with pytest.raises(RegardError, match=r"none\.safetensors: there is no such file"):
        Reading.load(tmp_path / "none.safetensors")
    with pytest.raises(RegardError, match="not a readable reading"):
        Reading.load(tmp_path)


def test_a_words_weight_is_the_sum_over_its_source_tokens_and_the_mean_over_its_target_tokens():
    table = np.array(
        [
            # the | ca | ts | EOS
            [0.6, 0.1, 0.2, 0.1],  # les
            [0.1, 0.3, 0.4, 0.2],  # ch
            [0.0, 0.5, 0.2, 0.3],  # ats
            [0.0, 0.0, 0.0, 1.0],  # EOS
        ]
    )
    found = word_alignment(table, target_words=[[0], [1], [1], []], source_words=[[0], [1], [1], []], shape=(2, 2))
    np.testing.assert_allclose(found, [[0.6, 0.3], [0.05, 0.7]])


def test_a_token_over_two_characters_shares_its_weight_as_a_key_and_counts_for_both_as_a_row():
    table = np.array(
        [
            # 北京 | 大 | EOS
            [0.6, 0.3, 0.1],  # 東京
            [0.2, 0.4, 0.4],  # 京 again, as a part of the next token
            [0.0, 0.0, 1.0],  # EOS
        ]
    )
    found = word_alignment(table, target_words=[[0, 1], [1], []], source_words=[[0, 1], [2], []], shape=(2, 3))
    # 東 is the first row alone, 京 the mean of both; 北 and 京 of the source have half of one weight each
    np.testing.assert_allclose(found, [[0.3, 0.3, 0.3], [0.2, 0.2, 0.35]])


def test_words_need_not_stand_together():
    table = np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    found = word_alignment(table, target_words=[[1], [0]], source_words=[[1], [0], [1]], shape=(2, 2))
    np.testing.assert_allclose(found, [[0.4, 0.6], [0.3, 0.7]])


@given(
    table=arrays(np.float64, (6, 5), elements=st.floats(0.001, 1)),
    target_words=st.lists(st.lists(st.integers(0, 2), unique=True), min_size=6, max_size=6),
    source_words=st.lists(st.lists(st.integers(0, 3), unique=True), min_size=5, max_size=5),
)
def test_words_share_all_weight_but_that_on_special_tokens(table, target_words, source_words):
    table /= table.sum(-1, keepdims=True)
    found = word_alignment(table, target_words=target_words, source_words=source_words, shape=(3, 4))
    special = table[:, [not own for own in source_words]].sum(-1)
    for word in range(3):
        rows = [row for row, own in enumerate(target_words) if word in own]
        assert np.isclose(found[word].sum(), (1 - special[rows]).mean() if rows else 0)


def test_the_alignment_is_of_the_layer_and_head_asked_for(reading):
    def by_hand(table):
        source, target = reading.sequences["source"].tokens, reading.sequences["target"].tokens[1:]
        merged = np.zeros((2, 3))
        for row, written in enumerate(target):
            for column, key in enumerate(source):
                for word, seen in itertools.product(written.words, key.words):
                    tokens = sum(word in token.words for token in target)
                    merged[word, seen] += table[row, column] / len(key.words) / tokens
        return merged

    for layer in (0, 1):
        weights = reading.weights("cross", layer)
        np.testing.assert_allclose(reading.alignment(layer=layer), by_hand(weights.mean(0)), atol=1e-7)
        for head in range(3):
            np.testing.assert_allclose(reading.alignment(layer=layer, head=head), by_hand(weights[head]), atol=1e-7)
    np.testing.assert_array_equal(reading.alignment(), reading.alignment(layer=1))
    assert np.abs(reading.alignment(layer=0) - reading.alignment(layer=1)).max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"layer": 2}, "there is no cross layer 2; layers: 0, 1"),
        ({"layer": -3}, "there is no cross layer -3; layers: 0, 1"),
        ({"head": 3}, "there is no head 3; cross layer -1 has heads 0 to 2"),
        ({"head": -1}, "there is no head -1"),
    ],
)
def test_a_layer_or_head_that_there_is_not_is_refused(reading, asked, message):
    with pytest.raises(RegardError, match=message):
        reading.alignment(**asked)


def test_an_alignment_needs_cross_attention(reading):
    kept = {key: table for key, table in reading.maps.items() if key[0] == "encoder"}
    alone = Reading(model="toy", sequences=reading.sequences, maps=kept, checks={})
    with pytest.raises(RegardError, match="this reading has no 'cross' attention; choose from encoder"):
        alone.alignment()
