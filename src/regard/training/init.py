"""What a training begins from, other than noise: a run, or a pretrained model.

Howard and Ruder 2018, "Universal language model fine-tuning for text classification".
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.config import read_toml
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.files import real_path
from regard.models import GPTConfig, ModelConfig, build, read_config
from regard.models.pretrained.config import PretrainedConfig
from regard.models.pretrained.find import find_model
from regard.models.pretrained.folder import (
    CONFIG,
    is_own,
    is_translator,
    load_own,
    load_tokenizer,
    own_sizes,
    read_json,
)
from regard.models.pretrained.lora import ADAPTER_CONFIG, Found, find_merged
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer
from regard.models.pretrained.text_tokenizer import TextTokenizer
from regard.models.pretrained.translators import note_languages
from regard.training import checkpoint
from regard.training.folder import PRETRAINED, RECIPE, TOKENIZER, WEIGHTS
from regard.training.tokens import Tokens
from regard.training.translators import AnyTokenizer, described, fresh_translator, loaded_translator, longest

# tokens of a training window, of which a pretrained model could take many more
WINDOW = 512
# more than there are special tokens
LEAST_TOKENS = 5
# settings of [model] that say how it is trained, not what its weights are
TRAINED_BY = ("dropout", "checkpoint_activations")


@dataclass(frozen=True)
class Start:
    """The model in a folder: a run of Regard's own format or, with `is_pretrained`, a Hugging Face folder."""

    folder: Path
    is_pretrained: bool

    @classmethod
    def find(cls, init: str | os.PathLike[str]) -> "Start":
        """The model of a run, a Hugging Face folder, a name of the hub, a GGUF file or an alias.

        Raises RegardError where there is none.
        """
        path = Path(init)
        if (path / RECIPE).is_file() and not (path / CONFIG).is_file():
            if not (path / WEIGHTS).is_file():
                raise RegardError(f"{path}: its training has not ended, there are no weights; go on with --resume")
            return cls(path, is_pretrained=False)
        if path.is_dir() and not any((path / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
            raise RegardError(f"{path}: neither a run nor a Hugging Face folder; it holds no {RECIPE} and no {CONFIG}")
        return cls(find_model(init)[1], is_pretrained=True)

    def settings(self) -> dict[str, Any]:
        """What a recipe has under `[model]`."""
        if self.is_translator:
            return {"type": "pretrained", "max_length": longest(self._described_in())}
        if self.is_pretrained:
            config, _ = own_sizes(self._described_in())
            return {"type": "gpt"} | _given(asdict(config))
        table = read_toml(self.folder / RECIPE).get("model")
        if not isinstance(table, dict):
            raise RegardError(f"{self.folder / RECIPE}: has no [model]; put it back")
        return {name: value for name, value in table.items() if name not in ("init", "lora")}

    @functools.cached_property
    def is_translator(self) -> bool:
        """Whether it is a pretrained encoder–decoder."""
        return self.is_pretrained and is_translator(self._described_in())

    def tokenizer(self, config: ModelConfig | None = None) -> AnyTokenizer:
        """The tokenizer of the model by `config`. Raises RegardError for languages that it does not have."""
        if not self.is_pretrained:
            return Tokenizer.load(self.folder / TOKENIZER)
        if isinstance(config, PretrainedConfig):
            return described(self._described_in(), config).tokenizer
        # an adapter may leave it to its base
        has_one = (self.folder / CONFIG).is_file() or load_tokenizer(self.folder) is not None
        return TextTokenizer.load(self.folder if has_one else self._merged().folder)

    def tokens(self, max_length: int, *, documents: bool = False, config: ModelConfig | None = None) -> Tokens:
        """Texts as this model's tokens, in windows of `max_length`; `documents` as in a recipe."""
        files = [path for name in PRETRAINED if (path := self.folder / name).is_file()]
        tokenizer = functools.partial(self.tokenizer, config)
        return Tokens(self.folder.name, tokenizer, files, max_length, documents=documents)

    @property
    def is_language_model(self) -> bool:
        """Whether a pretrained model is one that Regard trains to write on."""
        return self.is_pretrained and is_own(self._described_in())

    def build(self, config: ModelConfig) -> nn.Module:
        """The model with weights of its beginning; of a pretrained one these are random."""
        if isinstance(config, PretrainedConfig):
            return fresh_translator(self._described_in(), config)
        if self.is_pretrained:
            # the rows of its embedding, which may be more than its tokens
            return build(config, own_sizes(self._described_in())[1])
        return build(config, len(Tokenizer.load(self.folder / TOKENIZER)))

    def copy_into(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """The files that say what a pretrained model is, and cut its texts, into the folder of a run."""
        _, base, adapters = self._merged()
        for source in (base, *(adapter.folder for adapter in adapters)):
            for name in PRETRAINED:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
        # the weights of a run are
        values = read_json(folder / CONFIG) | {"dtype": "float32"}
        values.pop("torch_dtype", None)
        (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if isinstance(tokenizer, PretrainedTokenizer):
            note_languages(tokenizer, folder)

    def module(self, config: ModelConfig, tokenizer: AnyTokenizer) -> nn.Module:
        """The model by `config`, with the weights of this one; tokens new in the vocabulary as `carried` gives them.

        Raises RegardError where the weights are of other sizes.
        """
        if isinstance(config, PretrainedConfig):
            _, base, adapters = self._merged()
            return loaded_translator(base, config, tokenizer, adapters)
        if self.is_pretrained:
            assert isinstance(config, GPTConfig)
            _, base, adapters = self._merged()
            loaded = load_own(base, dtype=torch.float32, adapters=adapters)
            assert loaded is not None, "settings() has told"
            module = loaded[0]
            if changed := _changed(module.config, config):
                raise RegardError(f"{self.folder}: {CONFIG} has another {' and '.join(changed)} than {RECIPE} says")
            own = build(config, len(module.embedding.weight))
            own.load_state_dict(module.state_dict())
            return own
        own, before = Tokenizer.load(self.folder / TOKENIZER), checkpoint.load_tensors(self.folder / WEIGHTS)
        assert isinstance(tokenizer, Tokenizer)
        module = build(config, len(tokenizer))
        if tokenizer.pieces != own.pieces:
            tables = vocabulary_tables(lambda size: build(config, size))
            before |= {
                name: carried(before[name], own, module.get_parameter(name).detach(), tokenizer)
                for name in tables
                if name in before
            }
        checkpoint.load_weights(module, before, where=self.folder / WEIGHTS)
        return module

    def _described_in(self) -> Path:
        """The folder with the sizes of a pretrained model; that of an adapter alone is its base's."""
        return self.folder if (self.folder / CONFIG).is_file() else self._merged().folder

    def _merged(self) -> Found:
        """The folder of the weights of a pretrained model, and the adapters on it."""
        return find_merged(self.folder)


def with_start(tables: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The tables of a recipe whose `[model]` may name an `init`, with the settings that it has from there.

    Raises RegardError where there is no such model, and where `[model]` asks for another one.
    """
    model, data, train = (tables.get(name, {}) for name in ("model", "data", "train"))
    if not all(isinstance(table, Mapping) for table in (model, data, train)) or "init" not in model:
        return dict(tables)
    init = model["init"]
    if not isinstance(init, str) or not init.strip():
        raise RegardError(f"{where}: [model] init is {init!r}; name a run, a Hugging Face model or a GGUF file")
    start = Start.find(init)
    settings = start.settings()
    asked = {name: value for name, value in model.items() if name not in ("init", "lora")}
    if (kind := asked.get("type", settings["type"])) != settings["type"]:
        raise RegardError(
            f"{where}: [model] type is {kind!r}, and {init} is of type {settings['type']!r}; leave the settings of "
            "[model] out, they come from init"
        )
    if not start.is_translator:
        _check_sizes(start, settings, asked, init=init, where=f"{where}: [model]")
    if "lora" in model and not start.is_pretrained:
        raise RegardError(f"{where}: [model] lora adapts pretrained models, and {init} is none; leave it out")
    data = {**data}
    if start.is_pretrained:
        if "tokenizer" in data:
            raise RegardError(f"{where}: [data] takes no tokenizer beside [model] init = {init!r}, which has its own")
        room = train.get("batch_tokens")
        most = min(WINDOW, room) if isinstance(room, int) else WINDOW
        most = min(most, settings["max_length"])
        if not start.is_translator:
            data.setdefault("context_length", most)
        elif data.get("bpe_dropout"):
            raise RegardError(f"{where}: [data] bpe_dropout is for tokenizers of Regard's, not that of {init!r}")
        else:
            if isinstance(asks := model.get("max_length"), int) and asks > settings["max_length"]:
                raise RegardError(
                    f"{where}: [model] max_length is {asks}, and {init} takes {settings['max_length']} tokens at most"
                )
            settings["max_length"] = most
    path = init if not os.path.exists(init) else str(real_path(Path(init)))
    return {**tables, "data": data, "model": {**settings, **model, "init": path}}


def _check_sizes(start: Start, settings: Mapping[str, Any], asked: Mapping[str, Any], *, init: str, where: str) -> None:
    """Raises RegardError where `[model]` asks for a model that the weights of init do not fit."""
    has, wants = (read_config(dict(each), where=where) for each in (settings, {**settings, **asked}))
    wrong = _changed(has, wants)
    # how one's own weights are used may be another, as long as they fit
    if wrong and (start.is_pretrained or _shapes(has) != _shapes(wants)):
        told = " and ".join(f"{name} {getattr(wants, name)}, not {getattr(has, name)}" for name in wrong)
        raise RegardError(f"{where} asks for another model than {init}: {told}; leave that out")


def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in build(config, LEAST_TOKENS).named_parameters()}


def check_apart(init: str, folder: Path) -> None:
    """Raises RegardError where a run would be written over what it begins from."""
    if os.path.exists(init) and folder.exists() and os.path.samefile(init, folder):
        raise RegardError(f"{folder} is what the run is to begin from; choose another --out")


def vocabulary_tables(make: Callable[[int], nn.Module]) -> list[str]:
    """The parameters of a model with a row for each token."""
    with torch.device("meta"):
        small, large = (dict(make(size).named_parameters()) for size in (LEAST_TOKENS, LEAST_TOKENS + 1))
    return [name for name, parameter in small.items() if parameter.shape != large[name].shape]


def carried(before: Tensor, old: Tokenizer, fresh: Tensor, new: Tokenizer) -> Tensor:
    """A table with a row for each token of another vocabulary: the row that the token has in the old one.

    A new token has the mean of the rows of the old tokens that spell it (Gee et al. 2022, "Fast vocabulary transfer
    for language model compression"), and its row of `fresh` where there are none.
    """
    table = fresh.clone()
    for id, sources in enumerate(_spelt_by(old, new)):
        if sources:
            table[id] = before[sources].mean(dim=0)
    return table


def _spelt_by(old: Tokenizer, new: Tokenizer) -> Iterator[list[int]]:
    """The old tokens of which each new one is the whole, or is put together."""
    known = {piece: id for id, piece in enumerate(old.pieces) if piece}
    for id, piece in enumerate(new.pieces):
        if not piece:
            # special tokens have the same ids everywhere
            yield [id]
        elif piece in known:
            yield [known[piece]]
        else:
            yield _spelling(piece, old)


def _spelling(piece: bytes, old: Tokenizer) -> list[int]:
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return []
    ids = old.encode(text)
    spelt = b"".join(old.pieces[id] for id in ids)
    return ids if spelt.removeprefix(old.leading) == piece.removeprefix(old.leading) else []


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as TOML has them, which knows no None."""
    return {
        name: _given(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if value is not None
    }


def _changed(found: ModelConfig, asked: ModelConfig) -> list[str]:
    """The settings in which two models differ, but for those that say how one is trained."""
    has, wants = asdict(found), asdict(asked)
    return [name for name in wants if name not in TRAINED_BY and has[name] != wants[name]]
