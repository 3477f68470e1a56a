"""Training one model by a recipe: `train_run` in the process that leads, `follow` in the others of a training."""

import collections
import json
import platform
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regard import __version__
from regard.data.corpora import Corpus
from regard.data.corpus import Watcher, unwatched
from regard.data.mixture import Mixture
from regard.data.parts import data_name
from regard.data.text import Text
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.files import new_file, real_path
from regard.kernels.compiler import check_compiler
from regard.kernels.memory import memory_for
from regard.kernels.threads import check_threads, fastest_threads, most_threads, threads
from regard.models import check_memory
from regard.models.gpt import GPT
from regard.models.pretrained.gpt_weights import weights
from regard.models.pretrained.seq2seq import PretrainedTranslator
from regard.models.pretrained.translators import tensors_of
from regard.training import checkpoint
from regard.training.card import model_card
from regard.training.data_files import absolute, from_within, with_data_at_hand, with_files, with_files_of
from regard.training.distributed import ALONE, Group, Meeting, restarted
from regard.training.folder import (
    CARD,
    FACTS,
    RECIPE,
    RUN_FORMAT,
    TOKENIZER,
    WEIGHTS,
    claimed,
    has_ended,
    remove_state,
)
from regard.training.init import Start, check_apart
from regard.training.look import Look, log_warnings, look_at
from regard.training.loop import Data, Outcome, Progress, check_dtype, fit, rehearsal
from regard.training.lora import add_adapters, save_adapters
from regard.training.loss import dev_loss
from regard.training.optimizers import trained
from regard.training.recipe import FILES, Recipe, read_recipe
from regard.training.reports import check_reports
from regard.training.resume import check_budget, check_same_data, goes_on_as_it_was, resumed, steps_per_epoch
from regard.training.run import Run
from regard.training.translators import model_of
from regard.training.vocabulary import train_tokenizer
from regard.training.workers import check_processes, num_processes, workers

