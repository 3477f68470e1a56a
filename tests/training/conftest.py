"""A corpus of a few hundred reversed sentences and models that train on it in a fraction of a second."""

import itertools
import json
import os
import random
import signal

import pytest
from safetensors.torch import load_file

from regard.data.corpus import unwatched
from regard.training.recipe import read_recipe
from regard.training.train import train_run

SOURCE_WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
TARGET_WORDS = ["un", "deux", "trois", "quatre", "cinq", "six", "sept"]
LONGEST = 6
MODELS = {
    "rnn": {"type": "rnn", "attention": "none", "embedding_dim": 12, "hidden_dim": 12, "num_layers": 2},
    "bahdanau": {"type": "rnn", "attention": "additive", "embedding_dim": 12, "hidden_dim": 12},
    "transformer": {"type": "transformer", "model_dim": 16, "num_heads": 2, "num_layers": 2, "feed_forward_dim": 24},
}
TRAIN = {"batch_tokens": 256, "warmup_steps": 3, "validate_every": 4, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Sentences of one to six words; the translation has them in reverse."""
    generator = random.Random(1)
    lines = []
    for _ in range(400):
        words = [generator.randrange(len(SOURCE_WORDS)) for _ in range(generator.randint(1, LONGEST))]
        sides = [SOURCE_WORDS[word] for word in words], [TARGET_WORDS[word] for word in reversed(words)]
        lines.append("\t".join(map(" ".join, sides)))
    path = tmp_path_factory.mktemp("toy") / "toy.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def recipe(toy):
    """A recipe on `toy`: `data` and `model` change settings of their sections, the rest are of [train]."""

    def make(name="transformer", *, data=(), model=(), **train):
        if not {"steps", "epochs", "minutes"} & train.keys():
            train["steps"] = 12
        tables = {
            "name": name,
            "data": {"train": str(toy), "tokenizer": "word", "vocab_size": 24, **dict(data)},
            "model": {**MODELS[name], "max_length": 16, **dict(model)},
            "train": {**TRAIN, **train},
        }
        return read_recipe(tables, where="test")

    return make


@pytest.fixture
def trained(recipe, tmp_path):
    """Trains into a folder of its own, or into `folder`, and gives the run."""
    numbers = itertools.count()

    def train(
        name="transformer",
        *,
        folder=None,
        resume=False,
        report=lambda progress: None,
        preparing=unwatched,
        **settings,
    ):
        folder = folder or tmp_path / f"run-{next(numbers)}"
        return train_run(recipe(name, **settings), folder, resume=resume, report=report, preparing=preparing)

    return train


@pytest.fixture(scope="session")
def ctrl_c():
    """Makes a report that presses Ctrl-C at a step, so many times, or sends other signals."""

    def press(step, times=1, signals=(signal.SIGINT,)):
        def report(progress):
            if progress.step == step:
                for number in signals * times:
                    os.kill(os.getpid(), number)

        return report

    return press


@pytest.fixture(scope="session")
def metrics_of():
    """The lines of metrics.jsonl."""
    return lambda folder: [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def first_gradient_of():
    """The gradient of a run's first step: Adam's first moment is a tenth of it (Kingma and Ba 2015, algorithm 1)."""

    def read(folder):
        state = load_file(folder / "resume" / "optimizer-00001-of-00001.safetensors")
        return {name.removesuffix(".exp_avg"): 10 * value for name, value in state.items() if name.endswith(".exp_avg")}

    return read
