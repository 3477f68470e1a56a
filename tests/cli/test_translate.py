"""Line in, line out, whatever the lines hold."""

import contextlib
import errno
import functools
import gzip
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import torch

import regard
from regard.data.batch import UNKNOWN, collate
from regard.data.words import split_words
from regard.jobs.parts import Part, fitting_parts, together

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
    best = translator.translate_n_best(["one", "two"], num_beams=4, n_best=3)
    assert found == [each.text for generations in best for each in generations[:3]]
    for generations in best:
        scores = [each.score for each in generations if each.finished]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("n_best", "beams"), [(2, 1), (5, 4)])
def test_more_translations_than_beams_are_refused(cli, runs, n_best, beams):
    done = cli("translate", runs["rnn"], "--n-best", n_best, "--num-beams", beams, given=b"one\n")
    assert (done.code, done.out) == (2, "")
    assert f"--n-best {n_best} needs as many --num-beams; it has {beams}" in done.err


def test_json_is_an_object_a_line(cli, runs, translator):
    found = [
        json.loads(line)
        for line in lines(
            cli("translate", runs["bahdanau"], "--json", "--num-beams", 2, "--n-best", 2, given=b"one \xc3\xa9\n\ntwo")
        )
    ]
    assert [each["source"] for each in found] == ["one é", "", "two"]
    best = translator.translate_n_best(["one é", "", "two"], num_beams=2, n_best=2)
    names = ("text", "score", "log_probability", "finished")
    assert [each["translations"] for each in found] == [
        [{name: getattr(each, name) for name in names} for each in generations] for generations in best
    ]


def test_translations_that_were_cut_are_counted(cli, runs):
    done = cli("translate", runs["bahdanau"], "--max-new-tokens", 1, "--json", given=b"one\n\ntwo\n")
    finished = [json.loads(line)["translations"][0]["finished"] for line in lines(done)]
    assert finished.count(False) > 0
    assert done.err == f"regard: {finished.count(False)} translations were cut at the limit; see --max-new-tokens\n"


