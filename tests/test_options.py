"""An option is one entry, a field with its text, and appears from there in API, command line and page."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

import regard
from regard.config import texts
from regard.generation.decoding import Decoding
from regard.generation.options import SamplingOptions
from regard.generation.writing import Writing
from regard.reading.options import ReadOptions

SHOWN = [
    (SamplingOptions, regard.LanguageModel.generate),
    (SamplingOptions, regard.Translator.translate),
    (SamplingOptions, regard.Translator.translate_n_best),
    (ReadOptions, regard.watching),
    (ReadOptions, regard.LanguageModel.read),
    (ReadOptions, regard.LanguageModel.read_written),
]


@pytest.mark.parametrize(("kind", "function"), SHOWN)
def test_help_of_the_api_shows_every_option_with_its_text(kind, function):
    parameters = inspect.signature(function).parameters
    told = " ".join(inspect.getdoc(function).split())
    for field in dataclasses.fields(kind):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{field.name} {texts(kind)[field.name]}" in told
    assert not any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def test_translators_and_language_models_share_options_and_their_texts():
    shared = {field.name for field in dataclasses.fields(SamplingOptions)}
    for kind in (Decoding, Writing):
        assert shared <= {field.name for field in dataclasses.fields(kind)}
        # said once: in the base
        assert not any(f"\n    {name}\n" in kind.__doc__ for name in shared)
        assert texts(kind).items() >= texts(SamplingOptions).items()


def printed(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.replace("│", " ").split())


ADDED = '''
import dataclasses, sys
import {module} as module
from regard.config import setting

@dataclasses.dataclass(frozen=True, kw_only=True)
class More(module.{kind}):
    """One option more.

    Parameters
    ----------
    {name}
        {text}
    """

    {name}: {hint} = setting({default})

module.{kind} = More
'''
SAMPLING = ADDED.format(
    module="regard.generation.options",
    kind="SamplingOptions",
    name="typical_p",
    text="Sample from typical tokens.",
    hint="float",
    default=1.0,
)
READING = ADDED.format(
    module="regard.reading.options",
    kind="ReadOptions",
    name="scores",
    text="Keep scores too.",
    hint="bool",
    default=False,
)
HELP = "\nfrom regard.cli import main\nsys.argv = ['regard', *{verb!r}.split(), '--help']\nmain()"


@pytest.mark.parametrize("verb", ["generate", "translate", "evaluate"])
def test_a_sampling_option_that_is_added_is_in_the_help_of_the_command_line(verb):
    assert "--typical-p FLOAT Sample from typical tokens. [default: 1.0]" in printed(SAMPLING + HELP.format(verb=verb))


def test_a_sampling_option_that_is_added_is_in_the_api_and_on_the_page():
    pytest.importorskip("starlette")
    script = """
import inspect, regard
from types import SimpleNamespace
from regard.view.server.models import serve_language_model
model = SimpleNamespace(is_translator=False, writes=True, tokenizer=None, name="tiny")
print(*(each.text for each in serve_language_model(model).modes["prompt"].settings if each.name == "typical_p"))
for function in (regard.LanguageModel.generate, regard.Translator.translate):
    print(inspect.signature(function).parameters["typical_p"], "Sample from typical" in function.__doc__)
"""
    wanted = "Sample from typical tokens. typical_p: float = 1.0 True typical_p: float = 1.0 True"
    assert printed(SAMPLING + script) == wanted


def test_a_reading_option_that_is_added_is_in_the_help_of_the_command_line():
    assert "--scores Keep scores too. [default: False]" in printed(READING + HELP.format(verb="read"))


def test_a_reading_option_that_is_added_is_in_the_api_and_reaches_the_watch():
    script = """
import inspect, torch, regard
for function in (regard.watching, regard.LanguageModel.read, regard.LanguageModel.read_written):
    print(inspect.signature(function).parameters["scores"], "Keep scores too." in function.__doc__)
with regard.watching(torch.nn.MultiheadAttention(4, 2), scores=True) as watch:
    print(watch.wanted.scores)
"""
    assert printed(READING + script) == "scores: bool = False True " * 3 + "True"


def test_a_reading_option_that_is_added_may_be_asked_for_on_the_page():
    pytest.importorskip("starlette")
    script = """
from types import SimpleNamespace
from regard.view.server.models import serve_language_model
def read(**options):
    print(options["scores"], options["statistics"])
config = SimpleNamespace(num_heads=1, num_layers=1)
model = SimpleNamespace(is_translator=False, writes=False, tokenizer=None, name="tiny", read=read,
    encode=lambda text: ([0], None), module=SimpleNamespace(config=config))
served, asked = serve_language_model(model), {"reading": {"scores": True}}
served.check("text", asked)
served.ask("text", "a", asked, SimpleNamespace(has_left=False))
"""
    assert printed(READING + script) == "True ('value_norm',)"
