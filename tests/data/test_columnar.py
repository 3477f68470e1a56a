"""Parquet and Arrow: columns, blank cells, and files that are cut off, damaged or swollen."""

import pytest

from regard.data import columnar
from regard.data.columns import PAIR, PAIR_NAMES, TEXT, Columns
from regard.data.formats import FORMATS, read_pairs
from regard.errors import RegardError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")

PAIRS = [("one", "un"), ("two", "deux"), ("", "trois")]
COLUMNS = {"id": pa.array(range(3)), "en": ["one", "two", None], "fr": ["un", "deux", "trois"]}


def stream(table, path):
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def arrow_file(table, path):
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


WRITERS = {
    "a.parquet": lambda table, path: parquet.write_table(table, path, row_group_size=25),
    "stream.arrow": stream,
    "file.arrow": arrow_file,
    "a.feather": lambda table, path: feather.write_feather(table, str(path), compression="zstd"),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    def write(columns):
        path = tmp_path / request.param
        WRITERS[request.param](pa.table(columns), path)
        return path

    return write


def read(path, columns=PAIR):
    return list(FORMATS[path.suffix](path, columns))


def refusal(path, columns=PAIR):
    with pytest.raises(RegardError) as caught:
        read(path, columns)
    return str(caught.value)


def test_columns_of_text_are_chosen_by_name_and_an_empty_cell_is_blank(written, caplog):
    path = written(COLUMNS)
    assert read(path, Columns(PAIR_NAMES, ("fr", "en"))) == [pair[::-1] for pair in PAIRS]
    # the only two of text, which is told
    assert read(path) == PAIRS
    assert f"{path}: source is 'en', target is 'fr'" in caplog.text
    assert list(read_pairs([path])) == PAIRS[:2]
    assert read(path, Columns(("text",), ("fr",))) == [("un",), ("deux",), ("trois",)]


@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_of_every_type_are_read(written, type):
    assert read(written({"source": pa.array(["é", "é", "中文"], type), "target": pa.array(["a", "b", "c"], type)})) == [
        ("é", "a"),
        ("é", "b"),
        ("中文", "c"),
    ]


def test_a_translation_by_language_is_two_columns_and_one_that_is_missing_blank(written):
    path = written({"translation": [{"en": "one", "fr": "un"}, {"en": "two", "fr": None}, None]})
    assert read(path) == [("one", "un"), ("two", ""), ("", "")]
    assert read(path, Columns(PAIR_NAMES, ("fr", "en")))[0] == ("un", "one")


def test_what_stays_open_is_refused_with_the_columns(written):
    path = written(COLUMNS | {"de": ["eins", "zwei", "drei"]})
    assert "has the columns 'en', 'fr', 'de'; say which to read: data.source_key" in refusal(path)
    assert "there is no column 'id'" in refusal(path, Columns(PAIR_NAMES, ("id", "fr")))
    assert "has no column of text, but n (int64)" in refusal(written({"n": [1, 2]}), TEXT)


def test_a_file_that_is_cut_off_anywhere_is_refused(written):
    path = written({"source": [f"source {n}" for n in range(50)], "target": [f"target {n}" for n in range(50)]})
    data = path.read_bytes()
    for cut in (0, 5, 20, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:cut])
        assert "not a whole Parquet or Arrow file" in refusal(path), cut


def test_a_damaged_file_is_refused_or_read_but_nothing_else(written):
    path = written({"source": [f"source {n}" for n in range(50)], "target": [f"target {n}" for n in range(50)]})
    data = path.read_bytes()
    refused = 0
    for place in range(8, len(data), 61):
        path.write_bytes(data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :])
        try:
            assert len(read(path)) <= 50
        except RegardError:
            refused += 1
    assert refused


def test_one_text_that_many_rows_share_is_refused_before_it_fills_the_memory(written, monkeypatch):
    monkeypatch.setattr(columnar, "BOMB_SIZE", 1 << 20)
    texts = pa.array(["x" * 50_000] * 1000, pa.string()).dictionary_encode()
    path = written({"source": texts, "target": texts})
    before, held = pa.total_allocated_bytes(), []
    rows = (pa.total_allocated_bytes() - before for _ in FORMATS[path.suffix](path, PAIR))
    with pytest.raises(RegardError, match="unpacks to more than 200 times its size"):
        held.extend(rows)
    assert held
    assert max(held) < 1 << 26


def test_a_text_that_is_too_long_is_refused_with_its_row(written, monkeypatch):
    monkeypatch.setattr(columnar, "LONGEST_LINE", 1000)
    assert "row 2 has a text of more than 1000" in refusal(written({"source": ["a", "x" * 1001], "target": ["b", "c"]}))


def test_a_missing_file_and_two_columns_of_one_name_are_refused(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "none.parquet")
    stream(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.arrow")
    assert "two of its columns have one name" in refusal(tmp_path / "a.arrow")
