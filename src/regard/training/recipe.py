"""A recipe says what a run is: its data, its model, its training. It is a TOML file."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from regard.config import from_dict, read_toml, setting, suggest, to_toml
from regard.data.corpora import Corpus, get_corpus
from regard.data.corpus import Watcher, unwatched
from regard.data.normal_form import FORMS
from regard.data.parts import check_data, map_paths, paths_in
from regard.data.text import Text
from regard.data.tokenizer import TOKENIZERS, Tokenizer
from regard.errors import RegardError
from regard.models import MODELS, ModelConfig, read_config, translates, type_name
from regard.models.transformer import TransformerConfig
from regard.training.init import with_start
from regard.training.lora import LoRAConfig
from regard.training.train_config import BUDGETS, TrainConfig

# the tokenizer of what a run begins from, with more tokens
EXTENDED = "extend"


@dataclass(frozen=True)
class DataConfig:
    """A corpus by name, or files of one's own as `regard.data.parts` reads them, or `-`; and its gold links."""

    corpus: str | None = setting(None)
    train: str | list | dict | None = setting(None)
    dev: str | list | dict | None = setting(None)
    test: str | list | dict | None = setting(None)
    source_key: str | int | None = setting(None, least=1)
    target_key: str | int | None = setting(None, least=1)
    text_key: str | int | None = setting(None, least=1)
    dev_links: str | None = setting(None)
    test_links: str | None = setting(None)
    tokenizer: str | None = setting(None)
    vocab_size: int = setting(4000, least=5, most=1_000_000)
    bpe_dropout: float = setting(0.0, least=0, below=1)
    normalise: str = setting("NFC", choices=(*FORMS, "none"))
    strip_accents: bool = setting(False)
    documents: bool = setting(False)
    context_length: int | None = setting(None, least=2)

    def __post_init__(self) -> None:
        if (self.corpus is None) == (self.train is None):
            raise RegardError("needs either corpus (a name) or train (your own file), one of them")
        if self.train is None and (self.dev or self.test):
            raise RegardError("takes dev and test only beside train: a named corpus has its own")
        for split, links in self.links.items():
            if getattr(self, split) is None:
                raise RegardError(
                    f"takes {split}_links only beside {split}: line n of {links} is of line n of a {split} file"
                )
        for name in ("train", "dev", "test"):
            if (data := getattr(self, name)) is not None:
                check_data(data, name)
        self._check_tokenizer()
        if "-" in (self.dev, self.test, *self.links.values()):
            raise RegardError("takes standard input (-) for train alone; give dev and test as files, or leave them out")

    def _check_tokenizer(self) -> None:
        if self.tokenizer_file is None:
            if self.tokenizer not in (*TOKENIZERS, EXTENDED, None):
                raise RegardError(
                    f"tokenizer is {self.tokenizer!r}, no path of a tokenizer.json or of a SentencePiece .model, and "
                    f"no kind{suggest(str(self.tokenizer), TOKENIZERS)}"
                )
        elif self.strip_accents:
            raise RegardError("takes strip_accents only where a tokenizer is trained: one from a file is as it is")
        if self.bpe_dropout and self.tokenizer in ("word", "character"):
            raise RegardError(f"takes bpe_dropout only with a bpe tokenizer, not {self.tokenizer!r}")

    @property
    def tokenizer_file(self) -> str | None:
        """The file of a tokenizer that is taken over; None where one is trained."""
        if self.tokenizer is None:
            return None
        is_file = self.tokenizer not in TOKENIZERS and Path(self.tokenizer).suffix in (".json", ".model")
        return self.tokenizer if is_file or os.sep in self.tokenizer else None

    @property
    def form(self) -> str | None:
        """The Unicode normal form in which the model reads and writes."""
        return None if self.normalise == "none" else self.normalise

    @property
    def links(self) -> dict[str, str]:
        """The files of gold links, by the split whose pairs they are of."""
        given = {"dev": self.dev_links, "test": self.test_links}
        return {split: path for split, path in given.items() if path is not None}


# a type of model that is not made of settings
PRETRAINED = "pretrained"
SPLITS = ("train", "dev", "test")
# settings that name files
FILES = (*SPLITS, "dev_links", "test_links")
# settings of which one takes the place of the others
ALTERNATIVES = {"train": BUDGETS, "data": ("corpus", "train")}


