"""The models of the live page as Python runs them, and the page itself in a browser without a network."""

import importlib.util
from pathlib import Path

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from regard.data.tokenizer import ANY_CHARACTER, Tokenizer
from regard.models.gpt import GPT, GPTConfig
from regard.models.recurrent import RNNTranslator
from regard.models.rnn import RNNConfig
from regard.models.rotary import RotaryConfig
from regard.models.transformer import Transformer, TransformerConfig
from regard.translator import Translator

ROOT = Path(__file__).parents[2]
TRANSLATORS = ("rnn", "bahdanau", "transformer")
FAMILIES = {
    "rnn": (RNNTranslator, RNNConfig),
    "bahdanau": (RNNTranslator, RNNConfig),
    "transformer": (Transformer, TransformerConfig),
    "gpt": (GPT, GPTConfig),
}


def _script():
    spec = importlib.util.spec_from_file_location("live_build", ROOT / "docs" / "live" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = _script()


def tokenizer_of(stored):
    """A tokenizer by the library that trained it, from what the page has of it."""
    vocabulary = {token: id for id, token in enumerate(stored["tokens"])}
    if stored["kind"] == "bpe":
        merges = [tuple(merge.split(" ")) for merge in stored["merges"]]
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(ANY_CHARACTER), "isolated")
        backend.decoder = decoders.Fuse()
    backend.normalizer = normalizers.NFC()
    backend.encode_special_tokens = True
    backend.add_special_tokens(stored["tokens"][:4])
    return Tokenizer(backend)


def module_of(name):
    """The model with the page's weights, and its tokenizer."""
    weights, metadata = build.read_weights(name)
    family, config = FAMILIES[name]
    settings = metadata["config"]
    if name == "gpt":
        settings = {**settings, "rotary": RotaryConfig(**settings["rotary"])}
    tokenizer = tokenizer_of(metadata["tokenizer"])
    module = family(config(**settings), len(metadata["tokenizer"]["tokens"]))
    missing, unexpected = module.load_state_dict(weights, strict=False)
    # those that are tied to one that is there
    assert set(missing) <= {"target_embedding.weight", "output.weight"}
    assert not unexpected
    return module.eval(), tokenizer


def translator_of(name):
    module, tokenizer = module_of(name)
    length = build.read_weights(name)[1]["config"]["max_length"]
    return Translator(module, tokenizer, name=name, max_length=length, device=torch.device("cpu"), dtype=torch.float32)
