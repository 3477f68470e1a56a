"""What Linux alone has is not needed: macOS and Windows are played by taking it away."""

import builtins
import errno
import math
import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from regard import files
from regard.jobs import ray_data
from regard.kernels import linear, memory
from regard.models.pretrained import gguf_convert
from regard.training import distributed, workers

fcntl = pytest.importorskip("fcntl")


@pytest.fixture
def windows(monkeypatch):
    """fsync wants a descriptor that is open for writing, no folder can be opened, and there is no flock."""
    sync, open_ = os.fsync, os.open

    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(descriptor)

    def open_file(path, flags, *more, **others):
        # with dir_fd it is shutil.rmtree, which does without on Windows
        if "dir_fd" not in others and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, flags, *more, **others)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "IS_WINDOWS", True)


@pytest.mark.usefixtures("windows")
def test_files_and_folders_are_written_where_folders_cannot_be_synced_and_there_are_no_locks(tmp_path):
    for content in ("one", "two"):
        with files.new_file(tmp_path / "a.txt") as partial:
            partial.write_text(content)
        with files.new_folder(tmp_path / "folder") as made:
            (made / "b.txt").write_text(content)
        assert (tmp_path / "a.txt").read_text() == content
        assert (tmp_path / "folder" / "b.txt").read_text() == content
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "folder"}
    with files.locked(tmp_path / "a.txt") as is_ours:
        assert is_ours is None


def test_on_windows_no_process_is_probed_by_a_signal(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_data.tempfile, "gettempdir", lambda: str(tmp_path))
    left = tmp_path / f"{ray_data.FOLDER}999999999-a"
    left.mkdir()
    monkeypatch.setattr(ray_data.sys, "platform", "win32")
    monkeypatch.setattr(ray_data.os, "kill", lambda *_: pytest.fail("on Windows this would send Ctrl-C"))
    ray_data._clear_left_folders()
    assert left.exists()


def test_elsewhere_what_a_killed_process_left_is_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_data.tempfile, "gettempdir", lambda: str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left, ours = (tmp_path / f"{ray_data.FOLDER}{number}-a" for number in (process.pid, os.getpid()))
    left.mkdir()
    ours.mkdir()
    ray_data._clear_left_folders()
    assert (left.exists(), ours.exists()) == (False, True)


@pytest.mark.parametrize("error", [ValueError("current limit exceeds maximum limit"), OSError(errno.EINVAL, "")])
def test_a_system_that_refuses_a_limit_on_memory_converts_without_it(error, monkeypatch):
    asked = []

    def refuse(*limit):
        asked.append(limit)
        raise error

    fake = SimpleNamespace(RLIMIT_AS=9, RLIM_INFINITY=-1, getrlimit=lambda _: (-1, -1), setrlimit=refuse)
    monkeypatch.setitem(sys.modules, "resource", fake)
    gguf_convert._limit_memory(1 << 30)
    assert asked == [(9, (1 << 30, -1))]


def test_a_system_without_such_limits_converts_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert gguf_convert._limit_memory(1 << 30) is None


@pytest.mark.parametrize("processor", ["Intel64 Family 6 Model 85, GenuineIntel", "arm", ""])
def test_without_proc_the_processor_is_asked_of_python(processor, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    expected = torch.backends.mkl.is_available() and "GenuineIntel" in processor
    assert linear.mkl_is_at_home.__wrapped__() == expected


def test_a_c_library_without_a_name_is_done_without(monkeypatch):
    def none(name):
        raise TypeError("LoadLibrary() argument 1 must be str, not None")

    monkeypatch.setattr(memory.ctypes, "CDLL", none)
    assert memory._of_the_c_library("mallopt") is None


def test_without_control_groups_and_sysconf_memory_has_no_limit_that_is_known(monkeypatch):
    def missing(path, *_, **__):
        raise FileNotFoundError(path)

    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(builtins, "open", missing)
    assert memory.memory_of_machine() == math.inf


@pytest.mark.parametrize(("system", "interface"), [("linux", "lo"), ("darwin", "lo0"), ("win32", None)])
def test_processes_meet_on_the_interface_that_the_system_has(system, interface, monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(distributed.sys, "platform", system)
    with distributed._gloo_on_loopback():
        assert os.environ.get("GLOO_SOCKET_IFNAME") == interface
    assert "GLOO_SOCKET_IFNAME" not in os.environ


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_the_benchmarks_say_that_they_need_linux(system, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(SystemExit, match="which Linux alone has; run them there"):
        runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "__main__.py"))


@pytest.mark.parametrize(("system", "count"), [("linux", 4), ("darwin", 1), ("win32", 1)])
def test_only_linux_trains_in_several_processes_of_its_own(system, count, monkeypatch):
    config = SimpleNamespace(compile=False, batch_tokens=4096)
    recipe = SimpleNamespace(train=config, max_length=64)
    monkeypatch.setattr(workers.sys, "platform", system)
    assert workers.num_processes(recipe, torch.device("cpu"), 4) == count
