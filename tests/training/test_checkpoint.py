"""Weights come back exactly, their mean is the mean, and a file that does not fit is refused by name."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

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
    mean = checkpoint.average(map(checkpoint.load_tensors, paths))
    for name, tensor in mean.items():
        wanted = np.mean([load_numpy(path)[name] for path in paths], axis=0, dtype=np.float64)
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.numpy(), wanted.astype(np.float32)), name


def test_the_mean_of_one_checkpoint_is_it(saved):
    model, path = saved
    assert_same(checkpoint.average([checkpoint.load_tensors(path)]), parameters(model))


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
    path = tmp_path / "checkpoint"
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    descend(model, optimizer, 3)
    checkpoint.save_checkpoint(path, model=model, optimizer=optimizer)
    other = Tied()
    other.load_state_dict(model.state_dict())
    resumed = torch.optim.AdamW(other.parameters(), lr=0.1)
    checkpoint.load_optimizer(resumed, other, checkpoint.open_checkpoint(path, "optimizer"))
    for each in (model, other):
        descend(each, optimizer if each is model else resumed, 2)
    assert_same(parameters(other), parameters(model))


def test_shards_are_as_large_as_they_may_be_and_the_index_says_which_tensor_is_where(tmp_path, monkeypatch):
    model = Tied()
    # three tensors: nine numbers of four bytes, three, three
    monkeypatch.setattr(checkpoint, "SHARD", 48)
    path = tmp_path / "checkpoint"
    checkpoint.save_checkpoint(path, model=model)
    shards = sorted(path.glob("*.safetensors"))
    assert [sorted(load_numpy(shard)) for shard in shards] == [["first.bias", "first.weight"], ["second.bias"]]
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 60}
    assert {name: path / file for name, file in index["weight_map"].items()} == {
        name: shard for shard in shards for name in load_numpy(shard)
    }
    assert_same(checkpoint.open_checkpoint(path, "model"), parameters(model))
    sums = json.loads((path / "hashes.json").read_text())
    files = [file for file in path.iterdir() if file.name != "hashes.json"]
    assert sums == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "checkpoint"
    checkpoint.save_checkpoint(path, model=Tied(), texts={"state.json": "{}"})
    checkpoint.check_hashes(path)
    return path


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model-00001-of-00001.safetensors", "model.safetensors.index.json", "state.json"])
@pytest.mark.parametrize(
    ("spoil", "message"), [(flip, "not what was saved there"), (Path.unlink, "there is no such file")]
)
def test_a_file_that_is_not_what_was_saved_is_refused_by_name(kept, name, spoil, message):
    spoil(kept / name)
    with pytest.raises(RegardError, match=f"{name}: {message}"):
        checkpoint.check_hashes(kept)


def test_a_checkpoint_whose_hashes_are_gone_is_refused(kept):
    (kept / "hashes.json").unlink()
    with pytest.raises(RegardError, match=r"hashes\.json: there is no such file"):
        checkpoint.check_hashes(kept)


def test_a_checkpoint_of_an_older_version_is_read(saved):
    model, path = saved
    checkpoint.check_hashes(path.parent)
    assert_same(checkpoint.open_checkpoint(path.parent, "model"), parameters(model))


def test_a_run_that_an_older_version_began_goes_on_from_its_files(trained, ctrl_c):
    settings = {"average": 2, "steps": 12, "model": {"dropout": 0.2}}
    whole = trained(**settings)
    stopped = trained(report=ctrl_c(9), **settings)
    state, shard = stopped.path / "resume", "{}-00001-of-00001.safetensors"
    for name in ("model", "optimizer"):
        (state / shard.format(name)).rename(state / f"{name}.safetensors")
        (state / f"{name}.safetensors.index.json").unlink()
    (state / "hashes.json").unlink()
    for kept in list((stopped.path / "checkpoints").iterdir()):
        (kept / shard.format("model")).rename(kept.with_suffix(".safetensors"))
        shutil.rmtree(kept)
    resumed = trained(folder=stopped.path, resume=True, **settings)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
