"""What all verbs have in common: help without waiting, exit codes, errors in a line."""

import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from docstring_parser import parse

import regard.cli
from regard.cli import corpus as corpus_module
from regard.cli.main import VERBS

FOLDER = Path(regard.cli.__file__).parent


def commands():
    """Every function that can be called from the command line, by its name there."""
    for verb in VERBS:
        function = getattr(importlib.import_module(f"regard.cli.{verb}"), verb)
        if inspect.isfunction(function):
            yield verb, function
    yield "corpus list", corpus_module.list_
    yield "corpus get", corpus_module.get


def parameters(function):
    """Each parameter with its description in a docstring; settings that verbs share are told where they stand."""
    docs = [inspect.getdoc(each) or "" for each in getattr(function, "__mro__", [function])]
    own = {parameter.arg_name: parameter.description for doc in docs for parameter in parse(doc).params}
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            yield from parameters(type(parameter.default))
        else:
            elsewhere = [each.help for each in getattr(parameter.annotation, "__metadata__", ()) if each.help]
            yield parameter, own.pop(name, elsewhere[0] if elsewhere else None)
    assert not own


COMMANDS = dict(commands())


def test_every_verb_is_a_file_and_every_file_a_verb():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "main", "options", "bulk"}
    assert files == set(VERBS)
    assert all(importlib.import_module(f"regard.cli.{verb}") for verb in VERBS)
    assert {name.partition(" ")[0] for name in COMMANDS} == set(VERBS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_parameter_is_documented(name):
    assert parse(inspect.getdoc(COMMANDS[name]) or "").short_description
    assert all(description for _, description in parameters(COMMANDS[name]))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_every_parameter_with_its_description(name, cli):
    done = cli(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    told = " ".join(done.out.replace("│", " ").split())
    for parameter, description in parameters(COMMANDS[name]):
        flag = parameter.name.replace("_", "-")
        assert (f"--{flag}" if parameter.kind is parameter.KEYWORD_ONLY else flag.upper()) in told
        # help wraps lines, so the first words will do
        assert " ".join(description.split()[:3]) in told


def test_the_list_of_verbs_has_a_line_for_each(cli):
    done = cli("--help")
    assert done.code == 0
    told = " ".join(done.out.replace("│", " ").split())
    for verb, line in VERBS.items():
        assert f"{verb} {line}" in told
    assert "--debug" in told


def test_help_waits_for_nothing_heavy():
    script = f"""
import contextlib, io, sys
from regard.cli import main
for verb in {[[], *([verb] for verb in VERBS)]!r}:
    sys.argv = ["regard", *verb, "--help"]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 0, verb
print(sorted({{"torch", "numpy", "matplotlib", "tokenizers", "sacrebleu"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert done.stdout.count("Usage: ") == len(VERBS) + 1


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").out.strip() == regard.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["trnslate"],
        ["translate", "RUN", "--num-beam", "4"],
        ["translate", "RUN", "--num-beams", "many"],
        ["translate"],
        ["evaluate", "RUN", "--split"],
        ["read", "RUN"],
        ["corpus", "get"],
        ["train", "numbers-rnn", "--no-resume"],
    ],
)
def test_a_call_that_is_no_command_is_usage_and_exits_with_2(cli, arguments):
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("regard: ")
    assert "`regard --help` lists the verbs" in done.err


def test_what_cannot_be_used_is_told_in_a_line_and_exits_with_1(cli, tmp_path):
    done = cli("evaluate", tmp_path / "none")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        f"regard: {tmp_path}/none: there is no such run; `regard train RECIPE --out {tmp_path}/none` makes one"
    ]


def test_debug_shows_where_an_error_came_from():
    command = [sys.executable, "-m", "regard", "train", "numbers-rn", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "did you mean 'numbers-rnn'?" in done.stderr


def test_the_corpora_are_listed_by_name(cli):
    done = cli("corpus", "list")
    assert done.code == 0
    assert {"numbers-en-fr", "bible-en-fr"} <= {line.split()[0] for line in done.out.splitlines()}


def test_an_unknown_corpus_is_answered_with_the_nearest(cli):
    done = cli("corpus", "get", "numbers-en-f")
    assert done.code == 1
    assert "did you mean 'numbers-en-fr'?" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "[train] minutes must be above 0"),
        (["--seed", "-1"], "[train] seed must be at least 0"),
        (["--out", "."], ". exists already; choose another --out"),
    ],
)
def test_a_demo_that_cannot_be_is_refused_before_anything_is_made(cli, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("demo", *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["translate", "{run}", "-"],
        ["translate", "{run}", "--alignments", "{folder}/alignments"],
        ["read", "{run}", "--source", "one", "--json"],
    ],
)
def test_a_reader_that_leaves_hears_no_complaint(runs, arguments, tmp_path):
    """As `head` does, when it has seen enough."""
    arguments = [part.format(run=runs["bahdanau"], folder=tmp_path) for part in arguments]
    command = [sys.executable, "-m", "regard", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, complaint = process.communicate(b"one two\n" * 9)
    assert (process.returncode, complaint) == (1, b"")
    assert list(tmp_path.iterdir()) == []


def test_output_is_utf8_whatever_the_terminal(runs):
    command = [sys.executable, "-m", "regard", "translate", str(runs["rnn"]), "--json"]
    environment = {"PYTHONIOENCODING": "ascii", "REGARD_CACHE": "/dev/null", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input="é 七\n".encode(), capture_output=True, env=environment, check=True)
    assert json.loads(done.stdout.decode("utf-8"))["source"] == "é 七"
