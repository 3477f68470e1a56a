"""Runs of a few steps on number words, and the command line in this process."""

import io
import sys
from types import SimpleNamespace

import pytest
from num2words import num2words

import regard
from regard.cli import main

TRAIN = {"steps": 4, "batch_tokens": 256, "warmup_steps": 2, "validate_every": 2, "threads": 1, "device": "cpu"}
SIZES = "embedding_dim = 12\nhidden_dim = 12\nmax_length = 48"
MODELS = {
    "rnn": f'type = "rnn"\nattention = "none"\n{SIZES}',
    "bahdanau": f'type = "rnn"\nattention = "additive"\n{SIZES}',
    "transformer": 'type = "transformer"\nmodel_dim = 12\nnum_heads = 2\nnum_layers = 2\nfeed_forward_dim = 16\n'
    "max_length = 48",
}


@pytest.fixture(scope="session")
def recipes(tmp_path_factory):
    """Recipe files by the name of the model, beside the corpus that they name."""
    folder = tmp_path_factory.mktemp("recipes")
    pairs = (f"{num2words(n)}\t{num2words(n, lang='fr')}" for n in range(160))
    (folder / "numbers.tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    settings = "\n".join(f"{name} = {value!r}" for name, value in TRAIN.items())
    for name, model in MODELS.items():
        text = f"[data]\ntrain = '{folder / 'numbers.tsv'}'\nvocab_size = 290\n[model]\n{model}\n[train]\n{settings}\n"
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.toml" for name in MODELS}


@pytest.fixture(scope="session")
def runs(recipes, tmp_path_factory):
    """Trained run folders by the name of the model."""
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe in recipes.items():
        regard.train(recipe, out=folder / name)
    return {name: folder / name for name in recipes}


@pytest.fixture
def cli(monkeypatch, capsysbinary):
    """`regard` with these arguments and standard input: its exit code and what it wrote."""

    def call(*arguments, given=b""):
        monkeypatch.setattr(sys, "argv", ["regard", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsysbinary.readouterr()
        return SimpleNamespace(code=ended.value.code, out=written.out.decode(), err=written.err.decode())

    return call
