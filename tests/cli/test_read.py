"""`regard read`: what was looked at, on the terminal, as JSON and in files."""

import itertools
import json
import os
import threading

import numpy as np
import pytest

import regard

SOURCE = "one hundred and twenty-nine"


def test_the_reading_that_is_kept_is_the_one_that_the_library_reads(cli, runs, tmp_path):
    paths = [tmp_path / f"reading.{suffix}" for suffix in ("safetensors", "json", "png", "svg")]
    outs = [part for path in paths for part in ("--out", path)]
    done = cli("read", runs["transformer"], "--source", SOURCE, *outs)
    assert done.code == 0, done.err
    wanted = regard.read(runs["transformer"], source=SOURCE, num_beams=1, length_penalty=1.0)
    kept = regard.Reading.load(paths[0])
    assert kept.facts() == wanted.facts()
    for key, table in wanted.maps.items():
        np.testing.assert_array_equal(kept.maps[key], table)
    assert json.loads(paths[1].read_text(encoding="utf-8")) == wanted.to_json()
    assert all(path.stat().st_size for path in paths)


SUFFIXES = (".safetensors", ".json", ".html", ".png", ".svg", ".pdf")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_device_a_pipe_and_a_link_stay_what_they_are(cli, runs, tmp_path, device, suffix):
    def read_to(target):
        link = tmp_path / f"reading{suffix}"
        link.symlink_to(target)
        done = cli("read", runs["bahdanau"], "--source", "one", "--out", link)
        assert link.is_symlink()
        link.unlink()
        return done

    assert read_to("plain").code == 0
    content = (tmp_path / "plain").read_bytes()
    # the name that was given, not the target's, chooses the format
    assert content[8:].startswith(b"{") if suffix == ".safetensors" else content
    assert read_to(device("null")).code == 0
    assert (tmp_path / "null").is_char_device()
    done = read_to(device("full"))
    assert done.code == 1
    assert f"reading{suffix}: cannot be written: No space left on device" in done.err
    assert (tmp_path / "full").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    assert read_to("pipe").code == 0
    reader.join(timeout=60)
    assert (tmp_path / "pipe").is_fifo()
    # safetensors orders its header by chance
    assert [sorted(data) for data in read] == [sorted(content)]
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "null", "full", "pipe"}


def test_a_text_that_is_read_is_not_written_over(cli, tmp_path):
    (tmp_path / "page.html").write_text("one")
    (tmp_path / "link.html").symlink_to("page.html")
    for option in ("--prompt-file", "--text-file"):
        done = cli("read", "nothing", option, tmp_path / "page.html", "--out", tmp_path / "link.html")
        assert done.code == 1
        assert f"link.html is --out and {option} at once; choose another --out" in done.err
    assert (tmp_path / "page.html").read_text() == "one"


def test_json_is_one_document(cli, runs):
    done = cli("read", runs["bahdanau"], "--source", SOURCE, "--target", "cent neuf", "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document == regard.read(runs["bahdanau"], source=SOURCE, target="cent neuf").to_json()
    assert document["sequences"]["target"]["text"] == "cent neuf"
    assert document["model"] == "bahdanau"


@pytest.mark.parametrize("columns", [80, 40])
def test_what_is_shown_fits_its_terminal_and_names_every_word(cli, runs, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = cli("read", runs["bahdanau"], "--source", f"{SOURCE} " * 2, "--target", "cent vingt-neuf")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "cent vingt-neuf"
    assert max(map(len, lines)) <= columns
    assert "\x1b" not in done.out
    # source words are written downwards
    downwards = ["".join(column) for column in itertools.zip_longest(*lines, fillvalue=" ")]
    for word in SOURCE.split()[:3]:
        assert sum(word in column for column in downwards) == 2
    assert "read: 1 cross layers; checked:" in " ".join(done.out.split())


def test_a_source_comes_from_standard_input(cli, runs):
    asked = ["read", runs["bahdanau"], "--json", "--source"]
    assert cli(*asked, "-", given=f"{SOURCE}\n".encode()).out == cli(*asked, SOURCE).out


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--source", "-"], b"\xff", "standard input:1: not UTF-8 at byte 0"),
        (["--source", "-"], b"\n", "the source is empty; there is nothing to read"),
        (["--source", " "], b"", "the source is empty; there is nothing to read"),
        (["--source", "seven " * 60], b"", "tokens, the model reads at most 48"),
        (["--source", "one", "--target", "sept " * 60], b"", "the target has "),
        (["--source", "one", "--layer", "2"], b"", "there is no cross layer 2; layers: 0, 1"),
        (["--source", "one", "--head", "2"], b"", "there is no head 2; cross layer -1 has heads 0 to 1"),
        (["--source", "one", "--target", ""], b"", "the target is empty; there is nothing to read"),
        (["--source", "one", "--target", "un", "--out", "a.csv"], b"", "a.csv: a reading is saved as .safetensors"),
    ],
)
def test_what_cannot_be_read_is_told(cli, runs, arguments, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("read", runs["transformer"], *arguments, given=given)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_attention_says_what_carries_its_source(cli, runs):
    done = cli("read", runs["rnn"], "--source", "one")
    assert (done.code, done.out) == (1, "")
    assert "rnn has no attention to read: its decoder sees the source only as one hidden state" in done.err


def test_a_picture_shows_the_layer_and_the_head_that_were_asked_for(cli, runs, tmp_path):
    pictures = {}
    for layer, head in itertools.product((0, 1), (0, 1)):
        path = tmp_path / f"{layer}-{head}.svg"
        asked = ("read", runs["transformer"], "--source", SOURCE, "--layer", layer, "--head", head, "--out", path)
        assert cli(*asked).code == 0
        pictures[layer, head] = path.read_bytes()
    assert len(set(pictures.values())) == len(pictures)
