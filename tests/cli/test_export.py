"""`regard export`: from a run folder to a folder of another tool."""

import pytest

import regard

pytest.importorskip("ctranslate2")


@pytest.mark.parametrize("order", [("RUN", "DIR", "--to"), ("RUN", "--to", "DIR"), ("--to", "RUN", "DIR")])
def test_arguments_and_target_come_in_any_order(cli, runs, tmp_path, order):
    given = {"RUN": [runs["transformer"]], "DIR": [tmp_path / "made"], "--to": ["--to", "ctranslate2"]}
    done = cli("export", *(part for name in order for part in given[name]))
    assert (done.code, done.out) == (0, f"{tmp_path}/made\n"), done.err
    count = len(regard.load(runs["transformer"]).pairs("dev"))
    assert f"transformer: ctranslate2 gives the same greedy translation of {count} in {count} sentences" in done.err
    assert (tmp_path / "made" / "model.bin").stat().st_size


def test_a_sample_is_a_file_of_lines(cli, runs, tmp_path):
    (tmp_path / "lines.txt").write_text("one\n\nforty-two\n", encoding="utf-8")
    asked = ("export", runs["transformer"], tmp_path / "made", "--to", "ctranslate2", "--sample")
    done = cli(*asked, tmp_path / "lines.txt")
    assert done.code == 0, done.err
    assert "of 2 in 2 sentences" in done.err
    refused = cli(*asked[:2], tmp_path / "other", *asked[3:], tmp_path / "none.txt")
    assert (refused.code, refused.out) == (1, "")
    assert "none.txt" in refused.err
    assert not (tmp_path / "other").exists()


def test_what_the_target_cannot_hold_is_told(cli, runs, tmp_path):
    for name in ("rnn", "bahdanau"):
        done = cli("export", runs[name], tmp_path / "made", "--to", "ctranslate2")
        assert (done.code, done.out) == (1, "")
        assert "(rungs 1 and 2), which ctranslate2 cannot hold; it holds transformer (rung 3)" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_a_full_one_stays(cli, runs, tmp_path):
    command = ("export", runs["transformer"], tmp_path, "--to", "ctranslate2")
    done = cli(*command)
    assert (done.code, done.out) == (0, f"{tmp_path}\n"), done.err
    made = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = cli(*command)
    assert (done.code, done.out) == (1, "")
    assert f"{tmp_path} exists already; choose another folder, or delete it" in done.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == made


def test_an_unknown_or_missing_target_is_a_matter_of_usage(cli, runs, tmp_path):
    unknown = cli("export", runs["transformer"], tmp_path / "made", "--to", "onnx")
    assert (unknown.code, unknown.out) == (2, "")
    assert "ctranslate2" in unknown.err
    assert cli("export", runs["transformer"], tmp_path / "made").code == 2
    assert cli("export", runs["transformer"], "--to", "ctranslate2").code == 2
