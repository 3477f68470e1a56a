"""JoeyNMT 2.3, the peer for training and quality: Kreutzer, Bastings and Riezler 2019, in an environment of its own.

A recipe of Regard's is turned into its settings, and it reads the very tokens that Regard reads: its files hold the
strings of Regard's tokenizer with spaces between them, its vocabulary stands in the same order.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from regard.attention.multi_head import MultiHeadAttention
from regard.data.batch import BOS, EOS, PAD, SPECIAL_TOKENS, UNKNOWN
from regard.data.corpora import SPLITS, Corpus
from regard.data.formats import write_tsv
from regard.data.prepare import prepare
from regard.data.tokenizer import Tokenizer
from regard.files import new_folder
from regard.models.blocks import sinusoidal_positions
from regard.models.rnn import RNNConfig
from regard.training.recipe import Recipe

VERSION = "2.3.0"
# with a newer sentencepiece it fails on SetVocabulary
PACKAGES = (f"joeynmt=={VERSION}", "sentencepiece==0.2.0", "importlib_metadata==10.2.0", "numpy==2.4.6")
# the only ids that differ from Regard's
SPECIAL_IDS = {"unk": UNKNOWN, "pad": PAD, "bos": BOS, "eos": EOS}
NEVER = 10**9
# what both sides can be set to, in Regard's words
COMMON = {
    "train.optimizer": "adamw",
    "train.schedule": "inverse_sqrt",
    "train.warmup_steps": 400,
    "train.weight_decay": 0.0,
    "train.average": 1,
    "train.validate_every": NEVER,
    # sixty tokens and the special ones
    "model.max_length": 62,
}

# by the name of a layer, its weight and bias
Weights = dict[str, tuple[Tensor, Tensor]]


def interpreter() -> Path:
    """Of its environment, with the torch that runs here."""
    # pip tells a local build of torch, such as 2.13.0+cpu, only by its public version
    return peers.environment(f"joeynmt-{VERSION}", (f"torch=={torch.__version__.partition('+')[0]}", *PACKAGES))


def write_data(recipe: Recipe, folder: Path) -> None:
    """The corpus of a recipe in `folder`: pairs for Regard as TSV, tokens for JoeyNMT, one vocabulary.

    Both train on the same files whatever becomes of the corpus later; pairs too long for the recipe are skipped.
    """
    if folder.exists():
        return
    with new_folder(folder) as made:
        corpus = recipe.corpus()
        for split in SPLITS:
            write_tsv(made / f"{split}.tsv", corpus.pairs(split))
        kept = Corpus(name=corpus.name, splits={split: (made / f"{split}.tsv",) for split in SPLITS})
        lines = (side for pair in kept.pairs("train") for side in pair)
        tokenizer = Tokenizer.train(lines, kind="bpe", vocab_size=recipe.data.vocab_size)
        tokenizer.save(made / "tokenizer.json")
        strings = write_vocabulary(made)
        for split in SPLITS:
            tokenized = prepare(kept.pairs(split), tokenizer, made / f"{split}-ids", max_length=recipe.model.max_length)
            for index, side in enumerate(("source", "target")):
                with (made / f"{split}.{side}").open("w", encoding="utf-8") as file:
                    for row in range(len(tokenized)):
                        file.write(" ".join(strings[token] for token in tokenized[row][index]) + "\n")


def files(data: Path) -> dict[str, str]:
    """The settings by which Regard trains on the pairs of a folder that `write_data` made."""
    return {f"data.{split}": str((data / f"{split}.tsv").resolve()) for split in SPLITS}


def write_vocabulary(folder: Path) -> list[str]:
    """The strings of a folder's tokenizer.json, in their order as its vocabulary.txt too."""
    strings = token_strings(folder / "tokenizer.json")
    (folder / "vocabulary.txt").write_text("".join(f"{string}\n" for string in strings), encoding="utf-8")
    return strings


def token_strings(tokenizer: Path) -> list[str]:
    """The string of every token id, from a tokenizer.json."""
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)


