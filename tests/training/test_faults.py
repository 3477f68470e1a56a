"""Wherever a write, a rename or an fsync of a training fails, or its process is killed there, nothing is lost."""

import errno
import os
import signal
import warnings
from pathlib import Path

import pytest

from regard.errors import RegardError
from regard.training import checkpoint, folder

SETTINGS = {"steps": 4, "validate_every": 2, "average": 2, "model": {"dropout": 0.2}}


class Faults:
    """Counts the calls that change the disk; the one of a number fails."""

    def __init__(self, monkeypatch):
        self.count, self.number, self.fail = 0, 0, None
        places = [(os, "fsync"), (os, "replace"), (os, "rename"), (os, "unlink"), (Path, "write_text")]
        for owner, name in [*places, (checkpoint, "save_file")]:
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))
        opened = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, *arguments, **names: File(opened(path, *arguments, **names), self)
        )

    def _counted(self, function):
        def call(*arguments, **names):
            self.reach()
            return function(*arguments, **names)

        return call

    def reach(self):
        self.count += 1
        if self.count == self.number:
            self.fail()

    def at(self, number, fail):
        self.count, self.number, self.fail = 0, number, fail


class File:
    """An open file whose writes are counted."""

    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __iter__(self):
        return iter(self._file)

    def write(self, content):
        self._faults.reach()
        return self._file.write(content)


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run_or_fail(train):
    """Whether a training came to its end, in a process of its own."""
    with warnings.catch_warnings():
        # it runs on one thread
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 2
        try:
            train()
            status = 0
        except RegardError:
            status = 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def listing(path):
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


def test_no_fault_at_any_change_of_the_disk_costs_a_checkpoint(trained, tmp_path, monkeypatch):
    whole = trained(**SETTINGS)
    wanted, files = (whole.path / "model.safetensors").read_bytes(), listing(whole.path)
    faults = Faults(monkeypatch)
    faults.at(0, None)
    trained(**SETTINGS)
    told = 0
    for number in range(1, faults.count + 1):
        path = tmp_path / f"fault-{number}"
        fail, expected = (full, 1) if number % 2 else (die, -signal.SIGKILL)
        faults.at(number, fail)
        status = run_or_fail(lambda path=path: trained(folder=path, **SETTINGS))
        # an fsync of a folder may fail, for some file systems have none, and a second attempt may remove a file
        assert status in (0, expected), number
        told += status == expected
        faults.at(0, None)
        if folder.has_ended(path):
            # all that was left to do was to clear up
            with pytest.raises(RegardError, match="exists already" if status == 0 else "the run is finished"):
                trained(folder=path, resume=status != 0, **SETTINGS)
        else:
            trained(folder=path, resume=path.exists(), **SETTINGS)
        assert (path / "model.safetensors").read_bytes() == wanted, number
        assert listing(path) == files, number
    assert told > 80
