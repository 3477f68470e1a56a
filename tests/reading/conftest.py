"""Models of every kind, untrained: what they look at has no sense, and must be read exactly all the same."""

from types import SimpleNamespace

import pytest
import torch

from regard.data.tokenizer import Tokenizer
from regard.models import build, read_config
from regard.reading.replay import replay

TEXT = ["one two three, it's four", "un deux trois, c'est quatre", "five six 七八 seven 🙂", "cinq six 七八 sept 🙂"]
SMALL = {"embedding_dim": 12, "hidden_dim": 10, "max_length": 40}
MODELS = {
    "additive": {"type": "rnn", "attention": "additive", **SMALL},
    "dot": {"type": "rnn", "attention": "dot", "bidirectional": False, "cell": "lstm", **SMALL},
    "general": {"type": "rnn", "attention": "general", "input_feeding": True, **SMALL},
    "concat": {"type": "rnn", "attention": "concat", "num_layers": 2, **SMALL},
    "transformer": {"type": "transformer", "model_dim": 12, "num_heads": 3, "num_layers": 2, "feed_forward_dim": 20},
    "none": {"type": "rnn", "attention": "none", **SMALL},
}
SOURCE, TARGET = "two it's 七 five🙂", "deux c'est 七 cinq"


@pytest.fixture(scope="session", params=["bpe", "word"])
def tokenizer(request):
    return Tokenizer.train(TEXT, kind=request.param, vocab_size={"bpe": 290, "word": 40}[request.param])


@pytest.fixture(scope="session")
def module_of(tokenizer):
    """A model by its name, in float64, with parameters so large that it looks at some tokens more than at others."""

    def make(name):
        torch.manual_seed(5)
        config = read_config({"max_length": 40, **MODELS[name]}, where="[model]")
        module = build(config, len(tokenizer)).double().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(2)
        return module

    made = {name: make(name) for name in MODELS}
    return made.__getitem__


@pytest.fixture(scope="session", params=[name for name in MODELS if name != "none"])
def read(request, tokenizer, module_of):
    """Reads a translation with one of the models; `read.module`, `read.name` and `read.tokenizer` say which."""
    module = module_of(request.param)

    def call(source=SOURCE, target=TARGET):
        ids = tokenizer.encode(target) if isinstance(target, str) else target
        return replay(module, tokenizer, source, ids, model="toy", max_length=40)

    call.module, call.name, call.tokenizer = module, request.param, tokenizer
    return call


@pytest.fixture(scope="session")
def texts():
    return SimpleNamespace(source=SOURCE, target=TARGET)