def settings(recipe: Recipe, data: Path, folder: Path, *, log_every: int = 50) -> dict[str, Any]:
    """JoeyNMT's settings for the model and the training of a recipe."""
    train = recipe.train
    side = {"level": "word", "max_length": -1, "voc_file": str(data / "vocabulary.txt")}
    return {
        "name": folder.name,
        "joeynmt_version": VERSION,
        "model_dir": str(folder),
        "use_cuda": False,
        "fp16": False,
        "random_seed": 42,
        "data": {
            **{split: str(data / split) for split in SPLITS},
            "dataset_type": "plain",
            "src": {"lang": "source", **side},
            "trg": {"lang": "target", **side},
            "special_symbols": {
                **{f"{name}_token": SPECIAL_TOKENS[id] for name, id in SPECIAL_IDS.items()},
                **{f"{name}_id": place for place, name in enumerate(SPECIAL_IDS)},
            },
        },
        "testing": {
            "n_best": 1,
            "beam_size": 5,
            "beam_alpha": 1.0,
            "batch_size": 16,
            "batch_type": "sentence",
            "max_output_length": recipe.model.max_length - 2,
            "generate_unk": False,
            "eval_metrics": [],
        },
        "training": {
            "optimizer": "adamw",
            "adam_betas": [0.9, 0.98],
            "weight_decay": train.weight_decay,
            "clip_grad_norm": train.clip,
            "learning_rate": train.learning_rate,
            # else it stops in the warm-up, whose first steps are smaller than its usual minimum
            "learning_rate_min": 0.0,
            "scheduling": "warmupinversesquareroot",
            "learning_rate_warmup": train.warmup_steps,
            "batch_size": train.batch_tokens,
            "batch_type": "token",
            "normalization": "tokens",
            "loss": "crossentropy",
            "label_smoothing": train.label_smoothing,
            "epochs": train.epochs or NEVER,
            **({"updates": train.steps} if train.steps else {}),
            "shuffle": True,
            "overwrite": True,
            "logging_freq": log_every,
            # it wants a multiple
            "validation_freq": log_every * NEVER,
        },
        "model": {
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "tied_embeddings": True,
            **(_rnn(recipe.model) if isinstance(recipe.model, RNNConfig) else _transformer(recipe.model)),
        },
    }


def _rnn(model: RNNConfig) -> dict[str, Any]:
    both = {
        "type": "recurrent",
        "rnn_type": model.cell,
        "embeddings": {"embedding_dim": model.embedding_dim, "scale": False},
        "hidden_size": model.hidden_dim,
        "dropout": model.dropout,
        "num_layers": model.num_layers,
    }
    assert model.attention == "additive"
    # by input feeding alone does its state know what was looked at, as Bahdanau's does
    decoder = {"input_feeding": True, "init_hidden": "bridge", "attention": "bahdanau"}
    return {
        "tied_softmax": False,
        # as its own recipes for RNNs have it: its embeddings are not scaled
        "embed_initializer": "normal",
        "embed_init_weight": 0.1,
        "init_rnn_orthogonal": True,
        "encoder": {**both, "bidirectional": model.bidirectional},
        "decoder": {**both, **decoder},
    }


def _transformer(model: Any) -> dict[str, Any]:
    both = {
        "type": "transformer",
        "num_layers": model.num_layers,
        "num_heads": model.num_heads,
        "embeddings": {"embedding_dim": model.model_dim, "scale": True},
        "hidden_size": model.model_dim,
        "ff_size": model.feed_forward_dim,
        "dropout": model.dropout,
        "layer_norm": model.norm,
    }
    return {"tied_softmax": model.tied_embeddings, "encoder": both, "decoder": both}


