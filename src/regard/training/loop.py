"""The training loop, one for all rungs.

Everything random is a function of the seed and the step, so that a run repeats, and goes on after an
interruption, bit for bit.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from regard.data.batch import Batch, TextBatch
from regard.data.mixture import Mixture, Part
from regard.data.prepare import TokenizedCorpus
from regard.errors import RegardError
from regard.evaluation.text import bits_per_byte
from regard.kernels.memory import give_back_large_blocks, keep_freed_memory
from regard.training import checkpoint
from regard.training.distributed import ALONE, Group, whole
from regard.training.folder import CHECKPOINTS, STATE
from regard.training.interruption import interruptible
from regard.training.loss import add_gradients, batch_loss, dev_loss
from regard.training.optimizers import OPTIMIZERS, Optimizer, trained
from regard.training.reports import Note, metrics_log
from regard.training.schedule import share, total_steps
from regard.training.train_config import BUDGETS, TrainConfig

Data = Part | Mixture
# optimiser steps between two lines of metrics.jsonl
LOG_EVERY = 20


@dataclass
class State:
    """How far a run has come; what a resumed one goes on from, beside weights and optimiser."""

    step: int = 0
    seconds: float = 0.0
    total: int | None = None
    # which budget `total` is of
    budget: dict[str, float | None] = field(default_factory=dict)
    # (loss on dev, step) of the checkpoints kept, best first
    best: list[tuple[float, int]] = field(default_factory=list)
    validations_without_gain: int = 0


@dataclass(frozen=True)
class Progress:
    """What a watcher of the training is told at every step."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    seconds_left: float
    dev_loss: float | None
    dev_bits_per_byte: float | None = None


@dataclass(frozen=True)
class Outcome:
    """`status` is finished, stopped early or interrupted; bits per byte are of a language model."""

    status: str
    steps: int
    epochs: float
    seconds: float
    tokens_per_second: float
    dev_loss: float
    dev_bits_per_byte: float | None = None


def fit(
    model: nn.Module,
    train: Data,
    dev: Part,
    config: TrainConfig,
    *,
    folder: Path,
    report: Callable[[Progress], None],
    resume: bool = False,
    group: Group = ALONE,
) -> Outcome:
    """Train `model` in place and leave it with the mean of its `average` best checkpoints, or the best.

    Each rank of `group` does a part of every batch; all must call it, and rank 0 alone writes and reports.

    Writes metrics.jsonl, checkpoints/ and resume/ in `folder`. Ctrl-C and SIGTERM end the step and return with the
    status interrupted; a second one ends at once.
    Raises RegardError if the loss is no longer finite or a file cannot be written.
    """
    check_dtype(config.dtype, group.device)
    if config.shard and group.size > 1:
        # who shards is short of memory: the weights of a layer are gathered for a moment
        give_back_large_blocks()
    else:
        keep_freed_memory()
    group.spread(model, shard=config.shard)
    optimizer = OPTIMIZERS[config.optimizer](model, config.learning_rate, config.weight_decay, group)
    state = State()
    if resume:
        state = _load_state(model, optimizer, folder, verifies=group.leads)
    run = _Run(model, train, dev, config, folder, optimizer, state, group)
    model.train()
    status, tokens, started = "finished", 0, time.perf_counter()
    dev_loss, validated = None, -1
    recent: list[tuple[float, int]] = []
    with (
        interruptible() as interrupted,
        _notes(folder, config, state.step, writes=group.leads) as note,
    ):
        seconds_before = state.seconds
        while not run.over():
            rate, loss, count = run.step()
            state.seconds = group.of_rank_0(seconds_before + time.perf_counter() - started)
            run.fix_total()
            tokens += count
            recent = [*recent[-49:], (state.seconds, tokens)]
            progress = Progress(
                step=state.step,
                epoch=run.epoch,
                loss=loss,
                learning_rate=rate,
                tokens_per_second=_speed(recent, tokens, state.seconds - seconds_before),
                seconds=state.seconds,
                seconds_left=run.seconds_left(),
                dev_loss=dev_loss,
                dev_bits_per_byte=run.bits_per_byte(dev_loss),
            )
            if state.step % config.validate_every == 0:
                dev_loss, validated = run.validate(), state.step
                note(run.told(dev_loss))
                run.save_state()
            if state.step % LOG_EVERY == 0:
                note({key: value for key, value in asdict(progress).items() if not key.startswith("dev")})
            if group.leads:
                report(progress)
            if config.patience is not None and state.validations_without_gain >= config.patience:
                status = "stopped early"
                break
            if group.sum(interrupted())[0]:
                status = "interrupted"
                run.save_state()
                break
        seconds = time.perf_counter() - started
        if validated != state.step:
            note(run.told(run.validate()))
        final_loss = run.settle()
        note({"step": state.step, "epoch": run.epoch, "final_dev_loss": final_loss, "status": status})
    return Outcome(
        status=status,
        steps=state.step,
        epochs=state.step / run.steps_per_epoch,
        seconds=state.seconds,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        dev_loss=final_loss,
        dev_bits_per_byte=run.bits_per_byte(final_loss),
    )


