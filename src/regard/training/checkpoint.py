"""Weights and optimiser state on disk: safetensors alone, each file whole or absent."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regard.errors import RegardError
from regard.files import new_file
from regard.training.optimizers import Optimizer, trained


def save_weights(model: nn.Module, path: Path) -> None:
    """Every trained parameter."""
    save_tensors({name: parameter.detach().cpu() for name, parameter in trained(model).items()}, path)


def load_weights(model: nn.Module, tensors: dict[str, Tensor], *, where: Path) -> None:
    """What `save_weights` saved.

    Raises RegardError, and changes nothing, where names or shapes are not the model's or a value is not finite.
    """
    parameters = trained(model)
    missing, surplus = parameters.keys() - tensors.keys(), tensors.keys() - parameters.keys()
    if missing or surplus:
        told = [f"lacks {name}" for name in sorted(missing)] + [f"has a surplus {name}" for name in sorted(surplus)]
        raise RegardError(f"{where} is not of this model: it {', '.join(told[:5])}")
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape:
            found, wanted = list(tensors[name].shape), list(parameter.shape)
            raise RegardError(f"{where}: {name} has shape {found}, the model needs {wanted}")
        if not tensors[name].isfinite().all():
            raise RegardError(f"{where}: {name} holds values that are not finite; train again, or fetch the file again")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def average(paths: Iterable[Path]) -> dict[str, Tensor]:
    """The mean of several checkpoints, parameter by parameter, summed in float64."""
    checkpoints = [load_tensors(path) for path in paths]
    return {
        name: torch.stack([checkpoint[name].double() for checkpoint in checkpoints]).mean(dim=0).to(tensor.dtype)
        for name, tensor in checkpoints[0].items()
    }


def save_optimizer(optimizer: Optimizer, model: nn.Module, path: Path) -> None:
    save_tensors(
        {
            f"{name}.{key}": value.cpu()
            for name, parameter in trained(model).items()
            for key, value in optimizer.state[parameter].items()
        },
        path,
    )


def load_optimizer(optimizer: Optimizer, model: nn.Module, path: Path) -> None:
    parameters = trained(model)
    for full_name, value in load_tensors(path).items():
        name, _, key = full_name.rpartition(".")
        # torch keeps the count of steps on the CPU unless the optimiser is fused, then beside the parameter
        optimizer.state[parameters[name]][key] = value.to(parameters[name].device)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    with new_file(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise RegardError(f"{path}: not a readable safetensors file: {error}") from None
