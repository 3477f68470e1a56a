"""The training loop, one for all rungs.

Everything random is a function of the seed and the step, so that a run repeats, and goes on after an
interruption, bit for bit.
"""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from regard.data.batch import Batch, TextBatch
from regard.data.mixture import Mixture, Part
from regard.data.prepare import TokenizedCorpus
from regard.errors import RegardError
from regard.evaluation.text import bits_per_byte
from regard.files import new_folder
from regard.kernels.memory import keep_freed_memory
from regard.kernels.threads import threads
from regard.training import checkpoint
from regard.training.data_parallel import Helper
from regard.training.folder import STATE
from regard.training.loss import add_gradients, batch_loss, dev_loss
from regard.training.optimizers import OPTIMIZERS, Optimizer, trained
from regard.training.recipe import BUDGETS, TrainConfig
from regard.training.reports import metrics_log
from regard.training.schedule import share, total_steps

Data = Part | Mixture
# optimiser steps between two lines of metrics.jsonl
LOG_EVERY = 20
# Ctrl-C, and what ends a job of a cluster or a container
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    device: torch.device,
    report: Callable[[Progress], None],
    resume: bool = False,
    helpers: Sequence[Helper] = (),
) -> Outcome:
    """Train `model` in place and leave it with the mean of its `average` best checkpoints, or the best.

    Of every batch each of the `helpers` does a part.

    Writes metrics.jsonl, checkpoints/ and resume/ in `folder`. Ctrl-C and SIGTERM end the step and return with the
    status interrupted; a second one ends at once.
    Raises RegardError if the loss is no longer finite or a file cannot be written.
    """
    check_dtype(config.dtype, device)
    keep_freed_memory()
    optimizer = OPTIMIZERS[config.optimizer](model, config.learning_rate, config.weight_decay)
    state = State()
    if resume:
        state = _load_state(model, optimizer, folder)
    run = _Run(model, train, dev, config, folder, device, optimizer, state, helpers)
    model.train()
    status, tokens, started = "finished", 0, time.perf_counter()
    dev_loss, validated = None, -1
    recent: list[tuple[float, int]] = []
    with (
        _interruptible() as interrupted,
        metrics_log(folder, config.reports, asdict(config), step=state.step) as note,
    ):
        seconds_before = state.seconds
        while not run.over():
            rate, loss, count = run.step()
            state.seconds = seconds_before + time.perf_counter() - started
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
            report(progress)
            if config.patience is not None and state.validations_without_gain >= config.patience:
                status = "stopped early"
                break
            if interrupted():
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
    device: torch.device
    optimizer: Optimizer
    state: State
    helpers: Sequence[Helper]

    def __post_init__(self) -> None:
        self._forward = torch.compile(self.model, dynamic=True) if self.config.compile else self.model
        self._threads = max(1, torch.get_num_threads() // (1 + len(self.helpers)))
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
        parts, *others = self._parts(state.step)
        state.step += 1
        rate = config.learning_rate * share(
            config.schedule, state.step, warmup=config.warmup_steps, total=state.total, decay=config.decay
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # what is dropped out depends on the seed and the step alone
        seed = config.seed * 1_000_003 + state.step
        count = sum(part.label_count for part in chain(parts, *others))
        asked = [(helper, theirs) for helper, theirs in zip(self.helpers, others, strict=True) if theirs]
        for helper, theirs in asked:
            helper.ask(theirs, seed=seed, count=count)
        with threads(self._threads):
            total = add_gradients(self._forward, parts, config, seed=seed, count=count)
        total += sum(helper.collect(self.model) for helper, _ in asked)
        norm = nn.utils.clip_grad_norm_(trained(self.model).values(), config.clip)
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
        loss = dev_loss(self.model, self.dev, self.config, self.device)
        state = self.state
        gained = not state.best or loss < state.best[0][0]
        state.validations_without_gain = 0 if gained else state.validations_without_gain + 1
        # a run that was interrupted right after a validation comes by here again
        state.best = sorted({*state.best, (loss, state.step)})[: self.config.average]
        if (loss, state.step) in state.best:
            checkpoint.save_weights(self.model, self._checkpoint(state.step))
        return loss

    def settle(self) -> float:
        """Give the model the mean of the checkpoints kept, or the best of them where that does better on dev.

        Returns the loss on dev.
        """
        best_loss, best_step = self.state.best[0]
        paths = [self._checkpoint(step) for _, step in self.state.best]
        if len(paths) > 1:
            checkpoint.load_weights(self.model, checkpoint.average(paths), where=self.folder)
            loss = dev_loss(self.model, self.dev, self.config, self.device)
            if loss < best_loss:
                return loss
        best = self._checkpoint(best_step)
        checkpoint.load_weights(self.model, checkpoint.load_tensors(best), where=best)
        return best_loss

    def save_state(self) -> None:
        with new_folder(self.folder / STATE) as partial:
            checkpoint.save_weights(self.model, partial / "model.safetensors")
            checkpoint.save_optimizer(self.optimizer, self.model, partial / "optimizer.safetensors")
            (partial / "state.json").write_text(json.dumps(asdict(self.state)), encoding="utf-8")
        # only now is there no state on disk that goes on from the others
        kept = {self._checkpoint(step) for _, step in self.state.best}
        for path in {*(self.folder / "checkpoints").glob("*.safetensors")} - kept:
            path.unlink()

    def _checkpoint(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:08d}.safetensors"

    def _parts(self, step: int) -> list[list[Batch | TextBatch]]:
        """What this process and each helper does of a step: a part of every batch that has a row for it."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order, self._order_epoch = self._epoch_order(epoch), epoch
        first = index * self.config.accumulate
        cut = [
            self.train.parts(rows, 1 + len(self.helpers))
            for rows in self._order[first : first + self.config.accumulate]
        ]
        return [
            [self.train.batch(rows, epoch=epoch).to(self.device) for rows in parts if len(rows)]
            for parts in zip(*cut, strict=True)
        ]

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


def _load_state(model: nn.Module, optimizer: Optimizer, folder: Path) -> State:
    resume = folder / STATE
    try:
        state = State(**json.loads((resume / "state.json").read_bytes()))
    except FileNotFoundError:
        raise RegardError(f"{folder}: there is nothing to resume; the run is finished, or was never saved") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise RegardError(f"{resume / 'state.json'}: cannot be understood: {error}; train again") from None
    state.best = [(loss, step) for loss, step in state.best]
    weights = resume / "model.safetensors"
    checkpoint.load_weights(model, checkpoint.load_tensors(weights), where=weights)
    checkpoint.load_optimizer(optimizer, model, resume / "optimizer.safetensors")
    return state


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed or SIGTERM sent; the second one is not held back."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # only the main thread may hear signals
        yield pressed.is_set
        return

    def hear(*_: object) -> None:
        pressed.set()
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield pressed.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _speed(recent: list[tuple[float, int]], tokens: int, seconds: float) -> float:
    """Target tokens a second over the last steps."""
    if len(recent) < 2:
        return tokens / seconds if seconds else 0.0
    (first_seconds, first), (last_seconds, last) = recent[0], recent[-1]
    return (last - first) / (last_seconds - first_seconds)
