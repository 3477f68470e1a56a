"""Line in, line out, whatever the lines hold."""

import json
import subprocess
import sys

import pytest

import regard
from regard.data.words import split_words

SOURCES = ["one hundred and two", "", "seven", "   ", "twenty-nine"]


@pytest.fixture(scope="module")
def translator(runs):
    return regard.load(runs["bahdanau"])


def lines(done):
    assert done.code == 0, done.err
    assert done.out.endswith("\n")
    return done.out[:-1].split("\n")


def test_the_command_writes_what_the_library_translates(cli, runs, translator):
    text = "\n".join(SOURCES) + "\n"
    for beams in (1, 3):
        found = lines(cli("translate", runs["bahdanau"], "--num-beams", beams, given=text.encode()))
        wanted = [each.text for each in translator.translate(SOURCES, num_beams=beams)]
        assert found == [text.replace("\n", " ").replace("\r", " ") for text in wanted]


def test_empty_lines_stay_in_their_places(cli, runs):
    found = lines(cli("translate", runs["bahdanau"], given="\n".join(SOURCES).encode()))
    assert [bool(line) for line in found] == [True, False, True, False, True]


@pytest.mark.parametrize(
    "given",
    [b"one\ntwo\n", b"one\ntwo", b"one\r\ntwo\r\n", b"\xef\xbb\xbfone\ntwo\n"],
    ids=["lines", "no last newline", "carriage returns", "byte order mark"],
)
def test_lines_are_the_same_however_they_end(cli, runs, translator, given, tmp_path):
    wanted = [each.text for each in translator.translate(["one", "two"])]
    assert lines(cli("translate", runs["bahdanau"], "-", given=given)) == wanted
    (tmp_path / "text").write_bytes(given)
    assert lines(cli("translate", runs["bahdanau"], tmp_path / "text")) == wanted


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_only_a_newline_ends_a_line(cli, runs, separator):
    found = lines(cli("translate", runs["bahdanau"], "--json", given=f"one{separator}two\nthree\n".encode()))
    assert [json.loads(line)["source"] for line in found] == [f"one{separator}two", "three"]


def test_whatever_a_model_writes_stays_on_its_line(cli, runs, monkeypatch):
    monkeypatch.setattr("regard.data.tokenizer.Tokenizer.decode", lambda self, ids: "a\r\nb\nc")
    assert lines(cli("translate", runs["bahdanau"], given=b"one\ntwo\n")) == ["a  b c"] * 2


def test_the_n_best_follow_one_another_best_first(cli, runs, translator):
    found = lines(cli("translate", runs["bahdanau"], "--num-beams", 4, "--n-best", 3, given=b"one\ntwo\n"))
    best = translator.translate_n_best(["one", "two"], num_beams=4)
    assert found == [each.text for generations in best for each in generations[:3]]
    for generations in best:
        scores = [each.score for each in generations if each.finished]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("n_best", "beams"), [(2, 1), (5, 4)])
def test_more_translations_than_beams_are_refused(cli, runs, n_best, beams):
    done = cli("translate", runs["rnn"], "--n-best", n_best, "--num-beams", beams, given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert f"--n-best {n_best} needs as many --num-beams; it has {beams}" in done.err


def test_json_is_an_object_a_line(cli, runs, translator):
    found = [
        json.loads(line)
        for line in lines(
            cli("translate", runs["bahdanau"], "--json", "--num-beams", 2, "--n-best", 2, given=b"one \xc3\xa9\n\ntwo")
        )
    ]
    assert [each["source"] for each in found] == ["one é", "", "two"]
    best = translator.translate_n_best(["one é", "", "two"], num_beams=2)
    assert [each["translations"] for each in found] == [
        [{"text": each.text, "score": each.score, "finished": each.finished} for each in generations]
        for generations in best
    ]


def test_translations_that_were_cut_are_counted(cli, runs):
    done = cli("translate", runs["bahdanau"], "--max-new-tokens", 1, "--json", given=b"one\n\ntwo\n")
    finished = [json.loads(line)["translations"][0]["finished"] for line in lines(done)]
    assert finished.count(False) > 0
    assert done.err == f"regard: {finished.count(False)} translations were cut at the limit; see --max-new-tokens\n"


@pytest.mark.parametrize("chunk", [1, 2, 2048])
def test_alignments_have_a_line_for_every_line(cli, runs, translator, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.cli.translate.CHUNK", chunk)
    path = tmp_path / "alignments"
    found = lines(cli("translate", runs["bahdanau"], "--alignments", path, given="\n".join(SOURCES).encode()))
    assert found == [each.text for each in translator.translate(SOURCES)]
    pairs = path.read_text().split("\n")
    assert pairs.pop() == ""
    assert len(pairs) == len(SOURCES)
    for source, line in zip(SOURCES, pairs, strict=True):
        if not source.strip():
            assert line == ""
            continue
        reading = translator.read(source)
        links = [tuple(map(int, link.split("-"))) for link in line.split()]
        assert [target for _, target in links] == list(range(len(reading.sequences["target"].words)))
        assert [index for index, _ in links] == reading.alignment().argmax(axis=1).tolist()
        assert all(index < len(split_words(source)) for index, _ in links)


def test_an_error_in_the_middle_leaves_no_alignments(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.cli.translate.CHUNK", 2)
    text = tmp_path / "text"
    text.write_text("one\ntwo\nthree\n" + "seven " * 60 + "\n")
    done = cli("translate", runs["bahdanau"], text, "--alignments", tmp_path / "alignments")
    assert done.code == 1
    assert done.out.count("\n") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_sentence_that_is_too_long_is_told_with_file_and_line(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.cli.translate.CHUNK", 2)
    given = "one\n\nthree\n" + "seven " * 60 + "\n"
    (tmp_path / "text").write_text(given)
    done = cli("translate", runs["rnn"], tmp_path / "text")
    assert f"regard: {tmp_path}/text:4 has " in done.err
    assert "the model reads at most 48; split it" in done.err
    assert "regard: standard input:4 has " in cli("translate", runs["rnn"], given=given.encode()).err


def test_a_model_without_attention_has_no_alignments(cli, runs, tmp_path):
    done = cli("translate", runs["rnn"], "--alignments", tmp_path / "alignments", given=b"one\n")
    assert done.code == 1
    assert "this model has no attention, so it has no alignments" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--alignments", "a.txt", "--layer", "1"], b"one\n", "there is no cross layer 1"),
        (["--alignments", "a.txt", "--head", "1"], b"one\n", "there is no head 1"),
        (["--alignments", "/dev/null/a"], b"one\n", "/dev/null/a: cannot be written"),
        ([], b"one\n\xff\n", "standard input:2: not UTF-8 at byte 4"),
        (["none.txt"], b"", "none.txt: there is no such file"),
    ],
)
def test_what_cannot_be_translated_is_told(cli, runs, arguments, given, message):
    done = cli("translate", runs["bahdanau"], *arguments, given=given)
    assert (done.code, done.out) == (1, "")
    assert message in done.err


def test_n_best_gives_as_many_lines_for_every_line(cli, runs):
    done = cli("translate", runs["bahdanau"], "--num-beams", 3, "--n-best", 2, given=b"one\n\ntwo\n")
    lines = done.out.split("\n")
    assert len(lines) == 2 * 3 + 1
    assert lines[2:4] == ["", ""]
    assert all(lines[index] for index in (0, 1, 4, 5))


def test_a_full_disk_at_the_output_is_told(runs, tmp_path):
    command = [sys.executable, "-m", "regard", "translate", str(runs["rnn"])]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, input=b"one\n", stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == "regard: the output cannot be written: No space left on device"