# facts that are known when a run begins: the ranges of its splits, sums over what it is trained and validated on,
# on how many threads and processes, whether its number of steps tells how to have it again, and what the look at its
# data found
BEGAN = ("hashes", "token_sums", "threads", "processes", "repeats", "look", "init", "init_dev_loss")


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
    A run goes on with the settings and the data that it began with; its budget may be another, device, threads and
    processes, and the names of its files. One that was ended before it saved a state begins anew, with `resume` and
    without, and where torchrun started its processes again it goes on by itself.
    Under torchrun every rank calls this; rank 0 alone writes and calls `report`, `preparing` and `look`.
    Raises RegardError for data, settings or a folder that cannot be used, where another process trains in it, and where
    ranks do not fit together; a folder made for nothing is removed.
    """
    meeting = Meeting.from_environment()
    if meeting is not None and meeting.rank > 0:
        return follow(meeting, folder, recipe)
    if restarted() and has_ended(folder):
        # a rank was lost after the end
        if meeting is not None:
            meeting.call(None)
        return Run.open(folder)
    device = find_device(recipe.train.device, meeting)
    check_dtype(recipe.train.dtype, device)
    check_threads(recipe.train.threads)
    check_reports(recipe.train.reports)
    if recipe.train.compile:
        check_compiler("train.compile", "set it to false")
    start = None
    if recipe.init is not None:
        check_apart(recipe.init, folder)
        start = Start.find(recipe.init)
    with claimed(folder, resume=resume or (restarted() and folder.exists())) as goes_on:
        before = Run.open(folder) if goes_on else None
        recipe = resumed(recipe, before) if before else with_data_at_hand(recipe, folder)
        began = {name: before.facts[name] for name in BEGAN if name in before.facts} if before else {}
        # one that cannot serve is refused before the text is read
        known = start.tokenizer(recipe.model) if start is not None and not before else None
        given = None if before else known if recipe.data.tokenizer is None else recipe.tokenizer()
        corpus = Run(folder, recipe, facts=began).corpus(progress=preparing)
        hashes = {split: list(ends) for split, ends in corpus.hashes.items()}
        now = {"format": RUN_FORMAT, "regard": __version__, "folder": str(real_path(folder)), "hashes": hashes}
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
        train, dev = run.splits(corpus, progress=preparing)
        run = replace(run, facts=run.facts | {"token_sums": _token_sums(run)})
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

        def untrained() -> nn.Module:
            torch.manual_seed(recipe.train.seed)
            # a run that goes on has its own weights, but for those that it does not train
            if start is None or (before and recipe.lora is None and not start.is_translator):
                return run.build()
            module = start.module(recipe.model, run.tokenizer())
            if recipe.lora is not None:
                add_adapters(model_of(module), recipe.lora)
            return module

        module = untrained().to(device)
        if start is not None and not before:
            loss = dev_loss(module, dev, recipe.train, replace(ALONE, device=device))
            run = replace(run, facts=run.facts | {"init": recipe.init, "init_dev_loss": loss})
        # a run may have come from a larger machine
        was = min(began.get("threads", 0), most_threads())
        if meeting is not None:
            count, processes = recipe.train.threads or torch.get_num_threads() * meeting.local_size, meeting.size
            own_threads = max(1, count // meeting.local_size)
        else:
            count = recipe.train.threads or was or _fastest(module, train, recipe, device)
            processes = num_processes(recipe, device, count)
            own_threads = count // processes
        check_processes(recipe, processes)
        repeats = before is None or goes_on_as_it_was(before, recipe, count, processes)
        run = replace(run, facts=run.facts | {"threads": count, "processes": processes, "repeats": repeats})
        if not before:
            _write_facts(run)
        with (
            threads(own_threads),
            memory_for("a step of this training", "lower train.batch_tokens or the sizes in [model]"),
            nullcontext(meeting) if meeting is not None else workers(processes - 1) as meeting,
            _all_ranks(meeting, run, recipe, threads=own_threads, resume=goes_on, device=device) as group,
        ):
            outcome = fit(module, train, dev, recipe.train, folder=folder, report=report, resume=goes_on, group=group)
            module = group.gather(module, untrained)
            facts = run.facts | _facts(corpus, train, module, outcome, device)
            run = replace(run, facts=facts)
            _save(run, module)
            # a resumed run may have had another budget
            _write(folder / RECIPE, kept.to_toml())
            _write(folder / CARD, model_card(kept, facts))
            # last: they say that it has ended
            _write_facts(run)
            if outcome.status != "interrupted":
                # what was kept to go on from has served
                remove_state(folder)
            group.wait()
        return run


def follow(meeting: Meeting, folder: Path | None = None, recipe: Recipe | None = None) -> Run:
    """Take part in the training that rank 0 leads; in `folder` and by `recipe`, where this rank was given them.

    Raises RegardError where this rank has another version, other settings or other data than rank 0.
    """
    told = meeting.join()
    if told is None:
        meeting.answer()
        assert folder is not None
        return Run.open(folder)
    try:
        folder = Path(told["folder"])
        if not (folder / RECIPE).is_file():
            raise RegardError(f"{folder} is not to be seen; --out must be in a folder that all machines share")
        device = find_device(told["device"], meeting)
        leading = read_recipe(tomllib.loads(told["recipe"]), where=str(folder / RECIPE))
        _check_same(told["settings"], _settings(recipe or leading))
        if recipe is not None:
            # the same data may be elsewhere on another machine
            data = with_files_of(leading.data, with_files(recipe.data, absolute))
            leading = replace(leading, data=data)
        run = Run(folder, leading, facts=told["facts"])
        train, dev = run.splits(run.corpus())
        for split, token_sum in _token_sums(run).items():
            if token_sum != told["token_sums"][split]:
                names = data_name(run.corpus().splits[split])
                raise RegardError(f"its {split} data, {names}, are not those of rank 0; give every rank the same")
    except RegardError as error:
        wrong = f"rank {meeting.rank} on {socket.gethostname()}: {error}"
        meeting.answer(wrong)
        raise RegardError(wrong) from None
    meeting.answer()
    with threads(told["threads"]), meeting.group(device) as group:
        module = run.build().to(device)
        fit(module, train, dev, run.recipe.train, folder=folder, report=_silent, resume=told["resume"], group=group)
        group.gather(module, run.build)
        group.wait()
    return Run.open(folder)


@contextmanager
def _all_ranks(
    meeting: Meeting, run: Run, recipe: Recipe, *, threads: int, resume: bool, device: torch.device
) -> Iterator[Group]:
    """The ranks, all of which have the same data. Raises RegardError where one cannot take part."""
    told = {
        "folder": str(real_path(run.path)),
        "recipe": run.recipe.to_toml(),
        "facts": {"hashes": run.facts["hashes"]},
        "settings": _settings(recipe),
        "token_sums": run.facts["token_sums"],
        "threads": threads,
        "resume": resume,
        "device": device.type,
    }
    meeting.call(told)
    with meeting.group(device) as group:
        yield group


def _settings(recipe: Recipe) -> dict[str, str]:
    """What must be the same on all ranks, but for the data themselves."""
    versions = {"Regard": __version__, "PyTorch": torch.__version__, "NumPy": np.__version__}
    sections = {"data": recipe.data, "model": recipe.model, "model.lora": recipe.lora, "train": recipe.train}
    settings = {
        f"{section}.{name}": value
        for section, of_section in sections.items()
        for name, value in (asdict(of_section) if of_section else {}).items()
        if name not in (*FILES, "tokenizer")
    }
    return {name: json.dumps(value) for name, value in {**versions, "model.init": recipe.init, **settings}.items()}


def _check_same(leading: dict[str, str], ours: dict[str, str]) -> None:
    for name, value in ours.items():
        if (theirs := leading.get(name)) != value:
            raise RegardError(f"{name} is {value} here and {theirs} on rank 0; give every rank the same")


def _token_sums(run: Run) -> dict[str, str]:
    return {split: run.token_sum(split) for split in ("train", "dev")}


def _silent(progress: Progress) -> None:
    pass


def find_device(name: str, meeting: Meeting | None = None) -> torch.device:
    """`auto` is CUDA where there is one. Raises RegardError where CUDA is asked for and this rank has no GPU."""
    if name not in ("auto", "cpu", "cuda"):
        raise RegardError(f"--device must be auto, cpu or cuda, not {name!r}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RegardError("no CUDA device is found; use --device cpu, or auto")
    if name == "cuda" and meeting is not None:
        if meeting.local_rank >= (count := torch.cuda.device_count()):
            raise RegardError(
                f"this machine has {count} GPU(s), and no one for its rank {meeting.local_rank}; start at most {count} "
                "processes on it, or use --device cpu"
            )
        torch.cuda.set_device(meeting.local_rank)
    return torch.device(name)


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


def _write_facts(run: Run) -> None:
    _write(run.path / FACTS, json.dumps(run.facts, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _fastest(module: nn.Module, train: Data, recipe: Recipe, device: torch.device) -> int:
    """On how many threads, of all processes together, a step is done first."""
    most = torch.get_num_threads()
    if device.type != "cpu":
        return most
    processes = num_processes(recipe, device, most)
    return processes * fastest_threads(rehearsal(module, train, recipe.train, processes), most // processes)
