"""The lines of metrics.jsonl, and other places that show them: each line once, also after a run was resumed."""

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from regard.errors import RegardError
from regard.training.folder import METRICS

# how these places group the numbers of a line
TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "tokens_per_second": "train/tokens_per_second",
    "dev_loss": "dev/loss",
    "dev_bits_per_byte": "dev/bits_per_byte",
    "final_dev_loss": "dev/final_loss",
}
Line = Mapping[str, Any]
Note = Callable[[Line], None]


class Begun(NamedTuple):
    """What a report is of: a run's folder, its settings, the lines it has, and the last step it ever had one of."""

    folder: Path
    settings: Mapping[str, Any]
    lines: Sequence[Line]
    last_step: int


@contextlib.contextmanager
def metrics_log(folder: Path, reports: Sequence[str], settings: Mapping[str, Any], *, step: int) -> Iterator[Note]:
    """Notes lines in metrics.jsonl and in these reports; a run that goes on at `step` repeats no line of its past.

    Raises RegardError where the file cannot be read or written, or a report cannot be made.
    """
    path = folder / METRICS
    before = _read(path)
    # what was noted beyond the state that a run goes on from is trained again; how it ended is told anew
    lines = [line for line in before if line.get("step", 0) <= step and "status" not in line]
    known = {_what(line) for line in lines}
    # in place, for the file holds the lock of its run
    with path.open("r+b" if path.exists() else "wb") as kept:
        kept.write("".join(map(_json, lines)).encode())
        kept.truncate()
    begun = Begun(folder, settings, lines, max((line.get("step", 0) for line in before), default=0))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("a", encoding="utf-8"))
        others = [stack.enter_context(REPORTS[name](begun)) for name in dict.fromkeys(reports)]

        def note(line: Line) -> None:
            if _what(line) not in known:
                file.write(_json(line))
                file.flush()
                for other in others:
                    other(line)

        yield note


def check_reports(reports: Sequence[str]) -> None:
    """Raises RegardError where the package that a report needs is not installed."""
    for name in reports:
        if importlib.util.find_spec(name) is None:
            raise RegardError(f"[train] report {name!r} needs {name}; pip install 'regard[{name}]', or leave it out")


@contextlib.contextmanager
def _tensorboard(begun: Begun) -> Iterator[Note]:
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = begun.folder / "tensorboard"
    # made of the lines as a whole, so that none is there twice
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(folder) as writer:

        def note(line: Line) -> None:
            for tag, value in _tagged(line).items():
                writer.add_scalar(tag, value, line["step"])
            writer.flush()

        for line in begun.lines:
            note(line)
        yield note


@contextlib.contextmanager
def _wandb(begun: Begun) -> Iterator[Note]:
    wandb: Any = importlib.import_module("wandb")
    marker = begun.folder / "wandb" / "run-id.txt"
    if not marker.is_file():
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(os.urandom(8).hex() + "\n", encoding="utf-8")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "regard"),
        name=begun.folder.name,
        id=marker.read_text(encoding="utf-8").strip(),
        resume="allow",
        dir=begun.folder,
        config=dict(begun.settings),
    )
    try:

        def note(line: Line) -> None:
            # what was sent cannot be taken back, and a run repeats itself
            if line["step"] > begun.last_step and (tagged := _tagged(line)):
                run.log(tagged, step=line["step"])

        yield note
    finally:
        run.finish()


def _tagged(line: Line) -> dict[str, float]:
    return {TAGS[name]: value for name, value in line.items() if name in TAGS and value is not None}


def _what(line: Line) -> tuple[object, frozenset[str]]:
    """Two lines of one step with the same names say the same."""
    return line.get("step"), frozenset(line)


def _json(line: Line) -> str:
    return json.dumps(line) + "\n"


def _read(path: Path) -> list[Line]:
    """The lines of a file, without what was being written at its end when its process was killed."""
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}; delete it, or put it back") from None
    lines: list[Line] = []
    broken = ""
    for number, text in enumerate(texts[:-1], 1):
        line = None
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            if broken:
                raise RegardError(broken)
            lines.append(line)
        else:
            broken = broken or f"{path}:{number}: not JSON with a step, and other lines follow; delete the line"
    return lines


# by the name of the package that each needs, which is also that of Regard's extra
REPORTS: dict[str, Callable[[Begun], AbstractContextManager[Note]]] = {"tensorboard": _tensorboard, "wandb": _wandb}
