"""A run is the folder that training leaves: recipe, tokenizer, weights, metrics and a model card."""

import collections
import functools
import json
import logging
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regard import __version__
from regard.config import read_toml
from regard.data.conversations import Conversations
from regard.data.corpora import Corpus
from regard.data.corpus import Watcher, unwatched
from regard.data.dropout import BPEDropout
from regard.data.mixture import Mixture, Part
from regard.data.packed import PackedText
from regard.data.prepare import TokenizedCorpus
from regard.data.text import Text
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.files import new_file, read_whole, real_path
from regard.kernels.compiler import check_compiler
from regard.kernels.memory import memory_for
from regard.kernels.threads import check_threads, fastest_threads, most_threads, threads
from regard.models import check_memory
from regard.models.gpt import GPT
from regard.models.pretrained.folder import CONFIG
from regard.models.pretrained.gpt_weights import weights
from regard.models.pretrained.seq2seq import PretrainedTranslator
from regard.models.pretrained.translators import tensors_of
from regard.training import checkpoint
from regard.training.card import model_card
from regard.training.data_files import (
    from_within,
    moved_along,
    with_data_at_hand,
    with_files,
)
from regard.training.data_parallel import helpers, num_processes
from regard.training.folder import (
    CARD,
    FACTS,
    LARGEST_FACTS,
    RECIPE,
    TOKENIZER,
    WEIGHTS,
    claimed,
    has_weights,
    remove_state,
)
from regard.training.init import Start, check_apart
from regard.training.look import Look, log_warnings, look_at
from regard.training.loop import Data, Outcome, Progress, check_dtype, fit, rehearsal
from regard.training.lora import add_adapters, save_adapters
from regard.training.loss import dev_loss
from regard.training.optimizers import trained
from regard.training.recipe import Recipe, TrainConfig, read_recipe
from regard.training.reports import check_reports
from regard.training.resume import check_budget, check_same_data, goes_on_as_it_was, resumed, steps_per_epoch
from regard.training.tokens import Tokens
from regard.training.translators import AnyTokenizer, model_of
from regard.training.vocabulary import train_tokenizer

# facts that are known when a run begins: the ranges of its splits, sums over what it is trained and validated on,
# on how many threads, whether its number of steps tells how to have it again, and what the look at its data found
BEGAN = ("hashes", "token_sums", "threads", "repeats", "look", "init", "init_dev_loss")

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


