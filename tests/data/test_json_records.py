"""Records of JSON: lists and lines, keys by name, and every way in which they can be broken."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data import json_records
from regard.data.columns import PAIR, PAIR_NAMES, TEXT, Columns
from regard.data.json_records import read_json, read_json_lines
from regard.errors import RegardError

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
OTHERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.lists(st.integers(), max_size=2)
RECORDS = st.fixed_dictionaries({"source": TEXTS, "target": TEXTS}, optional={"x": OTHERS, "y": OTHERS})


def written(tmp_path, text, name="a.json"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refusal(path, columns=PAIR, read=read_json):
    with pytest.raises(RegardError) as caught:
        list(read(path, columns))
    return str(caught.value)


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
@given(records=st.lists(RECORDS, max_size=12), indent=st.sampled_from([None, 0, 3]), ascii=st.booleans())
def test_a_list_gives_the_records_that_were_put_into_it_in_whatever_pieces_it_comes(
    tmp_path_factory, piece, records, indent, ascii
):
    path = written(tmp_path_factory.mktemp("json"), json.dumps(records, indent=indent, ensure_ascii=ascii))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "PIECE", piece)
        patch.setattr("regard.data.lines.LONGEST_PIECE", 64)
        assert list(read_json(path, PAIR)) == [(record["source"], record["target"]) for record in records]


@given(records=st.lists(RECORDS, min_size=1, max_size=6), data=st.data())
def test_a_list_that_is_cut_off_anywhere_is_refused_with_its_line(tmp_path_factory, records, data):
    text = json.dumps(records, indent=1)
    cut = data.draw(st.integers(1, len(text) - 1))
    path = written(tmp_path_factory.mktemp("json"), text[:cut])
    assert refusal(path).startswith(f"{path}:")


def test_a_json_file_may_also_have_an_object_on_each_line(tmp_path):
    path = written(tmp_path, '\n{"target": "un", "source": "one"}\n{"source": "two", "target": "deux"}\n')
    assert list(read_json(path, PAIR)) == [("", ""), ("one", "un"), ("two", "deux")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"source": "a", "target": "b"} {"source": "c"}]', ":1: , is missing"),
        ('[{"source": "a", "target": "b"},\n\n{"source": "a", "target": }]', ":3: not a record of JSON"),
        ('[{"source": "a", "target": "b"},\n]', ":2: not a record of JSON"),
        ('[{"source": "a", "target": "b"}]\n[]', ":2: something follows the list"),
        ('[{"source": "a", "target": "b"},\n{"source": "a"}]', ":2: needs texts under 'source' and 'target'"),
        ('[{"source": "a", "target": "\\ud800"}]', ":1: half a surrogate pair"),
        ("[" * 100_000, ":1: "),
        ('[{"source": ' + "9" * 10_000 + "}]", ":1: not a record of JSON"),
        ('{\n "data": [{"source": "a", "target": "b"}]\n}', "a list of objects belongs into a .json file"),
        ('[{"id": "1", "en": "a", "fr": "b"}]', ":1: has the keys 'id', 'en', 'fr'; say which to read"),
        ("[1]", ":1: needs texts under"),
        ('{"data": [{"source": "a", "target": "b"}]}', "; save the list under 'data' as a file of its own"),
        ("[[]]", ":1: needs texts under"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused_with_its_line(tmp_path, text, says):
    assert says in refusal(written(tmp_path, text))


def test_a_record_longer_than_a_line_may_be_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "LONGEST_LINE", 1 << 17)
    path = written(tmp_path, '[{"source": "' + "x" * (1 << 20) + '", "target": "b"}]')
    read = []
    pieces = json_records.read_pieces
    monkeypatch.setattr(json_records, "read_pieces", lambda path: (read.append(1) or piece for piece in pieces(path)))
    assert ":1: not a record of JSON" in refusal(path)
    assert len(read) < 40


def test_keys_are_chosen_by_name_and_never_guessed(tmp_path, caplog):
    path = written(tmp_path, '{"id": 7, "fr": "un", "en": "one"}\n{"en": "two", "fr": "deux", "id": 8}\n', "a.jsonl")
    assert list(read_json_lines(path, Columns(PAIR_NAMES, ("en", "fr")))) == [("one", "un"), ("two", "deux")]
    # the only two texts, in the first record's order, which is told
    assert list(read_json_lines(path, PAIR)) == [("un", "one"), ("deux", "two")]
    assert "a.jsonl:1: source is 'fr', target is 'en'; to choose otherwise set data.source_key" in caplog.text
    assert list(read_json_lines(path, Columns(("text",), ("fr",)))) == [("un",), ("deux",)]
    assert "there is no key 'eng'; did you mean 'en'?" in refusal(
        path, Columns(PAIR_NAMES, ("eng", "fr")), read_json_lines
    )
    assert "has the keys 'fr', 'en'; say which to read: data.text_key" in refusal(path, TEXT, read_json_lines)


def test_records_may_be_lists_single_texts_and_translations_by_language(tmp_path):
    assert list(read_json(written(tmp_path, '[["one", "un"], ["two", "deux"]]'), PAIR)) == [
        ("one", "un"),
        ("two", "deux"),
    ]
    assert list(read_json(written(tmp_path, '["one", "two"]'), TEXT)) == [("one",), ("two",)]
    path = written(tmp_path, '{"translation": {"en": "one", "fr": "un"}}\n{"translation": {"fr": null, "en": "two"}}')
    assert list(read_json(path, PAIR)) == [("one", "un"), ("two", "")]
    assert list(read_json(path, Columns(PAIR_NAMES, ("fr", "en")))) == [("un", "one"), ("", "two")]