@pytest.mark.parametrize("chunk", [1, 2, 2048])
def test_alignments_have_a_line_for_every_line(cli, runs, translator, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", chunk)
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
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
    text = tmp_path / "text"
    text.write_text("one\ntwo\nthree\n" + "seven " * 60 + "\n")
    done = cli("translate", runs["bahdanau"], text, "--alignments", tmp_path / "alignments")
    assert done.code == 1
    assert done.out.count("\n") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_sentence_that_is_too_long_is_told_with_file_and_line(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
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


@pytest.mark.parametrize("chunk", [1, 2, 5, 1024])
@pytest.mark.parametrize("bad", [b"seven " * 60, b"\xff"], ids=["too long", "not UTF-8"])
def test_what_stands_before_a_line_that_cannot_be_translated_is_translated(
    cli, runs, translator, monkeypatch, bad, chunk
):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", chunk)
    done = cli("translate", runs["bahdanau"], given=b"one\n\nthree\nfour\n" + bad + b"\nsix\n")
    assert done.code == 1
    assert "standard input:5" in done.err
    assert done.out.split("\n") == [each.text for each in translator.translate(["one", "", "three", "four"])] + [""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-beams", "0"], "--num-beams must be at least 1, not 0"),
        (["--temperature", "-1", "--do-sample"], "--temperature must be above 0, not -1.0"),
        (["--temperature", "nan", "--do-sample"], "--temperature must be a finite number, not nan"),
        (["--top-p", "0", "--do-sample"], "--top-p must be above 0, not 0.0"),
        (["--top-k", "3"], "--top-k belongs to sampling; add --do-sample, or leave it out"),
        (["--do-sample", "--num-beams", "2"], "--do-sample goes one way at a time, without --num-beams"),
        (["--length-normalization", "wu"], "--length-normalization must be one of power, gnmt, not 'wu'"),
        (["--coverage-penalty", "1e308", "--num-beams", "2"], "--coverage-penalty must be at most 100, not 1e+308"),
        (["--coverage-penalty", "0.2"], "--coverage-penalty ranks the hypotheses of a beam search; set --num-beams"),
    ],
)
def test_settings_that_make_no_sense_are_usage_and_told_before_the_model_is_loaded(cli, tmp_path, arguments, message):
    done = cli("translate", tmp_path / "none", *arguments, given=b"one\n")
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume goes on behind what --out has; name that file"),
        (["--prefix", "un", "--prefixes", "p"], "--prefix is for all lines, --prefixes has one for each"),
        (["--scores", "--json"], "--json has the scores already"),
        (["--out", "full"], "full exists already; --resume goes on behind it, or choose another --out"),
    ],
)
def test_options_that_do_not_go_together_are_told_before_the_model_is_loaded(
    cli, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").write_text("mine\n")
    done = cli("translate", tmp_path / "none", *arguments, given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert (tmp_path / "full").read_text() == "mine\n"


def test_samples_are_those_of_the_library_whatever_the_chunk(cli, runs, translator, monkeypatch):
    options = {
        "do_sample": True,
        "temperature": 1.5,
        "top_k": 50,
        "top_p": 0.95,
        "min_p": 0.001,
        "seed": 7,
        "n_best": 2,
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "do_sample"]
    wanted = translator.translate_n_best(SOURCES, **options)
    for chunk in (1, 3, 1024):
        monkeypatch.setattr("regard.jobs.lines.CHUNK", chunk)
        given = "\n".join(SOURCES).encode()
        found = lines(cli("translate", runs["bahdanau"], "--do-sample", "--json", *flags, given=given))
        assert [[each["text"] for each in json.loads(line)["translations"]] for line in found] == [
            [each.text for each in generations] for generations in wanted
        ]


def test_scores_stand_before_each_translation(cli, runs, translator):
    options = ["--scores", "--num-beams", 3, "--n-best", 2, "--length-penalty", 0.6, "--length-normalization", "gnmt"]
    found = lines(cli("translate", runs["bahdanau"], *options, given=b"one\n\ntwo\n"))
    settings = {"num_beams": 3, "n_best": 2, "length_penalty": 0.6, "length_normalization": "gnmt"}
    best = translator.translate_n_best(["one", "two"], **settings)
    assert found[2:4] == ["0.000000\t0.000000\t", "\t\t"]
    for line, each in zip(found[:2] + found[4:], itertools.chain(*best), strict=True):
        score, log_probability, text = line.split("\t")
        assert float(score) == pytest.approx(each.score, abs=1e-6)
        assert float(log_probability) == pytest.approx(each.log_probability, abs=1e-6)
        assert text == " ".join(each.text.split("\n"))


def test_every_translation_begins_with_its_prefix(cli, runs, translator, tmp_path):
    given = "\n".join(SOURCES).encode()
    found = lines(cli("translate", runs["bahdanau"], "--prefix", "- cent d", given=given))
    assert [line.startswith("- cent d") for line in found] == [bool(source.strip()) for source in SOURCES]
    prefixes = ["cent", "", "se", "", ""]
    (tmp_path / "prefixes").write_text("\n".join(prefixes) + "\n")
    found = lines(cli("translate", runs["bahdanau"], "--prefixes", tmp_path / "prefixes", given=given))
    assert found == [each.text for each in translator.translate(SOURCES, prefixes=prefixes)]
    assert [line[: len(prefix)] for line, prefix in zip(found, prefixes, strict=True)] == prefixes


@pytest.mark.parametrize(
    ("count", "message"), [(1, "prefixes has 1 lines, standard input more"), (3, "input has 2 lines")]
)
def test_as_many_prefixes_as_lines_are_asked_for(cli, runs, tmp_path, count, message):
    (tmp_path / "prefixes").write_text("un\n" * count)
    done = cli("translate", runs["rnn"], "--prefixes", tmp_path / "prefixes", given=b"one\ntwo\n")
    assert done.code == 1
    assert message in done.err


def test_a_file_gets_what_standard_output_would(cli, runs, tmp_path):
    (tmp_path / "text").write_text("\n".join(SOURCES))
    for options in ([], ["--num-beams", 2, "--n-best", 2], ["--json"], ["--scores"]):
        wanted = cli("translate", runs["bahdanau"], tmp_path / "text", *options).out
        out = tmp_path / f"made/here/{len(options)}{options[-1:]}"
        done = cli("translate", runs["bahdanau"], tmp_path / "text", *options, "--out", out)
        assert (done.code, done.out, out.read_text()) == (0, "", wanted)


def broken_off(text, *, lines, extra):
    """The first lines of a text, and some bytes of the next."""
    parts = text.split("\n")
    return "\n".join([*parts[:lines], parts[lines][:extra]])


@pytest.mark.parametrize("options", [[], ["--num-beams", 2, "--n-best", 2], ["--json"], ["--do-sample", "--seed", 3]])
@pytest.mark.parametrize("compressed", [False, True])
def test_resume_goes_on_wherever_the_work_broke_off(cli, runs, tmp_path, monkeypatch, options, compressed):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
    text, out, aligned = tmp_path / "text.gz", tmp_path / "out", tmp_path / "aligned"
    data = ("\r\n".join(SOURCES)).encode()
    text.write_bytes(gzip.compress(data) if compressed else data)
    command = ["translate", runs["bahdanau"], text, *options, "--out", out, "--alignments", aligned]
    assert cli(*command).code == 0
    whole, whole_alignments = out.read_text(), aligned.read_text()
    each = 2 if "--n-best" in options else 1
    for done in range(len(SOURCES) * each + 1):
        for behind in (0, 1):
            out.write_text(broken_off(whole, lines=done, extra=2))
            aligned.write_text(broken_off(whole_alignments, lines=max(done // each - behind, 0), extra=1))
            resumed = cli(*command, "--resume")
            if done >= each and done // each == behind:
                assert "has no alignments of the translations in" in resumed.err
                continue
            assert (resumed.code, out.read_text(), aligned.read_text()) == (0, whole, whole_alignments)
    out.unlink(), aligned.unlink()
    cli(*command, "--resume")
    assert (out.read_text(), aligned.read_text()) == (whole, whole_alignments)


def test_resume_refuses_the_translations_of_another_text(cli, runs, tmp_path):
    out = tmp_path / "out"
    out.write_text("un\ndeux\ntrois\nqua")
    done = cli("translate", runs["rnn"], "--out", out, "--resume", given=b"one\ntwo\n")
    assert done.code == 1
    assert f"{out} has translations of 3 lines, standard input has 2: they are of another text" in done.err
    assert out.read_text() == "un\ndeux\ntrois\nqua"
    for line in ("un", json.dumps({"source": "three"}), "[" * 5000, "3"):
        out.write_text(line + "\n")
        done = cli("translate", runs["rnn"], "--json", "--out", out, "--resume", given=b"one\ntwo\n")
        assert (done.code, out.read_text()) == (1, line + "\n")
        assert f"{out}:1: its source is not standard input:1; choose another --out" in done.err


def test_resume_refuses_what_was_begun_otherwise_and_the_record_of_that_goes_when_all_is_done(
    cli, runs, tmp_path, monkeypatch
):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
    (tmp_path / "text").write_text("one\ntwo\nthree\n" + "four " * 200 + "\n")
    command, out = ["translate", runs["bahdanau"], tmp_path / "text"], tmp_path / "out"
    done = cli(*command, "--num-beams", 2, "--out", out)
    assert (done.code, out.read_text().count("\n")) == (1, 3)
    begun = out.read_text(), (tmp_path / "out.resume").read_text()
    (tmp_path / "other").write_text("un\n" * 5)
    for changed, message in (
        ([*command, "--num-beams", 3], "was begun with num_beams 2, not 3; go on as it was begun"),
        ([*command, "--num-beams", 2, "--scores"], "was begun with format 'text', not 'scores'"),
        ([*command, "--num-beams", 2, "--prefix", "u"], "was begun with prefix '', not 'u'"),
        (["translate", runs["transformer"], *command[2:], "--num-beams", 2], "was begun with run"),
        ([*command[:2], tmp_path / "other", "--num-beams", 2], "was begun with input"),
    ):
        done = cli(*changed, "--out", out, "--resume")
        assert (done.code, out.read_text(), (tmp_path / "out.resume").read_text()) == (1, *begun)
        assert f"{out} {message}" in done.err
    for broken in ("", "[]", "{", "[" * 5000, " " * (1 << 21)):
        (tmp_path / "out.resume").write_text(broken)
        done = cli(*command, "--num-beams", 2, "--out", out, "--resume")
        assert (done.code, out.read_text()) == (1, begun[0])
        assert f"{out}.resume: not a record of what made {out}" in done.err
    (tmp_path / "out.resume").write_text(begun[1])
    # the first two lines are known from the record, which is written after each chunk
    (tmp_path / "text").write_text("two\none\nthree\nfour\n")
    done = cli(*command, "--num-beams", 2, "--out", out, "--resume")
    assert (done.code, out.read_text(), (tmp_path / "out.resume").read_text()) == (1, *begun)
    assert f"text, or what --prefixes names, begins otherwise than when {out} was begun" in done.err
    (tmp_path / "text").write_text("one\ntwo\nthree\nfour\n")
    assert cli(*command, "--num-beams", 2, "--out", out, "--resume").code == 0
    assert out.read_text() == cli(*command, "--num-beams", 2).out
    assert not (tmp_path / "out.resume").exists()


def test_a_file_that_has_the_name_of_the_record_but_is_none_stays(cli, runs, tmp_path):
    out, other = tmp_path / "out", tmp_path / "out.resume"
    (tmp_path / "text").write_text("one\ntwo\n")
    command = ("translate", runs["rnn"], tmp_path / "text", "--out", out)
    for text in ("my notes", json.dumps({"name": "mine"})):
        other.write_text(text)
        done = cli(*command)
        assert (done.code, out.exists(), other.read_text()) == (1, False, text)
        assert f"{other} exists already, where it is noted how {out} is made; choose another place" in done.err
    other.unlink()
    assert cli(*command).code == 0


def test_resume_begins_the_alignments_that_its_own_work_had_not_come_to(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
    (tmp_path / "text").write_text("one\ntwo\nthree\nfour\n")
    out, aligned = tmp_path / "out", tmp_path / "aligned"
    command = ["translate", runs["bahdanau"], tmp_path / "text", "--out", out, "--alignments", aligned]
    with monkeypatch.context() as patch:
        patch.setattr("regard.jobs.translate.links", lambda table: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli(*command)
    assert (out.read_text().count("\n"), aligned.read_text()) == (2, "")
    assert cli(*command, "--resume").code == 0
    resumed = out.read_text(), aligned.read_text()
    out.unlink(), aligned.unlink()
    assert cli(*command).code == 0
    assert (out.read_text(), aligned.read_text()) == resumed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "text"], "text is --out and FILE at once; choose another --out"),
        (["--out", "text", "--resume"], "text is --out and FILE at once; choose another --out"),
        (["--out", "link"], "link is --out and FILE at once; choose another --out"),
        (["--out", "hard", "--resume"], "hard is --out and FILE at once; choose another --out"),
        (["--alignments", "text"], "text is --alignments and FILE at once; choose another --alignments"),
        (["--out", "new", "--alignments", "./new"], "new is --alignments and --out at once"),
        (["--out", "new", "--alignments", "./new", "--resume"], "new is --alignments and --out at once"),
        (["--prefixes", "full", "--out", "full"], "full is --out and --prefixes at once"),
        (["--out", "new", "--alignments", "dangling"], "dangling is --alignments and --out at once"),
        (["--alignments", "circle"], "circle: cannot be written: Too many levels of symbolic links"),
        (["--alignments", "full"], "full exists already; choose another --alignments"),
        (["--out", "new", "--alignments", "full"], "full exists already; --resume goes on behind it, or choose"),
    ],
)
def test_nothing_that_is_read_or_stands_there_is_written_over(cli, runs, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for name in ("text", "full"):
        (tmp_path / name).write_text("one\n")
    (tmp_path / "hard").hardlink_to("text")
    for name, target in (("link", "text"), ("dangling", "new"), ("circle", "circle")):
        (tmp_path / name).symlink_to(target)
    done = cli("translate", runs["bahdanau"], "text", *options)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    links = {path.name: os.readlink(path) for path in tmp_path.iterdir() if path.is_symlink()}
    assert links == {"link": "text", "dangling": "new", "circle": "circle"}
    texts = {path.name: path.read_text() for path in tmp_path.iterdir() if not path.is_symlink()}
    assert texts == {"text": "one\n", "full": "one\n", "hard": "one\n"}


def test_a_closed_standard_input_is_an_empty_one(runs):
    code = "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, '-m', 'regard', *sys.argv[1:]])"
    command = [sys.executable, "-c", code, "translate", str(runs["rnn"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "standard input: the file is empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_nothing_was_written_there_is_no_record_to_go_on_by(cli, runs, tmp_path):
    done = cli("translate", runs["rnn"], "--out", tmp_path / "out", given=b"")
    assert (done.code, [each.name for each in tmp_path.iterdir()]) == (1, ["out"])
    assert cli("translate", runs["rnn"], "--out", tmp_path / "out", given=b"one\n").code == 0


def test_a_file_that_would_not_be_what_its_name_says_is_refused(cli, runs, tmp_path):
    done = cli("translate", runs["rnn"], "--out", tmp_path / "out.gz", given=b"one\n")
    assert (done.code, [*tmp_path.iterdir()]) == (1, [])
    assert "out.gz: what is written here is plain text; leave out .gz and compress it after" in done.err


def test_more_beams_than_tokens_or_memory_are_refused(cli, runs, monkeypatch):
    done = cli("translate", runs["rnn"], "--num-beams", 100_000, given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert "num_beams 100000 is more than the" in done.err

    def full(*arguments, **settings):
        torch.empty(1 << 60)

    monkeypatch.setattr("regard.generation.translate.beam_search", full)
    done = cli("translate", runs["rnn"], "--num-beams", 5, given=b"one\n")
    assert done.code == 1
    assert (
        "there is not enough memory for 1 sentences with 5 hypotheses each; lower batch_size or num_beams" in done.err
    )


def test_where_the_disk_fills_up_whole_lines_stand_and_resume_goes_on(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
    (tmp_path / "text").write_text("\n".join(SOURCES))
    command = ["translate", runs["bahdanau"], tmp_path / "text", "--scores", "--out", tmp_path / "out"]
    wanted = cli(*command[:3], "--scores").out
    for room in range(0, len(wanted.encode()), 41):
        left = room

        class FullDisk(io.FileIO):
            def write(self, data):
                nonlocal left
                if not left:
                    raise OSError(errno.ENOSPC, "No space left on device")
                part = data[: min(left, 5)]
                left -= len(part)
                return super().write(part)

        with monkeypatch.context() as patch:
            patch.setattr("regard.data.growing.open", lambda path, mode, **_: FullDisk(path, mode[0]), raising=False)
            done = cli(*command)
        assert done.code == 1
        assert "out: cannot be written: No space left on device; its first" in done.err
        whole = wanted.encode()[:room].rfind(b"\n") + 1
        assert (tmp_path / "out").read_bytes() == wanted.encode()[:whole]
        assert cli(*command, "--resume").code == 0
        assert (tmp_path / "out").read_text() == wanted
        (tmp_path / "out").unlink()


def test_an_output_below_what_is_no_folder_is_told(cli, runs):
    done = cli("translate", runs["rnn"], "--out", "/dev/null/a", given=b"one\n")
    assert "/dev/null/a: cannot be written" in done.err


@pytest.mark.parametrize("option", ["--out", "--alignments"])
def test_a_device_a_pipe_and_a_link_stay_what_they_are(cli, runs, tmp_path, device, option):
    command = ["translate", runs["bahdanau"], option]
    wanted = cli(*command, tmp_path / "plain", given=b"one\n\ntwo\n")
    text = (tmp_path / "plain").read_text()
    assert text.count("\n") == 3

    def same(place):
        done = cli(*command, place, given=b"one\n\ntwo\n")
        return (done.code, done.out) == (wanted.code, wanted.out)

    assert same(device("null"))
    assert (tmp_path / "null").is_char_device()
    (tmp_path / "link").symlink_to("target")
    assert same(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == text
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    assert same(tmp_path / "pipe")
    reader.join(timeout=60)
    assert (tmp_path / "pipe").is_fifo()
    assert read == [text]
    done = cli(*command, device("full"), given=b"one\n")
    assert done.code == 1
    assert "full: cannot be written: No space left on device" in done.err
    assert (tmp_path / "full").is_char_device()
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "null", "link", "target", "pipe", "full"}


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no names of open descriptors here")
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_the_standard_output_may_be_named(cli, runs, tmp_path, mode):
    wanted = cli("translate", runs["rnn"], given=b"one\ntwo\n").out
    (tmp_path / "text").write_text("old\n")
    # as /dev/stdout is
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    command = [sys.executable, "-m", "regard", "translate", runs["rnn"], "--out", tmp_path / "stdout"]
    with (tmp_path / "text").open(mode) as file:
        done = subprocess.run(command, input=b"one\ntwo\n", stdout=file, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "text").read_text() == ("old\n" if mode == "ab" else "") + wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stdout", "text"]


def test_a_text_larger_than_a_chunk_is_read_as_it_is_translated(cli, runs, monkeypatch):
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 3)
    read, written = [], []

    def endless(path, *, stream):
        for number in range(20):
            read.append(number)
            yield "one"

    monkeypatch.setattr("regard.jobs.lines.read_lines", endless)
    translate = regard.Translator.translate_n_best

    def noted(self, texts, *arguments, **settings):
        written.append((len(read), settings["numbers"][0], len(texts)))
        return translate(self, texts, *arguments, **settings)

    monkeypatch.setattr(regard.Translator, "translate_n_best", noted)
    lines(cli("translate", runs["rnn"]))
    assert written == [(min(first + 3, 20), first, min(3, 20 - first)) for first in range(0, 20, 3)]


@pytest.fixture(scope="module")
def words(recipes, tmp_path_factory):
    """A model of words that knows few of them."""
    folder = tmp_path_factory.mktemp("words") / "run"
    changes = {"data.tokenizer": "word", "data.vocab_size": 30, "train.steps": 60}
    return regard.train(recipes["bahdanau"], out=folder, changes=changes)


def test_for_a_word_it_does_not_know_a_model_writes_the_source_word_that_it_looked_at(cli, words):
    """Of the source words that it does not know either, where there are any."""
    sources = ["one hundred zebras and two", "", "(zebras),  yaks!", "seven"]
    settings = {"num_beams": 3, "n_best": 3}
    plain = words.translate_n_best(sources, **settings)
    found = words.translate_n_best(sources, replace_unknown=True, **settings)
    unknown = 0
    for source, before, after in zip(sources, plain, found, strict=True):
        for old, new in zip(before, after, strict=True):
            assert (old.tokens, old.score) == (new.tokens, new.score)
            assert "⁇" not in new.text
            if UNKNOWN not in old.tokens:
                assert old.text == new.text
                continue
            unknown += 1
            with torch.no_grad():
                batch = collate([words.tokenizer.encode(source)], [old.tokens])
                weights = words.module(batch, read=True).attention[-1].weights[0].mean(dim=0)
            # Luong et al.'s words: what stands between spaces, a mark by itself
            spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", source)]
            tokens = words.tokenizer.tokens(source)
            strange = [token.end for token in tokens if token.id == UNKNOWN]
            assert strange or source == "seven"
            spans = [span for span in spans if span[1] in strange] or spans
            texts = iter(old.text.split("⁇"))
            wanted = next(texts)
            for position, token in enumerate(old.tokens):
                if token == UNKNOWN:
                    received = [
                        sum(weights[position, i] for i, token in enumerate(tokens) if start < token.end <= end)
                        for start, end in spans
                    ]
                    start, end = spans[received.index(max(received))]
                    wanted += source[start:end] + next(texts)
            assert new.text == wanted
    assert unknown > 3
    path = words.run.path
    assert lines(cli("translate", path, "--replace-unknown", given="\n".join(sources).encode())) == [
        each.text for each in words.translate(sources, replace_unknown=True)
    ]


def test_a_model_of_words_begins_with_words_that_it_knows_also_where_one_is_broken_off(cli, words):
    known = next(piece.decode() for piece in words.tokenizer.pieces if len(piece) > 4 and piece.isascii())
    (found,) = lines(cli("translate", words.run.path, "--prefix", known[1:3], given=b"one\n"))
    assert found.startswith(known[1:3])
    done = cli("translate", words.run.path, "--prefix", "zèbre", given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert "standard input:1: the model cannot begin with 'zèbre', only with '⁇'; use words that it knows" in done.err


def test_unknown_words_are_not_replaced_where_there_are_none_or_nothing_was_looked_at(cli, runs, recipes, tmp_path):
    done = cli("translate", runs["bahdanau"], "--replace-unknown", given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert "bahdanau has no unknown words: its bpe tokenizer spells any text; leave out replace_unknown" in done.err
    changes = {"data.tokenizer": "word", "train.steps": 1}
    regard.train(recipes["rnn"], out=tmp_path / "run", changes=changes)
    done = cli("translate", tmp_path / "run", "--replace-unknown", given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert "this model has no attention" in done.err


def test_a_bar_shows_how_much_of_a_file_is_translated(cli, runs, tmp_path, monkeypatch):
    counted = []

    @contextlib.contextmanager
    def counting(description, total):
        counted.append([total])
        yield counted[-1].append

    monkeypatch.setattr("regard.view.progress.counting", counting)
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 2)
    text, out = tmp_path / "text", tmp_path / "out"
    text.write_text("one\ntwo\nthree\nfour\n")
    cli("translate", runs["rnn"], text)
    cli("translate", runs["rnn"], given=text.read_bytes())
    out.write_text("un\n")
    cli("translate", runs["rnn"], text, "--out", out, "--resume")
    (size, *parts), (unknown, *counts), (whole, skipped, *rest) = counted
    assert (size, sum(parts), unknown, counts) == (19, 19, None, [2, 2])
    assert (whole, skipped, sum(rest)) == (19, 4, 15)


LONG = "seven " * 60


def test_lines_that_are_too_long_are_cut_or_left_blank_and_told_and_the_others_come(
    cli, runs, translator, tmp_path, caplog
):
    given = f"one\n{LONG}\nthree\n\n{LONG}five\nsix\n".encode()
    plain = [each.text for each in translator.translate(["one", "three", "six"])]
    for choice, told in (("blank", "left blank"), ("cut", "its end is not translated")):
        for out in ((), ("--out", tmp_path / choice)):
            done = cli("translate", runs["bahdanau"], "--too-long", choice, *out, given=given)
            found = ((tmp_path / choice).read_text() if out else done.out).split("\n")
            assert (done.code, len(found), [found[0], found[2], found[5]]) == (1, 7, plain)
            assert [bool(line) for line in found[:-1]] == [True, choice == "cut", True, False, choice == "cut", True]
            for number in (2, 5):
                assert f"standard input:{number} has " in caplog.text
            assert caplog.text.count(f"the model reads at most 48: {told}") == 2
            caplog.clear()
            assert done.err.endswith(f"{'left blank' if choice == 'blank' else 'cut'}: 2, as told above\n")
            assert not (tmp_path / f"{choice}.resume").exists()
    # as much as the model reads, and no word of it broken
    kept = max(
        (LONG[:end] for end in range(len(LONG)) if LONG[end].isspace()),
        key=lambda text: (fits(translator, text), len(text)),
    )
    assert found[1] == translator.translate(kept).text


def fits(translator, text):
    return translator.source_lengths([text])[0] <= translator.max_length


def test_a_line_that_is_too_long_is_translated_in_parts_that_fit(cli, runs, translator, caplog):
    given = f"one\n{LONG.strip()}. Twenty-two. {LONG}\nthree\n"
    done = cli("translate", runs["bahdanau"], "--too-long", "split", given=given.encode())
    found = lines(done)
    assert [found[0], found[2]] == [each.text for each in translator.translate(["one", "three"])]
    count = int(re.search(r"standard input:2 has \d+ tokens, .*: translated in (\d+) parts", caplog.text)[1])
    # no sentence ends before a small letter
    sentences = [f"{LONG.strip()}.", f"Twenty-two. {LONG.strip()}"]
    parts = [part for each in sentences for part in fitting_parts(Part(0, each), lambda text: fits(translator, text))]
    wanted = translator.translate([part.text for part in parts])
    assert (count, len(found)) == (len(wanted), 3)
    assert count > 3
    assert found[1] == functools.reduce(together, (each.text for each in wanted))


def test_a_run_that_stopped_at_a_line_goes_on_behind_it_with_another_choice(cli, runs, tmp_path):
    (tmp_path / "text").write_text(f"one\ntwo\n{LONG}\nfour\n")
    command = ["translate", runs["bahdanau"], tmp_path / "text", "--out", tmp_path / "out"]
    done = cli(*command)
    assert done.code == 1
    assert "text:3 has " in done.err
    assert "let --too-long do so (split, cut or blank)" in done.err
    assert (tmp_path / "out").read_text().count("\n") == 2
    assert cli(*command, "--resume", "--too-long", "split").code == 0
    assert (tmp_path / "out").read_text() == cli(*command[:3], "--too-long", "split").out


def test_sentences_are_translated_one_by_one_and_paragraphs_stay_lines(cli, runs, translator, tmp_path):
    paragraphs = ["One. Two is here! And three?", "", "Seven.", "一百。二百。"]
    for chunk in (1, 2, 99):
        options = ["--split-sentences", "--alignments", tmp_path / f"links-{chunk}"]
        done = cli("translate", runs["bahdanau"], *options, given="\n".join(paragraphs).encode())
        sentences = ["One.", "Two is here!", "And three?", "Seven.", "一百。", "二百。"]
        wanted = [each.text.strip() for each in translator.translate(sentences)]
        assert lines(done)[:3] == [" ".join(wanted[:3]), "", wanted[3]]
    # a word's link is that of its sentence alone, so many words further on
    links = (tmp_path / "links-99").read_text().split("\n")
    shown = []
    source = target = 0
    best = translator.translate(sentences[:3])
    for sentence, each, table in zip(sentences[:3], best, translator.alignments(sentences[:3], best), strict=True):
        shown += [f"{source + int(row.argmax())}-{target + index}" for index, row in enumerate(table) if row.any()]
        source, target = source + len(split_words(sentence)), target + len(split_words(each.text))
    assert links[0] == " ".join(shown)
    assert (links[1], len(links)) == ("", 5)


def test_samples_of_a_line_do_not_depend_on_the_lines_that_are_in_parts_beside_it(cli, runs, monkeypatch):
    command = ["translate", runs["bahdanau"], "--do-sample", "--seed", 5, "--split-sentences"]
    texts = ["One. Two.", "three", "Four. Five. Six.", "seven"]
    whole = lines(cli(*command, given="\n".join(texts).encode()))
    monkeypatch.setattr("regard.jobs.lines.CHUNK", 1)
    assert lines(cli(*command, given="\n".join(texts).encode())) == whole


def test_a_line_longer_than_any_that_was_trained_on_is_told(cli, runs, translator, caplog):
    longest = translator.run.facts["longest_source"]
    sources = [pair.source for pair in translator.run.corpus().pairs("train")]
    assert longest == max(translator.source_lengths(sources))
    known = max(sources, key=lambda text: translator.source_lengths([text]))
    given = f"one\n{known}\n{known} {known}\n"
    done = cli("translate", runs["bahdanau"], given=given.encode())
    count = translator.source_lengths([f"{known} {known}"])[0]
    assert done.code == 0
    assert caplog.messages == [
        f"standard input:3 has {count} tokens, the longest source trained on {longest}; --split-sentences may help"
    ]
    caplog.clear()
    cli("translate", runs["bahdanau"], given=f"{known} {known}\n".encode() * 13)
    assert caplog.text.count("the longest source trained on") == 10
    assert caplog.messages[-1] == "… and 3 more lines are longer"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--split-sentences"],
            "--n-best is of one sentence, not of a line in parts; leave it out, or --split-sentences",
        ),
        (["--too-long", "split"], "not of a line in parts; leave it out, or --too-long split"),
    ],
)
def test_the_n_best_of_a_line_in_parts_are_refused(cli, runs, arguments, message):
    done = cli("translate", runs["bahdanau"], "--num-beams", 2, "--n-best", 2, *arguments, given=b"one\n")
    assert (done.code, done.out) == (1, "")
    assert message in done.err


def test_a_program_gets_the_answer_to_each_line_before_it_writes_the_next(runs):
    command = [sys.executable, "-m", "regard", "translate", str(runs["bahdanau"])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        for line in ("one", "two", ""):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert bool(process.stdout.readline().strip()) == bool(line)
        process.stdin.close()
        assert process.stdout.read() == ""
        timer.cancel()
    assert process.returncode == 0