def train_run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    preparing: Watcher = unwatched,
    look: Callable[[Look], None] = log_warnings,
) -> Run:
    """Train by `recipe` into `folder`, which must not exist yet unless `resume` is set.

    Before the first step `preparing` hears what is done with the text, and to how many pairs or passages. `look` is
    given what was seen in the data before a new run begins; the facts of the run keep it.
    A run goes on with the settings and the data that it began with; its budget may be another, device and threads, and
    the names of its files. One that was ended before it saved a state begins anew, with `resume` and without.
    Raises RegardError for data, settings or a folder that cannot be used, and where another process trains in it; a
    folder made for nothing is removed.
    """
    device = find_device(recipe.train.device)
    check_dtype(recipe.train.dtype, device)
    check_threads(recipe.train.threads)
    check_reports(recipe.train.reports)
    if recipe.train.compile:
        check_compiler("train.compile", "set it to false")
    start = None
    if recipe.init is not None:
        check_apart(recipe.init, folder)
        start = Start.find(recipe.init)
    with claimed(folder, resume=resume) as goes_on:
        before = Run.open(folder) if goes_on else None
        recipe = resumed(recipe, before) if before else with_data_at_hand(recipe, folder)
        began = {name: before.facts[name] for name in BEGAN if name in before.facts} if before else {}
        # one that cannot serve is refused before the text is read
        known = start.tokenizer(recipe.model) if start is not None and not before else None
        given = None if before else known if recipe.data.tokenizer is None else recipe.tokenizer()
        corpus = Run(folder, recipe, facts=began).corpus(progress=preparing)
        hashes = {split: list(ends) for split, ends in corpus.hashes.items()}
        now = {"regard": __version__, "folder": str(real_path(folder)), "hashes": hashes}
        run = Run(folder, recipe, facts=began | now)
        for split in corpus.links:
            # read for their errors, before and not after the training
            collections.deque(run.pair_corpus().gold(split), maxlen=0)
        kept = replace(recipe, data=with_files(recipe.data, lambda path: from_within(folder, path)))
        if not before:
            if start is not None and start.is_pretrained:
                assert known is not None
                start.copy_into(folder, known)
            else:
                assert isinstance(known, Tokenizer | None)
                assert isinstance(given, Tokenizer | None)
                (given or train_tokenizer(recipe, corpus, preparing, known=known)).save(folder / TOKENIZER)
            _write(folder / RECIPE, kept.to_toml())
        train, dev = run._tokens.mixture(corpus, preparing), run.tokenized("dev", progress=preparing)
        sums = {split: run.token_sum(split) for split in ("train", "dev")}
        run = replace(run, facts=run.facts | {"token_sums": sums})
        if isinstance(train, TokenizedCorpus | Mixture) and recipe.data.bpe_dropout:
            tokenizer = run.tokenizer()
            assert isinstance(tokenizer, Tokenizer)
            dropout = BPEDropout(tokenizer, recipe.data.bpe_dropout, seed=recipe.train.seed)
            train = train.with_dropout(dropout, max_length=recipe.model.max_length)
        if before:
            check_same_data(run, began)
            check_budget(run, train)
        else:
            per_epoch = steps_per_epoch(train, recipe.train)
            parts = train.corpora if isinstance(train, Mixture) else [train]
            seen = look_at(recipe, corpus, run.tokenizer(), parts, dev, steps_per_epoch=per_epoch, progress=preparing)
            look(seen)
            run = replace(run, facts=run.facts | {"look": asdict(seen)})
        if device.type == "cpu":
            check_memory(run.build)
        torch.manual_seed(recipe.train.seed)
        # a run that goes on has its own weights, but for those that it does not train
        if start is None or (before and recipe.lora is None and not start.is_translator):
            module = run.build().to(device)
        else:
            module = start.module(recipe.model, run.tokenizer()).to(device)
        if start is not None and not before:
            loss = dev_loss(module, dev, recipe.train, device)
            run = replace(run, facts=run.facts | {"init": recipe.init, "init_dev_loss": loss})
        if start is not None and recipe.lora is not None:
            add_adapters(model_of(module), recipe.lora)
        # a run may have come from a larger machine
        was = min(began.get("threads", 0), most_threads())
        count = recipe.train.threads or was or _fastest(module, train, recipe.train, device)
        repeats = before is None or goes_on_as_it_was(before, recipe, count)
        run = replace(run, facts=run.facts | {"threads": count, "repeats": repeats})
        if not before:
            _write_facts(run)
        processes = num_processes(recipe.train, device, count)
        with (
            threads(count),
            helpers(module, folder, count=processes - 1, num_threads=count // processes) as others,
            memory_for("a step of this training", "lower train.batch_tokens or the sizes in [model]"),
        ):
            outcome = fit(
                module,
                train,
                dev,
                recipe.train,
                folder=folder,
                device=device,
                report=report,
                resume=goes_on,
                helpers=others,
            )
        facts = run.facts | _facts(corpus, train, module, outcome, device)
        run = replace(run, facts=facts)
        _save(run, module)
        # a resumed run may have had another budget
        _write(folder / RECIPE, kept.to_toml())
        _write_facts(run)
        _write(folder / CARD, model_card(kept, facts))
        if outcome.status != "interrupted":
            # what was kept to go on from has served
            remove_state(folder)
        return run


def _save(run: Run, module: nn.Module) -> None:
    if run.recipe.lora is not None:
        assert run.recipe.init is not None
        save_adapters(model_of(module), run.recipe.lora, run.path, base=run.recipe.init)
    elif isinstance(module, PretrainedTranslator):
        checkpoint.save_tensors(tensors_of(module), run.path / WEIGHTS)
    elif run.is_pretrained:
        assert isinstance(module, GPT)
        checkpoint.save_tensors(weights(module), run.path / WEIGHTS)
    else:
        checkpoint.save_weights(module, run.path / WEIGHTS)


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises RegardError if CUDA is asked for and absent."""
    if name not in ("auto", "cpu", "cuda"):
        raise RegardError(f"--device must be auto, cpu or cuda, not {name!r}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise RegardError("no CUDA device is found; use --device cpu, or auto")
    return torch.device(name)


def _facts(
    corpus: Corpus | Text,
    train: Data,
    module: nn.Module,
    outcome: Outcome,
    device: torch.device,
) -> dict[str, Any]:
    return {
        **asdict(outcome),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in trained(module).values()),
        **train.sizes,
        "corpus": corpus.name,
        "licence": corpus.licence,
        "attribution": corpus.attribution,
        "device": str(device),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_whole(path, LARGEST_FACTS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RegardError(f"{path}: cannot be understood: {error}") from None
    if not isinstance(facts, dict):
        raise RegardError(f"{path}: cannot be understood: it must hold an object; put it back")
    if (version := facts.get("regard")) != __version__:
        _tell_version(path.parent, "an older Regard" if version is None else f"Regard {version}")
    return facts


@functools.cache
def _tell_version(folder: Path, maker: str) -> None:
    logger.info("%s: made by %s; this is Regard %s", folder, maker, __version__)


def _write_facts(run: Run) -> None:
    _write(run.path / FACTS, json.dumps(run.facts, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _fastest(module: nn.Module, train: Data, config: TrainConfig, device: torch.device) -> int:
    """On how many threads, of all processes together, a step is done first."""
    most = torch.get_num_threads()
    if device.type != "cpu":
        return most
    processes = num_processes(config, device, most)
    return processes * fastest_threads(rehearsal(module, train, config, processes), most // processes)
