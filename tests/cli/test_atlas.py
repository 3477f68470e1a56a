"""`regard atlas`: the texts of files to one folder, whatever the shards; bad texts told; two atlases compared."""

import json
import os

import pytest

import regard
from regard import Atlas

TEXTS = [
    f"The head number {number} looks at the token before it, and at the token number {number}." for number in range(21)
]


@pytest.fixture(autouse=True)
def smollm2(tiny_smollm2, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tiny_smollm2))


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(TEXTS[:9]) + "\n", encoding="utf-8")
    records = ({"id": f"own {number}", "text": TEXTS[number]} for number in range(9, 21))
    (folder / "b.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records), encoding="utf-8")
    return folder


def test_seven_shards_are_one_to_the_bit(cli, texts, tmp_path):
    one, seven = (
        cli("atlas", "smollm2", texts, "--out", tmp_path / name, "--shard-size", size)
        for name, size in (("1", 21), ("7", 3))
    )
    assert (one.code, seven.code) == (0, 0)
    assert len(list((tmp_path / "7").glob("shard-*.safetensors"))) == 7
    content = [(tmp_path / name / "atlas.safetensors").read_bytes() for name in "17"]
    assert content[0] == content[1]
    assert one.out.replace(f"{tmp_path}/1", "") == seven.out.replace(f"{tmp_path}/7", "")
    # the library counts the same
    atlas = Atlas.load(tmp_path / "7" / "atlas.safetensors")
    assert atlas.prompts == 21
    same = regard.atlas("smollm2", TEXTS)
    assert all((atlas.tally.sums[name] == table).all() for name, table in same.tally.sums.items())
    assert (tmp_path / "1" / "atlas.html").stat().st_size > 10_000
    assert (tmp_path / "1" / "atlas.parquet").exists()


def test_what_is_printed(cli, texts, tmp_path):
    told = cli("atlas", "smollm2", texts, "--out", tmp_path / "out", "--effects", 1)
    assert told.code == 0
    assert "smollm2: 21 texts" in told.out
    for role in ("sink", "previous token", "induction", "layers →, heads ↓", "without it a text loses most nats"):
        assert role in told.out
    assert max(map(len, told.out.splitlines())) <= 120
    again = cli("atlas", "smollm2", texts, "--out", tmp_path / "out", "--effects", 1, "--resume", "--json")
    document = json.loads(again.out)
    assert document["prompts"] == 21
    assert len(document["heads"]["induction"]) == len(document["heads"]["effect"]) == 24


def test_work_that_broke_off_goes_on(cli, texts, tmp_path):
    whole = cli("atlas", "smollm2", texts, "--out", tmp_path / "whole", "--shard-size", 5)
    broken = tmp_path / "broken"
    (texts / "c.jsonl").write_text('{"id": "x", "text": 3}\n')
    assert whole.code == 0
    failed = cli("atlas", "smollm2", texts, "--out", broken, "--shard-size", 5)
    assert failed.code == 1
    assert "text is no text but '3'" in failed.err
    assert not (broken / "atlas.safetensors").exists()
    skipped = cli("atlas", "smollm2", texts, "--out", broken, "--shard-size", 5, "--resume", "--on-error", "skip")
    assert skipped.code == 1
    assert "1 of them have an error in their row, the first x" in skipped.err
    names = [tmp_path / name / "atlas.safetensors" for name in ("whole", "broken")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_two_atlases_are_compared(cli, texts, tmp_path):
    assert cli("atlas", "smollm2", texts, "--out", tmp_path / "one").code == 0
    told = cli("atlas", "smollm2", texts, "--out", tmp_path / "two", "--compare", tmp_path / "one")
    assert told.code == 0
    assert "no head changed more than chance explains" in told.out
    missing = cli("atlas", "smollm2", texts, "--out", tmp_path / "three", "--compare", tmp_path / "none")
    assert missing.code == 1
    assert "no such file" in missing.err
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": 1, "text": "one two"}', '{"id": "1", "text": "three four"}'], "two records have the id '1'"),
        (['{"id": 1, "text": "a"}'], "1: it has 1 tokens"),
        ([], "there is no record in it"),
    ],
)
def test_bad_texts_are_told(cli, tmp_path, lines, message):
    (tmp_path / "a.jsonl").write_text("".join(f"{line}\n" for line in lines))
    told = cli("atlas", "smollm2", tmp_path / "a.jsonl", "--out", tmp_path / "out")
    assert told.code == 1
    assert message in told.err
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_an_empty_file_is_told_or_left_out(cli, texts, tmp_path):
    (texts / "empty.txt").write_text("")
    told = cli("atlas", "smollm2", texts, "--out", tmp_path / "out")
    assert told.code == 1
    assert "empty.txt: empty" in told.err
    assert cli("atlas", "smollm2", texts, "--out", tmp_path / "out", "--on-error", "skip").code == 0


def test_nothing_could_be_measured(cli, tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\n")
    told = cli("atlas", "smollm2", tmp_path / "a.txt", "--out", tmp_path / "out", "--on-error", "skip")
    assert told.code == 1
    assert "none of the texts could be measured" in told.err


def test_what_does_not_go_together(cli, runs, texts, tmp_path):
    for arguments, message in (
        (["smollm2", texts], "add --out DIR"),
        (["smollm2", texts, "--out", tmp_path / "out", "--format", "parquet"], "format must be safetensors"),
        ([runs["transformer"], texts, "--out", tmp_path / "out"], "`regard translate` is the verb of this model"),
        (["smollm2", "--out", tmp_path / "out"], "name the FILES"),
    ):
        told = cli("atlas", *arguments)
        assert told.code == 1
        assert message in told.err
