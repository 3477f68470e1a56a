"""Data parallel training on a CPU: processes that each do a part of every batch, on weights that all of them share.

Threads of one process wait for each other after every small operator, and for Python between two of them. Processes
wait once a step, when their gradients are added. helper.py is the program that each of them runs.
"""

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.data.batch import Batch, TextBatch
from regard.errors import RegardError
from regard.training.optimizers import trained
from regard.training.recipe import TrainConfig

# with fewer tokens each, processes spend more of their time on waiting and adding than they save
LEAST_TOKENS = 512
# parameters begin where a line of the processor's cache does: numbers in a line, bytes of a number
LINE, BYTES = 16, 4
# seeds of helpers are this far apart (Knuth 1998, "The art of computer programming", volume 3, section 6.4)
SEED_STEP = 0x9E3779B9
# seconds that a process has to end by itself
PATIENCE = 5


@final
class Helper:
    """A process that does a part of every step; `helpers` makes them."""

    def __init__(self, arguments: Sequence[str], files: Sequence[int], gradients: list[Tensor], *, index: int) -> None:
        self._gradients = gradients
        self._index = index
        self._process = subprocess.Popen(
            # -P: no module of the folder in which the user happens to be
            [sys.executable, "-P", "-m", "regard.training.helper", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            pass_fds=files,
            # this very package, wherever it was found
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C is for the process that leads
            start_new_session=True,
        )

    def ask(self, parts: Sequence[Batch | TextBatch], *, seed: int, count: int) -> None:
        """Begin with these parts of a step, as `add_gradients` does."""
        told = [{name: value.tolist() for name, value in vars(part).items() if value is not None} for part in parts]
        task = {"parts": told, "seed": seed + self._index * SEED_STEP, "count": count}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._lost() from None

    def answer(self) -> dict[str, Any]:
        """What the process says next: that it is ready, and then, of each step, its loss."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._lost()
        return json.loads(line)

    def collect(self, model: nn.Module) -> float:
        """Add the gradients of what was asked for to those of `model`; returns the loss."""
        loss = self.answer()["loss"]
        for parameter, gradient in zip(trained(model).values(), self._gradients, strict=True):
            if parameter.grad is not None:
                parameter.grad += gradient
        return loss

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.communicate()

    def _lost(self) -> RegardError:
        return RegardError(
            f"a process that helped to train ended with status {self._process.wait(PATIENCE)}; if memory was short, "
            "lower train.threads or train.batch_tokens"
        )


def num_processes(config: TrainConfig, device: torch.device, num_threads: int) -> int:
    """In how many processes so many threads do best."""
    # only Linux has memory to share that needs no name; what torch.compile makes is of one process
    if device.type != "cpu" or config.compile or not hasattr(os, "memfd_create") or not sys.executable:
        return 1
    return max(1, min(num_threads, config.batch_tokens // LEAST_TOKENS))


@contextmanager
def helpers(model: nn.Module, folder: Path, *, count: int, num_threads: int) -> Iterator[list[Helper]]:
    """So many processes that help to train the model of the run in `folder`; they see its weights change."""
    if not count:
        yield []
        return
    parameters = list(model.parameters())
    found: list[Helper] = []
    with ExitStack() as stack:
        weights_file, weights = _shared(parameters, stack)
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.data = weight.copy_(parameter.data)
            stack.callback(_take_back, parameter)
        for index in range(1, 1 + count):
            gradients_file, gradients = _shared([*trained(model).values()], stack)
            files = (weights_file, gradients_file)
            helper = Helper([str(folder), *map(str, (*files, num_threads))], files, gradients, index=index)
            stack.callback(helper.close)
            found.append(helper)
        for helper in found:
            helper.answer()
        yield found


def tensors_in(file: int, parameters: Sequence[nn.Parameter]) -> list[Float[Tensor, "..."]]:
    """The tensors of a file that has one for each parameter."""
    numbers = torch.frombuffer(mmap.mmap(file, 0), dtype=torch.float32)
    parts = numbers.split([_room(parameter) for parameter in parameters])
    return [part[: parameter.numel()].view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def _shared(parameters: Sequence[nn.Parameter], stack: ExitStack) -> tuple[int, list[Tensor]]:
    """A file in memory that has no name and goes with the last process that has it open, and what is in it."""
    file = os.memfd_create("regard")
    stack.callback(os.close, file)
    os.ftruncate(file, BYTES * sum(map(_room, parameters)))
    return file, tensors_in(file, parameters)


def _take_back(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data.clone()


def _room(parameter: Tensor) -> int:
    return -(-parameter.numel() // LINE) * LINE
