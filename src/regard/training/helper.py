"""A process that helps to train, which data_parallel.py starts: helper.py RUN WEIGHTS GRADIENTS THREADS.

It reads one line of JSON for each step and answers by one, its loss. Weights and gradients lie in files that it
inherits open.
"""

import json
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from regard.data.batch import Batch, TextBatch
from regard.kernels.memory import keep_freed_memory
from regard.training.data_parallel import tensors_in
from regard.training.loss import add_gradients
from regard.training.optimizers import trained
from regard.training.run import Run


def main(folder: str, weights_file: str, gradients_file: str, num_threads: str) -> None:
    # what is printed by mistake must not be taken for an answer
    answers, sys.stdout = sys.stdout, sys.stderr
    # clusters send it to every process of a job: the one that leads saves the run, and ends this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(int(num_threads))
    keep_freed_memory()
    run = Run.open(Path(folder))
    model = run.build().train()
    parameters = list(model.parameters())
    for parameter, weight in zip(parameters, tensors_in(int(weights_file), parameters), strict=True):
        parameter.data = weight
    learned = [*trained(model).values()]
    gradients = tensors_in(int(gradients_file), learned)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        parts = [_batch(part) for part in task["parts"]]
        loss = add_gradients(model, parts, run.recipe.train, seed=task["seed"], count=task["count"])
        _leave(learned, gradients)
        print(json.dumps({"loss": loss}), file=answers, flush=True)


def _batch(lists: dict[str, list]) -> Batch | TextBatch:
    tensors = {name: torch.tensor(values) for name, values in lists.items()}
    return Batch(**tensors) if "source" in tensors else TextBatch(**tensors)


def _leave(parameters: list[nn.Parameter], gradients: list[torch.Tensor]) -> None:
    """Put the gradients where they are looked for, and forget them."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            gradient.zero_()
        else:
            gradient.copy_(parameter.grad)
        parameter.grad = None


if __name__ == "__main__":
    main(*sys.argv[1:])
