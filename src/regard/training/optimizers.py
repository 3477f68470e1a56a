"""What makes steps of gradients, by name.

AdamW: Loshchilov and Hutter 2019, "Decoupled weight decay regularization". Muon: Jordan et al. 2024, "Muon: an
optimizer for hidden layers in neural networks", with the step sizes of Liu et al. 2025, "Muon is
scalable for LLM training".
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from regard.models.blocks import Embedding

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

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]
        # each optimiser makes entries of its own parameters; the dicts in them are its own
        self.state = {
            parameter: part.state[parameter]
            for part in parts
            for parameter in chain.from_iterable(group["params"] for group in part.param_groups)
        }

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW for all; weights decay in matrices only."""
    return _adamw(trained(model).values(), learning_rate, weight_decay)


def muon(model: nn.Module, learning_rate: float, weight_decay: float) -> Optimizer:
    """Muon for hidden matrices, at a step size that suits AdamW; AdamW for all else, as embeddings and outputs."""
    hidden = hidden_matrices(model)
    ids = set(map(id, hidden))
    others = [parameter for parameter in trained(model).values() if id(parameter) not in ids]
    ours = torch.optim.Muon(hidden, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return Joined([ours, _adamw(others, learning_rate, weight_decay)])


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": adamw, "muon": muon}


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
