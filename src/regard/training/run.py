"""A run is the folder that training leaves: recipe, tokenizer, weights, metrics and a model card."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regard.config import read_toml
from regard.data.corpora import Corpus, cache_dir
from regard.data.formats import write_tsv
from regard.data.prepare import TokenizedCorpus, open_prepared, prepare
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.files import new_file
from regard.models import build
from regard.training import checkpoint
from regard.training.card import model_card
from regard.training.loop import Outcome, Progress, check_dtype, fit
from regard.training.recipe import BUDGETS, Recipe, read_recipe

RECIPE, TOKENIZER, WEIGHTS, FACTS, CARD = "recipe.toml", "tokenizer.json", "model.safetensors", "run.json", "README.md"
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Run:
    """A run on disk. `facts` is what training found out: steps, seconds, sizes, losses, the machine."""

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
        recipe = read_recipe(read_toml(folder / RECIPE), where=str(folder / RECIPE))
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            facts = {}
        except (OSError, ValueError) as error:
            raise RegardError(f"{folder / FACTS}: cannot be understood: {error}") from None
        return cls(path=folder, recipe=recipe, facts=facts)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path / TOKENIZER)

    def module(self) -> nn.Module:
        """The trained model, in evaluation mode. Raises RegardError if the weights are missing or do not fit."""
        if not (self.path / WEIGHTS).is_file():
            raise RegardError(f"{self.path}: its training has not ended, there are no weights; go on with --resume")
        module = build(self.recipe.model, len(self.tokenizer()))
        checkpoint.load_weights(module, checkpoint.load_tensors(self.path / WEIGHTS), where=self.path / WEIGHTS)
        return module.eval()

    def tokenized(self, corpus: Corpus, split: str) -> TokenizedCorpus:
        """A split as token ids, from the cache if the same text was tokenized the same way before.

        Raises RegardError if there is no such split, or a file of it is gone.
        """
        pairs = corpus.pairs(split)
        try:
            key = hashlib.sha256((self.path / TOKENIZER).read_bytes())
            files = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in corpus.splits[split]]
        except OSError as error:
            raise RegardError(f"{error.filename}: cannot be read: {error.strerror}; put it back") from None
        key.update(repr((files, corpus.hashes.get(split), self.recipe.model.max_length)).encode())
        folder = cache_dir() / "tokens" / key.hexdigest()[:32]
        max_length = self.recipe.model.max_length
        if folder.is_dir():
            return open_prepared(folder, max_length=max_length)
        return prepare(pairs, self.tokenizer(), folder, max_length=max_length)


def train_run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Train by `recipe` into `folder`, which must not exist yet unless `resume` is set.

    Raises RegardError for data, settings or a folder that cannot be used; a folder made for nothing is removed.
    """
    device = find_device(recipe.train.device)
    check_dtype(recipe.train.dtype, device)
    if resume:
        recipe = _resumed(recipe, Run.open(folder).recipe, folder)
    elif folder.exists():
        raise RegardError(f"{folder} exists already; choose another --out, or go on with it by --resume")
    with _threads(recipe.train.threads) as threads, _made(folder, resume=resume):
        recipe, corpus = _with_data_at_hand(recipe, folder)
        run = Run(folder, recipe, facts={})
        if not resume:
            _train_tokenizer(recipe, corpus).save(folder / TOKENIZER)
            (folder / RECIPE).write_text(recipe.to_toml(), encoding="utf-8")
        train, dev = run.tokenized(corpus, "train"), run.tokenized(corpus, "dev")
        torch.manual_seed(recipe.train.seed)
        module = build(recipe.model, len(run.tokenizer())).to(device)
        outcome = fit(module, train, dev, recipe.train, folder=folder, device=device, report=report, resume=resume)
        facts = _facts(corpus, train, module, outcome, device, threads)
        run = replace(run, facts=facts)
        checkpoint.save_weights(module, folder / WEIGHTS)
        # a resumed run may have had another budget
        _write(folder / RECIPE, recipe.to_toml())
        _write(folder / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        _write(folder / CARD, model_card(recipe, facts))
        if outcome.status != "interrupted":
            # what was kept to go on from has served
            shutil.rmtree(folder / "resume", ignore_errors=True)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return run


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises RegardError if CUDA is asked for and absent."""
    if name not in ("auto", "cpu", "cuda"):
        raise RegardError(f"--device must be auto, cpu or cuda, not {name!r}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RegardError("no CUDA device is found; use --device cpu, or auto")
    return torch.device(name)


def _train_tokenizer(recipe: Recipe, corpus: Corpus) -> Tokenizer:
    lines = (side for pair in corpus.pairs("train") for side in pair)
    return Tokenizer.train(lines, kind=recipe.data.tokenizer, vocab_size=recipe.data.vocab_size)  # pyright: ignore[reportArgumentType]


def _resumed(recipe: Recipe, before: Recipe, folder: Path) -> Recipe:
    """The recipe that a run began with; only the budget may be another now, and where the data lie."""
    ours = {**asdict(before.model), **asdict(before.train), "tokenizer": before.data.tokenizer}
    theirs = {**asdict(recipe.model), **asdict(recipe.train), "tokenizer": recipe.data.tokenizer}
    for name in ours:
        if name not in BUDGETS and ours[name] != theirs.get(name):
            raise RegardError(
                f"{folder} began with {name} = {ours[name]!r}, not {theirs.get(name)!r}; "
                "a run goes on as it began, or begins anew under another --out"
            )
    return replace(before, train=recipe.train)


def _with_data_at_hand(recipe: Recipe, folder: Path) -> tuple[Recipe, Corpus]:
    """The corpus, and a recipe that finds it from any folder; what came by standard input is kept in the run."""
    data = recipe.data
    if data.train == "-":
        corpus = recipe.corpus()
        (folder / "data").mkdir()
        for split in SPLITS:
            write_tsv(folder / "data" / f"{split}.tsv", corpus.pairs(split))
        files = {split: str((folder / "data" / f"{split}.tsv").resolve()) for split in SPLITS}
    else:
        files = {split: _absolute(getattr(data, split)) for split in SPLITS}
    recipe = replace(recipe, data=replace(data, **files))
    return recipe, recipe.corpus()


def _absolute(paths: str | list | None) -> str | list | None:
    if isinstance(paths, list):
        return [str(Path(path).resolve()) for path in paths]
    return None if paths is None else str(Path(paths).resolve())


def _facts(
    corpus: Corpus,
    train: TokenizedCorpus,
    module: nn.Module,
    outcome: Outcome,
    device: torch.device,
    threads: int,
) -> dict[str, Any]:
    return {
        **asdict(outcome),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "pairs": len(train),
        "pairs_skipped": train.skipped,
        "corpus": corpus.name,
        "licence": corpus.licence,
        "attribution": corpus.attribution,
        "device": str(device),
        "threads": threads,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def _write(path: Path, text: str) -> None:
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def _threads(count: int) -> Iterator[int]:
    """Train on this many threads (0: as torch chooses), and leave the setting as it was."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _made(folder: Path, *, resume: bool) -> Iterator[None]:
    """The folder, which goes again if it was made now and nothing was trained in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegardError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from None
    try:
        yield
    except OSError as error:
        raise RegardError(f"{folder}: cannot be written: {error.strerror or error}; free the disk") from None
    finally:
        if not resume and not (folder / WEIGHTS).exists() and not (folder / "resume").exists():
            shutil.rmtree(folder, ignore_errors=True)
