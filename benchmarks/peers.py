"""Those compared: environments of their own, made on first use, and processes that work in turn."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from regard.data.corpora import cache_dir

INSIDE = Path(__file__).parent / "inside"


def environment(name: str, packages: Sequence[str], *, alone: Sequence[str] = ()) -> Path:
    """The interpreter of a virtual environment with these packages, kept in the user's cache.

    Of those `alone` their own requirements are left out.
    """
    folder = cache_dir() / "peers" / name
    ready, interpreter = folder / "ready", folder / "venv" / "bin" / "python"
    wanted = "".join(f"{package}\n" for package in (*packages, *alone))
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        print(f"making an environment for {name} in {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        if alone:
            subprocess.run([*pip, "--no-deps", *alone], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return interpreter


def environment_of(threads: int) -> dict[str, str]:
    """The environment variables of a process that computes on so many threads, which soon sleep while they wait."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "20000", "PYTHONUNBUFFERED": "1"}


class Contender:
    """A process that works in turns and idles between them; inside/turns.py is its side of the talk."""

    def __init__(
        self,
        interpreter: Path | str,
        program: str,
        *arguments: Any,
        threads: int,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._command = [str(interpreter), str(INSIDE / f"{program}.py"), *map(json.dumps, arguments)]
        # a file, since nobody reads a pipe while the process works
        self._log = tempfile.TemporaryFile(mode="w+", encoding="utf-8")  # noqa: SIM115
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._process = subprocess.Popen(
            self._command, text=True, env={**environment_of(threads), **variables}, **pipes
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def turn(self, **request: Any) -> dict[str, Any]:
        """Let it work once, and hear what it did."""
        return self._answer(request)

    def last(self) -> dict[str, Any]:
        """Tell it that there are no more turns, and hear what it has to say in the end."""
        answer = self._answer(None)
        self._process.wait()
        return answer

    def _answer(self, request: dict[str, Any] | None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # one that has ended says nothing, which is told below
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            status = self._process.wait()
            raise RuntimeError(f"{' '.join(self._command)} ended with {status}:\n{self._log.read()[-4000:]}")
        return json.loads(line)
