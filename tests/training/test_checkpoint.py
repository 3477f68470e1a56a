"""Weights come back exactly, their mean is the mean, and a file that does not fit is refused by name."""

import errno
import os

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_numpy
from torch import nn

from regard.errors import RegardError
from regard.training import checkpoint


class Tied(nn.Module):
    """Two layers that share a matrix."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture
def saved(tmp_path):
    model = Tied()
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(model, path)
    return model, path


def test_a_shared_matrix_is_saved_once_and_is_shared_again(saved):
    model, path = saved
    assert set(load_numpy(path)) == {"first.weight", "first.bias", "second.bias"}
    other = Tied()
    checkpoint.load_weights(other, checkpoint.load_tensors(path), where=path)
    assert_same(parameters(other), parameters(model))
    assert other.second.weight is other.first.weight


def test_the_mean_of_checkpoints_is_that_of_numpy(tmp_path):
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.safetensors")
        checkpoint.save_weights(Tied(), paths[-1])
    mean = checkpoint.average(paths)
    for name, tensor in mean.items():
        wanted = np.mean([load_numpy(path)[name] for path in paths], axis=0, dtype=np.float64)
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.numpy(), wanted.astype(np.float32)), name


def test_the_mean_of_one_checkpoint_is_it(saved):
    model, path = saved
    assert_same(checkpoint.average([path]), parameters(model))


def drop(tensors):
    del tensors["first.bias"]


def add(tensors):
    tensors["third.bias"] = torch.zeros(3)


def reshape(tensors):
    tensors["first.weight"] = tensors["first.weight"][:2]


def poison(tensors):
    tensors["second.bias"][1] = torch.nan


def overflow(tensors):
    tensors["second.bias"][1] = -torch.inf


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop, "is not of this model: it lacks first.bias"),
        (add, "is not of this model: it has a surplus third.bias"),
        (reshape, "first.weight has shape [2, 3], the model needs [3, 3]"),
        (poison, "second.bias holds values that are not finite"),
        (overflow, "second.bias holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(saved, spoil, message):
    _, path = saved
    tensors = checkpoint.load_tensors(path)
    spoil(tensors)
    model = Tied()
    before = parameters(model)
    with pytest.raises(RegardError) as told:
        checkpoint.load_weights(model, tensors, where=path)
    assert str(path) in str(told.value)
    assert message in str(told.value)
    assert_same(parameters(model), before)


@pytest.mark.parametrize("kept", [0, 5, 40, -1], ids=["empty", "five bytes", "half a header", "a byte too few"])
def test_a_file_that_is_cut_off_is_refused_by_name(saved, kept):
    _, path = saved
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RegardError, match=f"^{path}: not a readable safetensors file"):
        checkpoint.load_tensors(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RegardError, match=r"none\.safetensors: there is no such file"):
        checkpoint.load_tensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("I/O error: No space left on device")],
    ids=["OSError", "SafetensorError"],
)
def test_a_full_disk_leaves_the_old_weights_and_nothing_else(saved, error, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def save(tensors, partial):
        partial.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", save)
    with pytest.raises(RegardError, match=r"model\.safetensors: cannot be written: .*No space left"):
        checkpoint.save_weights(model, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def descend(model, optimizer, steps):
    for step in range(steps):
        optimizer.zero_grad()
        model.second(model.first(torch.full((2, 3), step + 1.0))).square().sum().backward()
        optimizer.step()


def test_an_optimiser_goes_on_from_disk_as_if_it_had_never_stopped(tmp_path):
    path = tmp_path / "optimizer.safetensors"
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    descend(model, optimizer, 3)
    checkpoint.save_optimizer(optimizer, model, path)
    other = Tied()
    other.load_state_dict(model.state_dict())
    resumed = torch.optim.AdamW(other.parameters(), lr=0.1)
    checkpoint.load_optimizer(resumed, other, path)
    for each in (model, other):
        descend(each, optimizer if each is model else resumed, 2)
    assert_same(parameters(other), parameters(model))
