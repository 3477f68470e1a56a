"""Every record of every file, once and in order, with its id; a bad one leaves those beside it as they are."""

import gzip
import json
from dataclasses import replace

import pytest

from regard.errors import RegardError
from regard.jobs.records import Inputs, Names, Reader, find_files, is_many, measured

SOURCE = Names("source", ("source",), ("prefix",))
TEXTS = ["one", "", "three é", "four", "five"]


def inputs_of(*files, names=SOURCE):
    return Inputs(tuple(map(measured, find_files(list(map(str, files))))), names)


def write_all_formats(folder):
    """The same texts, two or three a file, in every format that a job reads."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    rows = [{"id": f"r{number}", "source": text} for number, text in enumerate(TEXTS)]
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress(("\r\n".join(TEXTS) + "\r\n").encode()))
    (folder / "c.jsonl").write_text(lines + "\n")
    (folder / "d.json").write_text(json.dumps(rows, indent=1))
    parquet.write_table(pa.Table.from_pylist(rows), folder / "e.parquet", row_group_size=2)
    feather.write_feather(pa.Table.from_pylist(rows), str(folder / "f.feather"), compression="uncompressed")
    return folder


def test_every_format_gives_the_same_texts_with_the_ids_that_it_has(tmp_path):
    folder = write_all_formats(tmp_path)
    found = list(inputs_of(folder).read(0))
    assert [record.place for record in found] == list(range(6 * len(TEXTS)))
    assert [record.texts["source"] for record in found] == TEXTS * 6
    own = [f"{folder}/{name}:{number}" for name in ("a.txt", "b.txt.gz") for number in range(1, 6)]
    assert [record.id for record in found] == own + [f"r{number}" for number in range(5)] * 4


@pytest.mark.parametrize("parts", [[(0, 30)], [(0, 7), (7, 1), (8, 22)], [(20, 3), (2, 9), (11, 4), (13, 17), (0, 1)]])
def test_a_part_has_the_records_of_the_whole_wherever_it_begins(tmp_path, parts):
    inputs = inputs_of(write_all_formats(tmp_path))
    whole, reader = list(inputs.read(0)), Reader(inputs)
    for first, count in parts:
        assert list(reader.read(first, count)) == whole[first : first + count]


def test_a_part_that_was_not_read_to_its_end_harms_no_later_one(tmp_path):
    inputs = inputs_of(write_all_formats(tmp_path))
    whole, reader = list(inputs.read(0)), Reader(inputs)
    assert next(reader.read(3, 9)) == whole[3]
    assert list(reader.read(5, 20)) == whole[5:25]


def test_a_bad_record_is_told_in_its_place_and_the_others_come(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\nthree\nfo\0ur\n")
    (tmp_path / "b.jsonl").write_text(
        '{"id": 1, "source": "one"}\nnone\n\n{"id": 4}\n{"source": 5}\n["six"]\n"seven"\n'
    )
    found = list(inputs_of(tmp_path / "a.txt", tmp_path / "b.jsonl").read(0))
    assert [record.texts.get("source") for record in found] == [
        *("one", None, "three", None),
        *("one", None, None, None, None, None, "seven"),
    ]
    told = [record.error for record in found if record.error]
    assert f"{tmp_path}/a.txt:2: not UTF-8 at byte 4" in told[0]
    assert f"{tmp_path}/a.txt:4: NUL" in told[1]
    assert f"{tmp_path}/b.jsonl:2: not a JSON object" in told[2]
    assert found[7].id == 4
    assert "has no text under 'source'" in told[4]
    assert "source is no text but '5'" in told[5]
    assert "is no object with names" in told[6]


@pytest.mark.parametrize(
    ("record", "id", "message"),
    [
        ({"id": "\ud800", "prompt": "one"}, None, "half a surrogate pair"),
        ({"id": 1.5, "prompt": "one"}, None, "id is no text and no whole number but '1.5'"),
        ({"id": 0, "prompt": "a \ud800"}, 0, "prompt: half a surrogate pair"),
        ({"id": "a", "messages": [{"role": "user", "content": "\ud800"}]}, "a", "surrogate"),
        ({"id": "a", "messages": 5}, "a", "messages"),
        ({"id": "a", "messages": [{"role": "user"}]}, "a", "messages"),
    ],
)
def test_ids_and_conversations_that_cannot_be_written_again_are_told(tmp_path, record, id, message):
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    (found,) = inputs_of(tmp_path / "a.jsonl", names=Names("prompt", ("prompt", "messages"))).read(0)
    assert (found.id, found.texts) == (f"{tmp_path}/a.jsonl:1" if id is None else id, {})
    assert message in found.error


def test_a_text_is_found_under_the_column_that_is_named_or_under_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "body": "two"}\n')
    (record,) = inputs_of(tmp_path / "a.jsonl").read(0)
    assert record.texts == {"source": "one"}
    (record,) = inputs_of(tmp_path / "a.jsonl", names=replace(SOURCE, column="body")).read(0)
    assert record.texts == {"source": "two"}


def test_folders_and_patterns_name_files_in_a_fixed_order_and_none_twice(tmp_path):
    for name in ("b.txt", "a.txt", "c/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one\n")
    assert find_files([str(tmp_path)]) == [str(tmp_path / name) for name in ("a.txt", "b.txt", "c/d.txt")]
    assert find_files([f"{tmp_path}/*.txt"]) == [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    with pytest.raises(RegardError, match="are one file; name it once"):
        find_files([str(tmp_path), f"{tmp_path}/b.txt"])
    (tmp_path / "e.csv").write_text("a,b\n")
    with pytest.raises(RegardError, match="a job reads plain text, JSON and Parquet"):
        find_files([str(tmp_path)])


def test_several_files_a_pattern_or_a_folder_are_many(tmp_path):
    (tmp_path / "a[1].txt").write_text("one\n")
    assert [is_many([each]) for each in (str(tmp_path), f"{tmp_path}/*", f"{tmp_path}/a[1].txt", "-", "none")] == [
        *(True, True),
        *(False, False, False),
    ]
    assert is_many(["a", "b"])


def test_a_file_that_became_shorter_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    inputs = inputs_of(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(RegardError, match=r"a\.txt has 1 records, and had 2 when the job was begun"):
        list(inputs.read(0))
