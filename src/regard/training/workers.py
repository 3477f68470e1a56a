"""The other processes of a training on one machine's CPU: how many serve, and how they are started.

Threads of one process wait for each other after every small operator, and for Python between two of them. Processes
wait once a step, when their gradients are summed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.distributed.rendezvous import rendezvous

from regard.errors import RegardError
from regard.training.distributed import Meeting
from regard.training.recipe import Recipe

# with fewer tokens each, processes spend more of their time on waiting and adding than they save
LEAST_TOKENS = 512


def num_processes(recipe: Recipe, device: torch.device, num_threads: int) -> int:
    """In how many processes so many threads do best."""
    config = recipe.train
    # what torch.compile makes is of one process
    if device.type != "cpu" or config.compile or sys.platform != "linux" or not sys.executable:
        return 1
    return max(1, min(num_threads, config.batch_tokens // max(LEAST_TOKENS, recipe.max_length)))


def check_processes(recipe: Recipe, count: int) -> None:
    """Raises RegardError where a batch cannot give each of `count` processes a row."""
    tokens, longest = recipe.train.batch_tokens, recipe.max_length
    if tokens < count * longest:
        one = "sentence" if recipe.translates else "window"
        raise RegardError(
            f"train.batch_tokens is {tokens} for {count} processes together, too few to give each one {one} of "
            f"{longest} tokens; raise it to {count * longest}, or start {tokens // longest} processes at most"
        )


@contextmanager
def workers(count: int) -> Iterator[Meeting]:
    """Start `count` processes on this machine that follow this one, rank 0; they end with it."""
    if not count:
        yield Meeting(None, rank=0, size=1)
        return
    with ExitStack() as stack:
        # a file, not a port: nobody else can reach it
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="regard-"))
        url = f"file://{folder}/store"
        started: list[subprocess.Popen] = []
        for rank in range(1, count + 1):
            worker = subprocess.Popen(
                # -P: no module of the folder in which the user happens to be
                [sys.executable, "-P", "-m", "regard.training.worker", url, str(rank), str(count + 1)],
                # it ends when this closes
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # this very package, wherever it was found
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # Ctrl-C is for the process that leads
                start_new_session=True,
            )
            stack.callback(_end, worker)
            started.append(worker)
        store, rank, size = next(rendezvous(url, 0, count + 1))
        yield Meeting(store, rank=rank, size=size, workers=started)


def _end(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.communicate()
