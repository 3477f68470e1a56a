"""What makes steps of gradients, by name.

AdamW: Loshchilov and Hutter 2019, "Decoupled weight decay regularization". Muon: see `regard.training.muon`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from regard.models.blocks import Embedding
from regard.training.distributed import ALONE, Group
from regard.training.muon import MOMENTUM, Muon

TABLES = (nn.Embedding, Embedding)
# the layer that writes tokens, in Regard's models and in those of transformers
OUTPUT = re.compile(r"^output\.|(^|\.)lm_head\.")


@runtime_checkable
class Optimizer(Protocol):
    """What the training loop asks of an optimiser; `state` has a dict of tensors for each parameter."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    @property
    def state(self) -> Any: ...
    def step(self) -> Any: ...
    def zero_grad(self, set_to_none: bool = True) -> None: ...


@final
class Joined:
    """Several optimisers, each of parameters of its own, as one."""

    def __init__(self, parts: Sequence[tuple[Optimizer, Sequence[Tensor]]]) -> None:
        self.parts = [part for part, _ in parts]
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        # each optimiser makes entries of its own parameters; the dicts in them are its own
        self.state = {parameter: part.state[parameter] for part, parameters in parts for parameter in parameters}

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)


@final
class Divided:
    """Muon with the matrices divided among ranks: each steps its own, and sends them to the others.

    To orthogonalise a matrix takes much longer than to send it.
    """

    def __init__(self, matrices: Sequence[Tensor], group: Group, **settings: Any) -> None:
        self._group = group
        self.shares: list[list[Tensor]] = [[] for _ in range(group.size)]
        work = [0] * group.size
        for matrix in sorted(matrices, key=_work, reverse=True):
            rank = work.index(min(work))
            self.shares[rank].append(matrix)
            work[rank] += _work(matrix)
        self._matrices = matrices
        # one that is given no matrix has nothing to do
        self._muon = Muon([{"params": self.shares[group.rank]}], **settings)
        self.param_groups, self.state = self._muon.param_groups, self._muon.state

    def step(self) -> None:
        self._muon.step()
        self._group.send(self.shares)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for matrix in self._matrices:
            matrix.grad = None if set_to_none else torch.zeros_like(matrix)

    def gather_state(self) -> None:
        """Give every rank the state of all matrices."""
        for share in self.shares:
            for matrix in share:
                self.state[matrix].setdefault(MOMENTUM, torch.zeros_like(matrix))
        self._group.send([[self.state[matrix][MOMENTUM] for matrix in share] for share in self.shares])


def adamw(model: nn.Module, learning_rate: float, weight_decay: float, group: Group = ALONE) -> Optimizer:
    """AdamW for all; weights decay in matrices only."""
    return _adamw(trained(model).values(), learning_rate, weight_decay)


def muon(model: nn.Module, learning_rate: float, weight_decay: float, group: Group = ALONE) -> Optimizer:
    """Muon for hidden matrices, at a step size that suits AdamW; AdamW for all else, as embeddings and outputs."""
    hidden = hidden_matrices(model)
    ids = set(map(id, hidden))
    others = [parameter for parameter in trained(model).values() if id(parameter) not in ids]
    settings = {"lr": learning_rate, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw"}
    ours = Divided(hidden, group, **settings) if group.size > 1 else Muon(hidden, **settings)
    return Joined([(ours, hidden), (_adamw(others, learning_rate, weight_decay), others)])


def gather_state(optimizer: Optimizer) -> None:
    """Give every rank all of the state that ranks have divided among them."""
    for part in optimizer.parts if isinstance(optimizer, Joined) else ():
        if isinstance(part, Divided):
            part.gather_state()


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": adamw, "muon": muon}


def _work(matrix: Tensor) -> int:
    """As the products of Muon's iterations with a matrix grow."""
    return matrix.numel() * min(matrix.shape)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The matrices that take features to features: not those whose rows are of tokens or positions."""
    tables = {id(part) for module in model.modules() if isinstance(module, TABLES) for part in module.parameters()}
    return [
        parameter
        for name, parameter in trained(model).items()
        if parameter.ndim == 2 and id(parameter) not in tables and not OUTPUT.search(name)
    ]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, each under its first name where modules share it."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _adamw(parameters: Iterable[Tensor], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)