def _notes(folder: Path, config: TrainConfig, step: int, *, writes: bool) -> AbstractContextManager[Note]:
    if not writes:
        return contextlib.nullcontext(lambda line: None)
    return metrics_log(folder, config.reports, asdict(config), step=step)


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raises RegardError where bfloat16 is asked of a processor that has none."""
    if dtype != "bfloat16":
        return
    has_it = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not has_it:
        raise RegardError("this processor has no bfloat16; set train.dtype = 'float32'")


@dataclass
class _Run:
    model: nn.Module
    train: Data
    dev: Part
    config: TrainConfig
    folder: Path
    optimizer: Optimizer
    state: State
    group: Group

    def __post_init__(self) -> None:
        self._forward = torch.compile(self.model, dynamic=True) if self.config.compile else self.model
        self._order = self._epoch_order(0)
        self._order_epoch = 0
        self.steps_per_epoch = -(-len(self._order) // self.config.accumulate)
        budget = {name: getattr(self.config, name) for name in BUDGETS}
        if self.state.budget != budget:
            self.state.budget, self.state.total = budget, None
        if self.config.steps is not None:
            self.state.total = self.config.steps
        elif self.config.epochs is not None:
            self.state.total = self.config.epochs * self.steps_per_epoch

    @property
    def limit(self) -> float:
        """Seconds, where the budget is in minutes."""
        return (self.config.minutes or 0.0) * 60

    @property
    def epoch(self) -> int:
        """Of the step done last."""
        return max(0, self.state.step - 1) // self.steps_per_epoch

    def over(self) -> bool:
        if self.state.total is not None:
            return self.state.step >= self.state.total
        return self.state.seconds >= self.limit

    def fix_total(self) -> None:
        if self.state.total is None:
            config, state = self.config, self.state
            state.total = total_steps(
                config.schedule,
                state.step,
                elapsed=state.seconds,
                limit=self.limit,
                warmup=config.warmup_steps,
                decay=config.decay,
            )

    def seconds_left(self) -> float:
        if self.state.total is None:
            return max(0.0, self.limit - self.state.seconds)
        return self.state.seconds / self.state.step * (self.state.total - self.state.step)

    def step(self) -> tuple[float, float, int]:
        """One optimiser step: its learning rate, its loss per token, and its target tokens."""
        config, state = self.config, self.state
        parts = self._parts(state.step)
        state.step += 1
        rate = config.learning_rate * share(
            config.schedule, state.step, warmup=config.warmup_steps, total=state.total, decay=config.decay
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # what is dropped out depends on the seed, the step and the rank alone
        seed = self.group.seed(config.seed * 1_000_003 + state.step)
        count = int(self.group.sum(sum(part.label_count for part in parts))[0])
        total = add_gradients(self._forward, parts, config, seed=seed, count=count)
        self.group.add_gradients(self.model)
        (total,) = self.group.sum(total)
        norm = whole(nn.utils.clip_grad_norm_(trained(self.model).values(), config.clip))
        if not bool(norm.isfinite()):
            raise RegardError(
                f"training broke down at step {state.step}: the loss is {total} and the gradient {norm.item()}; "
                "lower train.learning_rate or lengthen train.warmup_steps"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return rate, total, count

    def bits_per_byte(self, loss: float | None) -> float | None:
        """What a loss on dev is, where dev is a text."""
        if loss is None or isinstance(self.dev, TokenizedCorpus):
            return None
        return bits_per_byte(loss, self.dev.num_labels, self.dev.facts)

    def told(self, loss: float) -> Mapping[str, float]:
        """The line of a validation in metrics.jsonl."""
        losses = {"dev_loss": loss, "dev_bits_per_byte": self.bits_per_byte(loss)}
        return {"step": self.state.step, "epoch": self.epoch} | {k: v for k, v in losses.items() if v is not None}

    def validate(self) -> float:
        """The loss on dev; one of the best checkpoints is kept."""
        loss = dev_loss(self.model, self.dev, self.config, self.group)
        state = self.state
        gained = not state.best or loss < state.best[0][0]
        state.validations_without_gain = 0 if gained else state.validations_without_gain + 1
        # a run that was interrupted right after a validation comes by here again
        state.best = sorted({*state.best, (loss, state.step)})[: self.config.average]
        if (loss, state.step) in state.best:
            checkpoint.save_checkpoint(self._checkpoint(state.step), model=self.model, writes=self.group.leads)
        return loss

    def settle(self) -> float:
        """Give the model the mean of the checkpoints kept, or the best of them where that does better on dev.

        Returns the loss on dev.
        """
        # rank 0 has written by now what all read
        self.group.wait()
        best_loss, best_step = self.state.best[0]
        if len(self.state.best) > 1:
            mean = checkpoint.average(self._weights_of(step) for _, step in self.state.best)
            checkpoint.load_weights(self.model, mean, where=self.folder)
            loss = dev_loss(self.model, self.dev, self.config, self.group)
            if loss < best_loss:
                return loss
        checkpoint.load_weights(self.model, self._weights_of(best_step), where=self._checkpoint(best_step))
        self.group.wait()
        return best_loss

    def save_state(self) -> None:
        checkpoint.save_checkpoint(
            self.folder / STATE,
            model=self.model,
            optimizer=self.optimizer,
            texts={"state.json": json.dumps(asdict(self.state))},
            writes=self.group.leads,
        )
        if not self.group.leads:
            return
        # only now is there no state on disk that goes on from the others
        kept = {self._checkpoint(step).stem for _, step in self.state.best}
        for path in (self.folder / CHECKPOINTS).glob("step-*"):
            if path.stem in kept:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _weights_of(self, step: int) -> Mapping[str, Tensor]:
        """Of a checkpoint that was kept; an older version kept files."""
        path = self._checkpoint(step)
        if path.is_dir():
            return checkpoint.open_checkpoint(path, "model")
        return checkpoint.load_tensors(path.with_suffix(".safetensors"))

    def _checkpoint(self, step: int) -> Path:
        return self.folder / CHECKPOINTS / f"step-{step:08d}"

    def _parts(self, step: int) -> list[Batch | TextBatch]:
        """What this rank does of a step: a part of every batch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order, self._order_epoch = self._epoch_order(epoch), epoch
        first = index * self.config.accumulate
        return [
            self._part(rows, epoch).to(self.group.device)
            for rows in self._order[first : first + self.config.accumulate]
        ]

    def _part(self, rows: np.ndarray, epoch: int) -> Batch | TextBatch:
        ours = self.train.parts(rows, self.group.size)[self.group.rank]
        if len(ours):
            return self.train.batch(ours, epoch=epoch)
        # every rank must run the model, so that weights that ranks share are sent
        return self.train.batch(rows[:1], epoch=epoch).without_labels()

    def _epoch_order(self, epoch: int) -> list:
        return self.train.order(batch_tokens=self.config.batch_tokens, seed=self.config.seed, epoch=epoch)