@dataclass(frozen=True)
class Recipe:
    """`init` names what the run begins from, a run or a pretrained model; None is noise. With `lora` only adapters of
    its weights are trained.
    """

    name: str
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    init: str | None = None
    lora: LoRAConfig | None = None

    def to_toml(self) -> str:
        sections = {"name": self.name, "data": self.data, "model": self.model, "train": self.train}
        # neither is a setting of the model's class, which its type picks
        lora = None if self.lora is None else asdict(self.lora)
        first = {"type": type_name(self.model), "init": self.init, "lora": lora}
        first = {name: value for name, value in first.items() if value is not None}
        return to_toml(sections).replace("[model]\n", "[model]\n" + to_toml(first))

    @property
    def max_length(self) -> int:
        """Tokens of a sentence at most, or of a window of text."""
        return self.data.context_length or self.model.max_length

    @property
    def translates(self) -> bool:
        """Whether it makes a translator, of sentence pairs; else a language model, of plain text."""
        return translates(self.model)

    def corpus(
        self,
        *,
        hashes: Mapping[str, tuple[int, int]] | None = None,
        progress: Watcher = unwatched,
    ) -> Corpus | Text:
        """The data, read anew; `hashes` and `progress` as in `Corpus.from_files`.

        Raises RegardError where they cannot be had, and where the model learns of others.
        """
        if self.data.corpus is not None:
            corpus = get_corpus(self.data.corpus)
            if isinstance(corpus, Corpus) != self.translates:
                names = ("sentence pairs", "plain text")
                wanted, other = names if self.translates else reversed(names)
                raise RegardError(
                    f"a model of type {type_name(self.model)!r} learns of {wanted}, and {corpus.name} is {other}; "
                    "`regard corpus list` tells which is which"
                )
            return replace(corpus, form=self.data.form)
        assert self.data.train is not None
        data = self.data
        files: dict[str, Any] = {"train": data.train, "dev": data.dev, "test": data.test}
        if not self.translates:
            return Text.from_files(**files, hashes=hashes, text_key=data.text_key, form=data.form, progress=progress)
        return Corpus.from_files(
            **files,
            links=data.links,
            hashes=hashes,
            source_key=data.source_key,
            target_key=data.target_key,
            form=data.form,
            progress=progress,
        )

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that is taken over from a file; None where one is learnt from the text.

        Raises RegardError for a file that is no tokenizer, or one that the model cannot use.
        """
        path = self.data.tokenizer_file
        if path is None:
            return None
        tokenizer = Tokenizer.take_over(path, form=self.data.form)
        if tokenizer.kind == "word" and not self.translates:
            raise RegardError(f"{path}: a tokenizer of words loses some of the text, which a language model must write")
        if tokenizer.kind != "bpe" and self.data.bpe_dropout:
            raise RegardError(
                f"{path}: a tokenizer of kind {tokenizer.kind} has no merges, which bpe_dropout leaves out; set "
                "data.bpe_dropout = 0, or name a BPE tokenizer"
            )
        return tokenizer


def shipped_recipes() -> list[str]:
    return sorted(file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml"))


def load_recipe(recipe: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a file or by the name of a shipped one, with `changes` such as {"train.minutes": 1}.

    Setting a budget takes the place of the recipe's own, and `data.train` that of its corpus. Paths in a file are
    relative to its folder, or, where nothing is there, to the current one; those in `changes` to the current one.
    Raises RegardError that names file, section and setting.
    """
    path = Path(recipe)
    if path.suffix == ".toml" or path.is_file():
        where, name, tables = str(path), path.stem, _beside(read_toml(path), path)
    elif str(recipe) in shipped_recipes():
        where, name = str(recipe), str(recipe)
        with resources.as_file(_shipped() / f"{recipe}.toml") as file:
            tables = read_toml(file)
    else:
        near = suggest(str(recipe), shipped_recipes())
        raise RegardError(f"there is no recipe {str(recipe)!r}, neither a file nor a shipped one{near}")
    _change(tables, changes or {})
    return read_recipe(with_start({"name": name, **tables}, where=where), where=where)


def _beside(tables: dict[str, Any], recipe: Path) -> dict[str, Any]:
    """The tables of a recipe file, with the paths in it as seen from the current folder."""

    def seen(path: Any) -> Any:
        if not isinstance(path, str) or path == "-":
            return path
        beside = str(recipe.parent / path)
        return path if os.path.exists(path) and not os.path.exists(beside) else beside

    data = tables.get("data")
    if isinstance(data, dict):
        files = {name: map_paths(data[name], seen) for name in FILES if isinstance(data.get(name), str | list | dict)}
        tokenizer = data.get("tokenizer")
        if isinstance(tokenizer, str) and tokenizer not in TOKENIZERS and os.path.exists(seen(tokenizer)):
            files["tokenizer"] = seen(tokenizer)
        tables["data"] = data | files
    model = tables.get("model")
    if isinstance(model, dict) and isinstance(init := model.get("init"), str) and os.path.exists(seen(init)):
        tables["model"] = model | {"init": seen(init)}
    return tables


def read_recipe(tables: Mapping[str, Any], *, where: str) -> Recipe:
    for key in tables:
        if key not in ("name", "data", "model", "train"):
            raise RegardError(f"{where} has no section [{key}]{suggest(key, ('data', 'model', 'train'))}")
    sections = {section: tables.get(section, {}) for section in ("data", "model", "train")}
    for section, table in sections.items():
        if not isinstance(table, Mapping):
            raise RegardError(f"{where}: [{section}] must be a table of settings, not {table!r}")
    # TOML gives lists, which a frozen setting cannot be
    train = {name: tuple(value) if isinstance(value, list) else value for name, value in sections["train"].items()}
    data, model = _plain(sections["data"]), dict(sections["model"])
    init, lora = model.pop("init", None), model.pop("lora", None)
    if lora is not None and init is None:
        raise RegardError(f"{where}: [model] lora adapts a model that exists; name it by init, or leave lora out")
    if init is None:
        data.setdefault("tokenizer", "bpe")
    data = from_dict(DataConfig, data, where=f"{where}: [data]")
    if init is None and "type" not in model:
        types = ", ".join(name for name in MODELS if name != PRETRAINED)
        raise RegardError(f"{where}: [model] needs a type, {types}, or an init, such as --init RUN")
    if init is None and model.get("type") == PRETRAINED:
        raise RegardError(f"{where}: [model] type 'pretrained' begins from a model; name its folder as init, or --init")
    recipe = Recipe(
        name=str(tables.get("name", "run")),
        init=init,
        lora=None if lora is None else from_dict(LoRAConfig, lora, where=f"{where}: [model] lora"),
        data=data,
        model=read_config(model, where=f"{where}: [model]"),
        train=from_dict(TrainConfig, train, where=f"{where}: [train]"),
    )
    _check_data(recipe, where=f"{where}: [data]")
    _check_guided(recipe, where=where)
    for name in FILES:
        paths = getattr(recipe.data, name)
        if paths is not None and any("\0" in str(path) for path in paths_in(paths)):
            raise RegardError(f"{where}: [data] {name} holds NUL, which is in the name of no file")
    if (context := recipe.data.context_length) is not None and context > recipe.model.max_length:
        raise RegardError(
            f"{where}: [data] context_length is {context}, and the model takes {recipe.model.max_length} tokens at most"
        )
    if recipe.train.batch_tokens < recipe.max_length:
        one = "sentence" if recipe.translates else "window"
        which = "model.max_length" if recipe.data.context_length is None else "data.context_length"
        raise RegardError(
            f"{where}: [train] batch_tokens is {recipe.train.batch_tokens}, which cannot hold one {one} of "
            f"{which} {recipe.max_length}; raise the one or lower the other"
        )
    return recipe


def _check_guided(recipe: Recipe, *, where: str) -> None:
    """Raises RegardError where a head is to be guided and there is none, or no links between its tokens."""
    if not recipe.train.guided_alignment:
        return
    if not isinstance(recipe.model, TransformerConfig):
        raise RegardError(
            f"{where}: [train] guided_alignment guides a cross head of a model of type 'transformer', not "
            f"{type_name(recipe.model)!r}; leave it out"
        )
    if recipe.data.bpe_dropout:
        raise RegardError(
            f"{where}: [train] guided_alignment links the tokens of a text, and [data] bpe_dropout makes others in "
            "every epoch; leave one of them out"
        )


def _check_data(recipe: Recipe, *, where: str) -> None:
    """Raises RegardError for settings of the data that the model has no use for."""
    data = recipe.data
    if data.tokenizer == EXTENDED and recipe.init is None:
        raise RegardError(f"{where} tokenizer = {EXTENDED!r} is for a run that begins from another one: [model] init")
    if recipe.translates:
        if data.context_length is not None:
            raise RegardError(f"{where} context_length is of plain text; a translator has model.max_length")
        if data.documents or data.tokenizer == "character":
            raise RegardError(
                f"{where} documents = true and tokenizer = 'character' are for plain text, not for a translator"
            )
        if data.text_key is not None:
            raise RegardError(f"{where} text_key is of plain text; a translator has source_key and target_key")
        return
    for name in ("dev_links", "test_links", "source_key", "target_key"):
        if getattr(data, name) is not None:
            raise RegardError(f"{where} {name} is of sentence pairs; a language model learns of plain text")
    if data.tokenizer == "word" or data.strip_accents:
        raise RegardError(
            f"{where} tokenizer = 'word' and strip_accents lose some of the text, which a language model must write "
            "whole; take 'bpe' or 'character'"
        )
    if data.bpe_dropout:
        raise RegardError(f"{where} bpe_dropout is of sentence pairs; a language model reads windows of one text")
    if data.train == "-":
        raise RegardError(f"{where} train is '-', but plain text is read several times; save it as a file")


def _plain(value: Any) -> Any:
    """A setting as TOML gives it: lists where Python has tuples, and paths as texts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _change(tables: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if not name:
            raise RegardError(f"--set {key}: name the section too, as in train.minutes=1")
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise RegardError(f"--set {key}: {section} is no section; settings are in data, model and train")
        *within, name = name.split(".")
        for part in within:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise RegardError(f"--set {key}: {part} is no table of settings")
        group = ALTERNATIVES.get(section, ())
        if name in group:
            for other in group:
                if f"{section}.{other}" in changes and other != name:
                    raise RegardError(f"--set {key} and --set {section}.{other} exclude each other; give one")
                table.pop(other, None)
        table[name] = value


def _shipped() -> Any:
    return resources.files("regard") / "recipes"
