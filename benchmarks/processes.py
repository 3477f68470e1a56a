"""Processes below another: tests and benchmarks kill some of them."""

import os
import signal
from pathlib import Path


def below(process: int) -> dict[int, str]:
    """All processes that a process has started, and those that these have, each with its command line (Linux)."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            # it has ended meanwhile
            continue
    found, left = {}, [process]
    while left:
        parent = left.pop()
        for child in (each for each, own in parents.items() if own == parent):
            found[child] = commands.get(child, "")
            left.append(child)
    return found


def end_all(processes: list[int]) -> None:
    """Kill what is left of these processes."""
    for each in processes:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