def write_settings(recipe: Recipe, data: Path, folder: Path, *, log_every: int = 50) -> Path:
    """`settings` as the file FOLDER.yaml."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".yaml")
    # JSON is YAML too
    file.write_text(json.dumps(settings(recipe, data, folder, log_every=log_every), indent=2), encoding="utf-8")
    return file


def train(recipe: Recipe, data: Path, folder: Path, *, threads: int) -> None:
    """Train a model by a recipe into `folder`, unless it stands there; its log is FOLDER.log."""
    finished = folder / "finished"
    file = write_settings(recipe, data, folder)
    if finished.exists():
        if finished.read_bytes() != file.read_bytes():
            raise RuntimeError(f"{folder} was trained with other settings than {file}; move it away to train anew")
        return
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        command = [str(interpreter()), "-m", "joeynmt", "train", str(file), "--skip-test"]
        subprocess.run(command, check=True, stdout=log, stderr=log, env=peers.environment_of(threads))
    # it leaves its weights where it failed, too
    finished.write_bytes(file.read_bytes())


def parameters(folder: Path) -> int:
    """How many numbers the model of a folder has learned, as JoeyNMT's log tells."""
    found = re.search(r"Total params: (\d+)", folder.with_suffix(".log").read_text(encoding="utf-8"))
    assert found, folder
    return int(found[1])


def updates(folder: Path) -> int:
    """How many updates made the model of a folder: it is kept by that number."""
    return max(int(file.stem) for file in folder.glob("*.ckpt") if file.stem.isdecimal())


def write_weights(module: Any, folder: Path) -> None:
    """A trained Transformer of Regard's as a model of JoeyNMT's."""
    order = [*SPECIAL_IDS.values(), *range(len(SPECIAL_IDS), len(module.output.weight))]
    embeddings = (module.source_embedding, module.target_embedding, module.output)
    source, target, output = (embedding.weight[order] for embedding in embeddings)
    # as many as JoeyNMT has
    positions = sinusoidal_positions(5000, source.shape[1])[None]
    state = {
        "src_embed.lut.weight": source,
        "trg_embed.lut.weight": target,
        "decoder.output_layer.weight": output,
        "encoder.pe.pe": positions,
        "decoder.pe.pe": positions,
    }
    parts: Weights = {"encoder.layer_norm": _of(module.encoder_norm), "decoder.layer_norm": _of(module.decoder_norm)}
    for index, layer in enumerate(module.encoder_layers):
        name = f"encoder.layers.{index}"
        parts[f"{name}.layer_norm"] = _of(layer.attention_sublayer.norm)
        parts |= _attention(f"{name}.src_src_att", layer.attention) | _feed_forward(name, layer)
    for index, layer in enumerate(module.decoder_layers):
        name = f"decoder.layers.{index}"
        parts[f"{name}.x_layer_norm"] = _of(layer.self_sublayer.norm)
        parts[f"{name}.dec_layer_norm"] = _of(layer.cross_sublayer.norm)
        parts |= _attention(f"{name}.trg_trg_att", layer.self_attention)
        parts |= _attention(f"{name}.src_trg_att", layer.cross_attention) | _feed_forward(name, layer)
    for name, (weight, bias) in parts.items():
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    folder.mkdir(parents=True)
    torch.save({"model_state": {name: tensor.detach().clone() for name, tensor in state.items()}}, folder / "best.ckpt")


def _attention(name: str, attention: MultiHeadAttention) -> Weights:
    query, key, value = zip(*(tensor.chunk(3) for tensor in _of(attention.in_proj)), strict=True)
    layers = {"q_layer": query, "k_layer": key, "v_layer": value, "output_layer": _of(attention.out_proj)}
    return {f"{name}.{layer}": part for layer, part in layers.items()}


def _feed_forward(name: str, layer: Any) -> Weights:
    return {
        f"{name}.feed_forward.layer_norm": _of(layer.feed_forward_sublayer.norm),
        f"{name}.feed_forward.pwff_layer.0": _of(layer.feed_forward[0]),
        f"{name}.feed_forward.pwff_layer.3": _of(layer.feed_forward[-1]),
    }


def _of(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias
