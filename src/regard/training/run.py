"""A run is the folder that training leaves: recipe, tokenizer, weights, metrics and a model card."""

import functools
import json
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from regard import __version__
from regard.config import read_toml
from regard.data.conversations import Conversations
from regard.data.corpora import Corpus
from regard.data.corpus import Watcher, unwatched
from regard.data.dropout import BPEDropout
from regard.data.mixture import Mixture, Part
from regard.data.packed import PackedText
from regard.data.pair_tokenizer import PairTokenizer
from regard.data.prepare import TokenizedCorpus
from regard.data.text import Text
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.files import read_whole
from regard.models.pretrained.folder import CONFIG
from regard.training import checkpoint
from regard.training.data_files import moved_along, with_files
from regard.training.folder import FACTS, GUIDE, LARGEST_FACTS, RECIPE, RUN_FORMAT, WEIGHTS, has_weights
from regard.training.guided import with_guide
from regard.training.init import Start
from regard.training.lora import add_adapters
from regard.training.recipe import Recipe, read_recipe
from regard.training.tokens import Tokens
from regard.training.translators import AnyTokenizer, model_of

logger = logging.getLogger("regard")


@dataclass(frozen=True)
class Run:
    """A run on disk. `facts` is what training found out: splits, steps, seconds, sizes, losses, the machine."""

    path: Path
    recipe: Recipe
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """Raises RegardError if there is no such folder, or it is no run."""
        folder = Path(path)
        if not folder.is_dir():
            raise RegardError(f"{folder}: there is no such run; `regard train RECIPE --out {folder}` makes one")
        if not (folder / RECIPE).is_file():
            raise RegardError(f"{folder}: not a run, it holds no {RECIPE}; name a folder that `regard train` made")
        facts = _read_facts(folder / FACTS)
        tables = read_toml(folder / RECIPE)
        if isinstance(data := tables.get("data"), dict):
            # a run of before there was this setting took texts as they were
            data.setdefault("normalise", "none")
        recipe = read_recipe(tables, where=str(folder / RECIPE))
        recipe = replace(recipe, data=with_files(recipe.data, lambda path: moved_along(path, folder, facts)))
        return cls(path=folder, recipe=recipe, facts=facts)

    @property
    def is_pretrained(self) -> bool:
        """Whether it began from a pretrained model, so that its folder is one of Hugging Face too."""
        return (self.path / CONFIG).is_file()

    def tokenizer(self) -> AnyTokenizer:
        return self._start.tokenizer(self.recipe.model)

    def build(self) -> nn.Module:
        """A fresh model of the run's sizes, with adapters if it has any."""
        module = self._start.build(self.recipe.model)
        if self.recipe.lora is not None:
            add_adapters(model_of(module), self.recipe.lora)
        return module

    def module(self) -> nn.Module:
        """The trained model, in evaluation mode. Raises RegardError if the weights are missing or do not fit."""
        if not has_weights(self.path):
            raise RegardError(f"{self.path}: its training has not ended, there are no weights; go on with --resume")
        if self.is_pretrained:
            return self._start.module(self.recipe.model, self.tokenizer()).eval()
        module = self.build()
        checkpoint.load_weights(module, checkpoint.load_tensors(self.path / WEIGHTS), where=self.path / WEIGHTS)
        return module.eval()

    def corpus(self, *, progress: Watcher = unwatched) -> Corpus | Text:
        """What the run is trained on, in the splits that it began with: lines added since move no pair to another.

        Raises RegardError if the data are gone, or the record of the splits is broken.
        """
        # a run of before there was this record holds out by the file as it is
        return self.recipe.corpus(hashes=self._hashes() if "hashes" in self.facts else None, progress=progress)

    def pair_corpus(self) -> Corpus:
        """`corpus` of a translator."""
        corpus = self.corpus()
        assert isinstance(corpus, Corpus)
        return corpus

    def _hashes(self) -> dict[str, tuple[int, int]]:
        try:
            return {split: (int(first), int(last)) for split, (first, last) in self.facts["hashes"].items()}
        except (AttributeError, TypeError, ValueError):
            raise RegardError(f"{self.path / FACTS}: 'hashes' must give each split two numbers; put it back") from None

    def tokenized(self, split: str, *, progress: Watcher = unwatched) -> Part:
        """A split as token ids, from the cache if the same text was tokenized the same way before.

        Raises RegardError if there is no such split, or a file of it is gone.
        """
        return self._tokens.split(self.corpus(), split, progress)

    def text(self, split: str) -> PackedText | Conversations:
        """`tokenized` of a language model."""
        text = self.tokenized(split)
        assert not isinstance(text, TokenizedCorpus)
        return text

    def text_of(self, files: Sequence[str | Path]) -> AbstractContextManager[PackedText | Conversations]:
        """The text of any files, as this run tokenizes it."""
        return self._tokens.of_files(files, self.recipe.data.form)

    def splits(self, corpus: Corpus | Text, *, progress: Watcher = unwatched) -> tuple[Part | Mixture, Part]:
        """What a training learns from, and its dev data, as token ids."""
        train, dev = self._tokens.mixture(corpus, progress), self.tokenized("dev", progress=progress)
        if isinstance(train, TokenizedCorpus | Mixture) and self.recipe.data.bpe_dropout:
            tokenizer = self.tokenizer()
            assert isinstance(tokenizer, Tokenizer)
            dropout = BPEDropout(tokenizer, self.recipe.data.bpe_dropout, seed=self.recipe.train.seed)
            train = train.with_dropout(dropout, max_length=self.recipe.model.max_length)
        if isinstance(train, TokenizedCorpus | Mixture) and self.recipe.train.guided_alignment:
            tokenizer = self.tokenizer()
            assert isinstance(tokenizer, PairTokenizer)
            train = with_guide(train, tokenizer, self.path / GUIDE, progress)
        return train, dev

    def token_sum(self, split: str) -> str:
        """SHA-256 over the token ids of a split that is tokenized."""
        return self._tokens.sum(self.corpus(), split)

    @property
    def _tokens(self) -> Tokens:
        recipe = self.recipe
        return self._start.tokens(recipe.max_length, documents=recipe.data.documents, config=recipe.model)

    @property
    def _start(self) -> Start:
        return Start(self.path, is_pretrained=self.is_pretrained)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_whole(path, LARGEST_FACTS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RegardError(f"{path}: cannot be understood: {error}") from None
    if not isinstance(facts, dict):
        raise RegardError(f"{path}: cannot be understood: it must hold an object; put it back")
    # runs of 0.1.0 do not name their format
    if (format := facts.get("format", RUN_FORMAT)) != RUN_FORMAT:
        raise RegardError(
            f"{path}: the run's format is {format!r}, this version of Regard opens {RUN_FORMAT}; upgrade Regard"
        )
    if (version := facts.get("regard")) != __version__:
        _tell_version(path.parent, "an older Regard" if version is None else f"Regard {version}")
    return facts


@functools.cache
def _tell_version(folder: Path, maker: str) -> None:
    logger.info("%s: made by %s; this is Regard %s", folder, maker, __version__)
