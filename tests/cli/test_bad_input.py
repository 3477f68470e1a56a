"""Whatever is typed or given, a command ends, with a result or with one error, and leaves nothing half-written."""

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import os
import resource
import signal
import sys
import typing
from pathlib import Path

import pytest

import regard
from regard.cli import corpus as corpus_module
from regard.cli import main
from regard.cli.main import VERBS
from regard.models.gpt import GPTConfig
from regard.models.rnn import RNNConfig
from regard.models.transformer import TransformerConfig
from regard.training.recipe import DataConfig, TrainConfig

# seconds of a processor, seconds by the clock, and bytes that no refusal takes
LIMIT, PATIENCE, MEMORY = 60, 600, 6 << 30
EVERY = 9
HUGE, LONG = "1" + 23 * "0", "9" * 5000
NUMBERS = ("0", "-1", "1000000", HUGE, LONG, "1e5", "nan", "inf", "1e-320", "x", "", "١")
TEXTS = ("", " ", "half \udce9 of one", "\ud800", "a\nb", "\x1b[31m", "x" * 20_000)
PATHS = (
    *("", ".", "/", "none", "none/below", "garbage/below", "loop", "loop/below", "folder", "garbage", "deep.json"),
    *(
        "deep.toml",
        "empty",
        "/dev/zero",
        "/dev/full",
        "/dev/null",
        "n" * 300,
        "p/" * 2500,
        "new\nline",
        "not-\udce9-utf8",
    ),
)
ENDINGS = ("", ".safetensors", ".json", ".toml", ".tsv", ".png")
# what is written below [data], [model] and [train]
VALUES = (
    "-1",
    "0",
    "1000000",
    HUGE,
    "0x" + 5000 * "f",
    "1e308",
    "nan",
    "[[1]]",
    "{a=1}",
    '"x"',
    '"a\\u0000b"',
    "[" * 3000,
)
FILES = {
    "garbage": b"\x00\xff\xfe\x80 no text",
    "empty": b"",
    "deep.json": b"[" * 100_000,
    "deep.toml": b"a = " + b"[" * 100_000,
    "number.json": b'[{"role": "user", "content": ' + LONG.encode() + b"}]",
    "surrogate.json": b'[{"role": "user", "content": "\\ud800"}]',
    "number.toml": b"[train]\nsteps = " + LONG.encode(),
    "null.toml": b'[data]\ntrain = "a\\u0000b"\n[model]\ntype = "rnn"\n[train]\nsteps = 1\n',
    "list.toml": b'[data]\ntrain = [1, "a"]\n[model]\ntype = ["rnn"]\n[train]\nsteps = 1\n',
    "zeros.toml": b'[data]\ntrain = "/dev/zero"\n[model]\ntype = "rnn"\n[train]\nsteps = 1\n',
    "text": b"one\ntwo\n",
}
RECIPE = """
[data]
train = "{data}"
tokenizer = "character"
[model]
type = "gpt"
model_dim = 8
num_heads = 2
num_layers = 1
feed_forward_dim = 8
max_length = 16
[train]
steps = 2
batch_tokens = 64
validate_every = 1
warmup_steps = 1
threads = 1
device = "cpu"
"""


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language-model")
    (folder / "text").write_text("\n\n".join(f"The fox and the grapes. Number {n}. {'x' * 2000}" for n in range(9)))
    (folder / "gpt.toml").write_text(RECIPE.format(data=folder / "text"))
    regard.train(folder / "gpt.toml", out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that is bad, and links to what has no end."""
    folder = tmp_path_factory.mktemp("place")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    for ending in ENDINGS[1:]:
        (folder / f"zero{ending}").symlink_to("/dev/zero")
        (folder / f"loop{ending}").symlink_to(f"loop{ending}")
        (folder / f"garbage{ending}").write_bytes(FILES["garbage"])
    return folder


@pytest.fixture
def refused(monkeypatch, capsysbinary, place):
    """Calls `regard` and tells what is wrong with how it ended; None where nothing is."""
    monkeypatch.chdir(place)
    # what would go on for ever where all is well
    monkeypatch.setattr("regard.view.server.serve.Page.run", lambda self, ready: self._socket.close())
    monkeypatch.setattr("regard.cli.demo._train", lambda *_: (_ for _ in ()).throw(regard.RegardError("enough")))

    def call(*arguments, given=b"one\n"):
        monkeypatch.setattr(sys, "argv", ["regard", *map(str, arguments)])
        stdin = given if isinstance(given, io.RawIOBase) else io.BytesIO(given)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stdin)))
        capsysbinary.readouterr()
        before = listing(place)
        try:
            with limited(), pytest.raises(SystemExit) as ended:
                main()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"raised {error!r:.300}"
        told = capsysbinary.readouterr().err.decode()
        left, code = listing(place) - before, ended.value.code
        # an empty folder in which another was to be made is nothing half-written
        files = [path for path in left if path.is_symlink() or not path.is_dir()]
        remove(place, left)
        if code not in (0, 1, 2):
            return f"ended with {code}"
        if code and files:
            return f"left {files}"
        if code and (not told.startswith("regard: ") or "Traceback" in told or told.count("\n") > 4):
            return f"told {told[:300]!r}"
        return f"listed {listing(place) ^ before}" if listing(place) != before else None

    return call


@contextlib.contextmanager
def limited():
    """Too much time or memory is an error."""

    def stop(*_):
        raise AssertionError("it takes too long")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, LIMIT), signal.SIGALRM: (signal.ITIMER_REAL, PATIENCE)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def listing(folder: Path) -> set[Path]:
    return {Path(here, name) for here, folders, files in os.walk(folder) for name in (*folders, *files)}


def remove(folder, paths):
    for path in sorted(paths, reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def check_calls(refused, calls, given=b"one\n"):
    """Every call or, unless all are asked for, one in EVERY, the same each time: all of them take minutes."""
    every = 1 if os.environ.get("REGARD_ALL_BAD_INPUT") else EVERY
    calls = [tuple(map(str, call)) for call in calls]
    chosen = [call for number, call in enumerate(calls) if number % every == len(calls) % every]
    found = ((" ".join(map(ascii, call))[-200:], refused(*call, given=given)) for call in chosen)
    wrong = [f"{call}: {told}" for call, told in found if told]
    assert not wrong, "\n".join(wrong)


# a call of every command that does its work, into which what is bad is put
USUAL = {
    "demo": [],
    "corpus list": [],
    "corpus get": ["numbers-en-f"],
    "corpus show": ["numbers-en-f"],
    "train": ["recipe.toml", "--out", "run"],
    "translate": ["{run}", "text"],
    "evaluate": ["{run}"],
    "compare": ["{run}", "{other}"],
    "score": ["{run}", "text"],
    "align": ["{run}", "text"],
    "generate": ["{model}", "one", "--max-new-tokens", "2"],
    "read": ["{run}", "--source", "one"],
    "sources": ["{model}", "--prompt", "One. Two. Who?", "--max-new-tokens", "2"],
    "atlas": ["{model}", "text", "--out", "atlas"],
    "symmetrise": ["text", "text"],
    "view": ["{run}", "--no-browser", "--no-history", "--port", "0"],
    "export": ["{run}", "exported", "--to", "ctranslate2"],
    "attention": ["one two"],
}


def functions():
    for verb in VERBS:
        function = getattr(importlib.import_module(f"regard.cli.{verb}"), verb)
        if inspect.isfunction(function):
            yield verb, function
    yield from (
        ("corpus list", corpus_module.list_),
        ("corpus get", corpus_module.get),
        ("corpus show", corpus_module.show),
    )


def options(function):
    """The options of a command with the types that each takes; those in a dataclass, too."""
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            yield from options(type(parameter.default))
        elif parameter.kind is parameter.KEYWORD_ONLY:
            yield f"--{name.replace('_', '-')}", types_in(parameter.annotation)


def types_in(annotation) -> set[type]:
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return {str}
    return set().union(*map(types_in, parts)) if parts else {annotation} & {int, float, str, Path, bool}


def bad_values(types):
    for kind, values in ((int, NUMBERS), (float, NUMBERS), (Path, PATHS), (str, TEXTS)):
        if kind in types:
            yield from values


def bad_options():
    for name, function in functions():
        for option, types in options(function):
            for value in dict.fromkeys(bad_values(types)):
                yield name, option, value


BAD_OPTIONS = list(bad_options())


@pytest.mark.parametrize("name", USUAL)
def test_options_with_values_that_make_no_sense(refused, runs, language_model, recipes, place, name):
    assert set(USUAL) == {name for name, _ in functions()}
    (place / "recipe.toml").write_bytes(recipes["rnn"].read_bytes())
    known = {"run": runs["bahdanau"], "other": runs["rnn"], "model": language_model}
    usual = [part.format(**known) for part in USUAL[name]]
    calls = [(*name.split(), *usual, f"{option}={value}") for verb, option, value in BAD_OPTIONS if verb == name]
    check_calls(refused, calls)


def test_models_runs_and_files_that_are_none(refused, runs, language_model, place):
    run, model = runs["bahdanau"], language_model
    calls = [
        call
        for bad in (*PATHS, *(f"{stem}{ending}" for stem in ("zero", "loop", "garbage") for ending in ENDINGS[1:]))
        for call in (
            ("train", bad),
            ("translate", bad, "text"),
            ("translate", run, bad),
            ("evaluate", bad),
            ("compare", run, bad),
            ("generate", bad, "one"),
            ("read", bad, "--source", "one"),
            ("read", bad, "--prompt", "one"),
            ("sources", bad, "--prompt", "One. Two?"),
            ("view", bad, "--no-browser", "--no-history", "--port", "0"),
            ("export", bad, "exported", "--to", "hf"),
            ("export", run, bad, "--to", "ctranslate2"),
            ("corpus", "get", bad),
            ("corpus", "show", bad),
            (bad,),
        )
    ]
    calls += [
        call
        for bad in FILES
        for call in (
            ("generate", model, "--messages", bad),
            ("read", model, "--messages", bad),
            ("read", model, "--prompt-file", bad, "--max-new-tokens", "2"),
            ("sources", model, "--messages", bad, "--max-new-tokens", "2"),
            ("train", bad, "--out", "run"),
        )
    ]
    calls += [("generate", model, text, "--max-new-tokens", "2") for text in TEXTS if text.strip()]
    calls += [("attention", text) for text in TEXTS if text.strip()]
    check_calls(refused, calls)


def settings():
    for section, kinds in (
        ("data", [DataConfig]),
        ("train", [TrainConfig]),
        ("model", [RNNConfig, TransformerConfig, GPTConfig]),
    ):
        for kind in kinds:
            name = {RNNConfig: "rnn", TransformerConfig: "transformer", GPTConfig: "gpt"}.get(kind, "rnn")
            for field in dataclasses.fields(kind):
                yield name, f"{section}.{field.name}"


def test_settings_of_recipes_that_make_no_sense(refused, recipes, language_model, place):
    files = {**recipes, "gpt": language_model.parent / "gpt.toml"}
    # what no error can be, but a training that goes on for long, or breaks down on its way
    endless = [f"train.{name}={value}" for name in ("steps", "epochs", "minutes") for value in ("1000000", "1e308")]
    divergent = [f"train.{name}={value}" for name in ("learning_rate", "weight_decay") for value in (HUGE, "1e308")]
    calls = [
        ("train", files[name], "--out", "run", "--set", change)
        for name, setting in settings()
        for change in (f"{setting}={value}" for value in (*VALUES, *PATHS[8:]))
        if change not in (*endless, *divergent)
    ]
    check_calls(refused, calls)


@pytest.mark.parametrize("part", ["recipe.toml", "run.json", "tokenizer.json", "model.safetensors"])
def test_runs_of_which_a_part_is_broken(refused, runs, language_model, place, part):
    calls = []
    for kind, whole in (("translator", runs["bahdanau"]), ("model", language_model)):
        for bad in (
            "garbage",
            "empty",
            "deep.json",
            "deep.toml",
            "zero.json",
            "loop",
            "folder",
            "null.toml",
            "list.toml",
            "none",
        ):
            run = place / f"{kind}-{part}-{bad}"
            run.mkdir()
            for path in whole.iterdir():
                (run / path.name).symlink_to(place / bad if path.name == part else path)
            verbs = {
                "translator": [("translate", run, "text"), ("read", run, "--source", "one")],
                "model": [("generate", run, "one", "--max-new-tokens", "2"), ("sources", run, "--prompt", "One. Two?")],
            }
            calls += [*verbs[kind], ("evaluate", run), ("train", place / "recipe.toml", "--out", run, "--resume")]
    (place / "recipe.toml").write_bytes(b"")
    check_calls(refused, calls)


class Endless(io.RawIOBase):
    """What `yes` writes."""

    def readable(self):
        return True

    def readinto(self, buffer):
        buffer[:] = (b"yes\n" * (len(buffer) // 4 + 1))[: len(buffer)]
        return len(buffer)


def test_standard_input_without_an_end(refused, language_model, monkeypatch):
    monkeypatch.setattr("regard.cli.options.LONGEST_TEXT", 1 << 20)
    reads = [
        ("generate", language_model),
        ("read", language_model, "--text", "-"),
        ("attention", "-"),
        ("sources", language_model, "--prompt", "-"),
        ("generate", language_model, "--messages", "-"),
    ]
    for call in reads:
        assert refused(*call, given=Endless()) is None


def test_arguments_that_no_shell_can_give(refused):
    check_calls(refused, [("evaluate", "a\0b"), ("translate", "run", "--prefix=\0"), ("--de\0bug",)])


def test_messages_are_of_their_kind_or_refused(refused, language_model, place):
    for content in (
        "3",
        "[]",
        "[[]]",
        '[{"role": 3, "content": "a"}]',
        '[{"role": "user"}]',
        '{"role": "user"}',
        "nul",
    ):
        (place / "messages.json").write_text(content)
        assert refused("generate", language_model, "--messages", "messages.json") is None
    (place / "messages.json").write_text(json.dumps([{"role": "user", "content": "x"}] * 3))
    assert refused("generate", language_model, "--messages", "messages.json") is None