def rehearsal(model: nn.Module, train: Data, config: TrainConfig, processes: int = 1) -> Callable[[], None]:
    """What one of `processes` processes does in a training step, on the CPU, to see how long it takes.

    It leaves all as it was.
    """
    rows, *_ = train.order(batch_tokens=config.batch_tokens, seed=config.seed, epoch=0)
    batch = train.batch(train.parts(rows, processes)[0])

    def step() -> None:
        batch_loss(model, batch, config).backward()
        model.zero_grad(set_to_none=True)

    return step


def _load_state(model: nn.Module, optimizer: Optimizer, folder: Path, *, verifies: bool) -> State:
    resume = folder / STATE
    if verifies:
        checkpoint.check_hashes(resume)
    try:
        state = State(**json.loads((resume / "state.json").read_bytes()))
    except FileNotFoundError:
        raise RegardError(f"{folder}: there is nothing to resume; the run is finished, or was never saved") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise RegardError(f"{resume / 'state.json'}: cannot be understood: {error}; train again") from None
    state.best = [(loss, step) for loss, step in state.best]
    checkpoint.load_weights(model, checkpoint.open_checkpoint(resume, "model"), where=resume)
    checkpoint.load_optimizer(optimizer, model, checkpoint.open_checkpoint(resume, "optimizer"))
    return state


def _speed(recent: list[tuple[float, int]], tokens: int, seconds: float) -> float:
    """Target tokens a second over the last steps."""
    if len(recent) < 2:
        return tokens / seconds if seconds else 0.0
    (first_seconds, first), (last_seconds, last) = recent[0], recent[-1]
    return (last - first) / (last_seconds - first_seconds)
