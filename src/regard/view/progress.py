"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from regard.data.corpus import Watcher
from regard.training.loop import Progress as TrainingProgress

# where nobody watches a bar, a line after this many seconds
SECONDS_BETWEEN_LINES = 10
# and none of a step that begins sooner than this after the last line
SECONDS_BETWEEN_STEPS = 1


class Reports(NamedTuple):
    """What `train_run` reports to: each step of the training, and what is done with the text before."""

    report: Callable[[TrainingProgress], None]
    preparing: Watcher


@contextlib.contextmanager
def training_progress(name: str) -> Iterator[Reports]:
    """A bar for a training, or lines where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Reports(_lines(console, name), _preparing_lines(console, name))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task(name, total=None, told="")

        def report(progress: TrainingProgress) -> None:
            whole = progress.seconds + progress.seconds_left
            done = progress.seconds / whole if whole else 1.0
            bar.update(task, total=1.0, completed=done, told=tell(progress))

        yield Reports(report, lambda step, count: bar.update(task, told=tell_step(step, count)))


@contextlib.contextmanager
def counting(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar over so many sentences; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def counting_lines(description: str, what: str) -> Iterator[Callable[[int, int, int], None]]:
    """How much of a long job is done: a bar, or a line now and then where stderr is no terminal.

    Gives a function of how many are done, how many of these were before it began, and how many there are.
    """
    console = Console(stderr=True)
    started = told = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, told="")

        def report(done: int, before: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            if done == before:
                text = f"{done:,} of {total:,} {what}"
            else:
                each = (now - started) / (done - before)
                text = f"{done:,} of {total:,} {what}  {1 / each:,.1f}/s  {clock((total - done) * each)} left"
            bar.update(task, total=total, completed=done, told=text)
            if not console.is_terminal and now - told >= SECONDS_BETWEEN_LINES:
                told = now
                console.print(f"{description}  {text}", highlight=False, markup=False, soft_wrap=True)

        yield report


def tell(progress: TrainingProgress) -> str:
    """Step, losses, speed and time left, in one line."""
    parts = [f"step {progress.step:,}", f"epoch {progress.epoch + 1}", f"loss {progress.loss:.3f}"]
    if progress.dev_loss is not None:
        parts.append(f"dev {progress.dev_loss:.3f}")
    if progress.dev_bits_per_byte is not None:
        parts.append(f"{progress.dev_bits_per_byte:.3f} bits/byte")
    parts += [f"{progress.tokens_per_second:,.0f} tokens/s", f"{clock(progress.seconds_left)} left"]
    return "  ".join(parts)


def tell_step(step: str, count: int) -> str:
    """What is done before the training, and how far it has come."""
    return f"{step}: {count:,}" if count else step


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as on a clock."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _lines(console: Console, name: str) -> Callable[[TrainingProgress], None]:
    told = 0.0

    def report(progress: TrainingProgress) -> None:
        nonlocal told
        if progress.step == 1 or progress.seconds - told >= SECONDS_BETWEEN_LINES:
            told = progress.seconds
            console.print(f"{name}  {tell(progress)}", highlight=False, markup=False, soft_wrap=True)

    return report


def _preparing_lines(console: Console, name: str) -> Watcher:
    told, shown = 0.0, ""

    def preparing(step: str, count: int) -> None:
        nonlocal told, shown
        now = time.monotonic()
        # of a text so small that nothing was counted there is no line
        if not shown and not count:
            return
        if not shown or now - told >= (SECONDS_BETWEEN_LINES if step == shown else SECONDS_BETWEEN_STEPS):
            told, shown = now, step
            console.print(f"{name}  {tell_step(step, count)}", highlight=False, markup=False, soft_wrap=True)

    return preparing
