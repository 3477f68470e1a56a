"""Weights and optimiser state on disk: safetensors alone, each file and folder whole or absent.

A checkpoint is a folder. Its tensors are in shards of bounded size with an index, as Hugging Face has it, so that no
process ever holds all of a sharded model. The hashes of its files are written last.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regard.data.download import file_sha256
from regard.errors import RegardError
from regard.files import new_file, new_folder
from regard.training.distributed import share_of, whole
from regard.training.optimizers import Optimizer, gather_state, trained

HASHES = "hashes.json"
# bytes of a shard
SHARD = 1 << 26


@final
class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each of them read or computed when it is asked for."""

    def __init__(self, names: Iterable[str], get: Callable[[str], Tensor]) -> None:
        self._names, self._get = dict.fromkeys(names), get

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    texts: Mapping[str, str] | None = None,
    writes: bool = True,
) -> None:
    """Every trained parameter, the state of the optimiser, and files of text, as the folder `path`.

    Where each rank has a share of the tensors all must call it, and one of them `writes`.
    """
    sets: dict[str, Mapping[str, Tensor]] = {"model": trained(model)}
    if optimizer is not None:
        sets["optimizer"] = _state_of(optimizer, model)
    if not writes:
        for tensors in sets.values():
            for tensor in tensors.values():
                whole(tensor.detach())
        return
    with new_folder(path) as partial:
        for name, tensors in sets.items():
            _save_shards(partial, name, tensors)
        for name, text in (texts or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        hashes = {file.name: file_sha256(file) for file in sorted(partial.iterdir())}
        (partial / HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")


def _save_shards(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    shards: list[list[str]] = [[]]
    size = 0
    for key, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += tensor.nbytes
    files: dict[str, str] = {}
    for number, keys in enumerate(shards, 1):
        file = f"{name}-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({key: whole(tensors[key].detach()).cpu().contiguous() for key in keys}, folder / file)
        files |= dict.fromkeys(keys, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def check_hashes(folder: Path) -> None:
    """Raises RegardError where a file of a checkpoint is not what was saved; one of an older version has no hashes."""
    try:
        hashes = json.loads((folder / HASHES).read_bytes())
        wrong = [name for name, sum in hashes.items() if file_sha256(folder / name) != sum]
    except FileNotFoundError as error:
        if Path(error.filename).name == HASHES and not list(folder.glob("*.index.json")):
            return
        raise RegardError(f"{error.filename}: there is no such file; put it back, or train again") from None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise RegardError(f"{folder / HASHES}: cannot be understood: {error}; train again") from None
    if wrong:
        raise RegardError(f"{folder / wrong[0]}: not what was saved there; put it back, or train again")


def open_checkpoint(folder: Path, name: str) -> Mapping[str, Tensor]:
    """The tensors of one name in a checkpoint, `model` or `optimizer`, or in the single file of an older version.

    Raises RegardError where there are none.
    """
    index = folder / f"{name}.safetensors.index.json"
    if not index.is_file():
        return load_tensors(folder / f"{name}.safetensors")
    try:
        files = json.loads(index.read_bytes())["weight_map"]
        paths = {key: folder / file for key, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RegardError(f"{index}: cannot be understood: {error}; train again") from None

    def get(key: str) -> Tensor:
        with _readable(paths[key]), safe_open(paths[key], framework="pt") as shard:
            return shard.get_tensor(key)

    return Tensors(paths, get)


def save_weights(model: nn.Module, path: Path) -> None:
    """Every trained parameter, as one file."""
    save_tensors({name: parameter.detach().cpu() for name, parameter in trained(model).items()}, path)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Give the model its trained parameters, or this rank its share of them.

    Raises RegardError, and changes nothing, where names or shapes are not the model's or a value is not finite.
    """
    parameters = trained(model)
    missing, surplus = parameters.keys() - tensors.keys(), tensors.keys() - parameters.keys()
    if missing or surplus:
        told = [f"lacks {name}" for name in sorted(missing)] + [f"has a surplus {name}" for name in sorted(surplus)]
        raise RegardError(f"{where} is not of this model: it {', '.join(told[:5])}")
    for name, parameter in parameters.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            found, wanted = list(tensor.shape), list(parameter.shape)
            raise RegardError(f"{where}: {name} has shape {found}, the model needs {wanted}")
        if not tensor.isfinite().all():
            raise RegardError(f"{where}: {name} holds values that are not finite; train again, or fetch the file again")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(share_of(tensors[name], parameter))


def average(checkpoints: Iterable[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The mean of several checkpoints, parameter by parameter, summed in float64."""
    checkpoints = list(checkpoints)

    def mean(name: str) -> Tensor:
        found = [checkpoint[name] for checkpoint in checkpoints]
        return torch.stack([tensor.double() for tensor in found]).mean(dim=0).to(found[0].dtype)

    return Tensors(checkpoints[0], mean)


def _state_of(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    gather_state(optimizer)
    return {
        f"{name}.{key}": value
        for name, parameter in trained(model).items()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser the state that `save_checkpoint` saved, or this rank its share of it."""
    parameters = trained(model)
    for full_name in tensors:
        name, _, key = full_name.rpartition(".")
        value, parameter = tensors[full_name], parameters[name]
        # torch keeps the count of steps on the CPU unless the optimiser is fused, then beside the parameter
        is_share = value.shape == parameter.shape
        optimizer.state[parameter][key] = share_of(value, parameter) if is_share else value.to(parameter.device)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    with new_file(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def load_tensors(path: Path) -> dict[str, Tensor]:
    with _readable(path):
        return load_file(path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise RegardError(f"{path}: not a readable safetensors file: {error}") from None
