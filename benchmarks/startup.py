"""How long a user waits for help: `regard --help` beside `import torch`, the dearest thing that it must not import."""

import statistics
import subprocess
import sys
import time

from benchmarks import report

ROUNDS = 9


def run() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "regard --help": [sys.executable, "-m", "regard", "--help"],
        "regard train --help": [sys.executable, "-m", "regard", "train", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    # in turn, so that what else the machine does falls on all alike
    for _ in range(ROUNDS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    torch_seconds = medians["python -c 'import torch'"]
    rows = [
        [
            f"`{name}`",
            f"{median:.2f} s",
            f"{median / torch_seconds:.2f}",
            f"{min(seconds[name]):.2f}–{max(seconds[name]):.2f}",
        ]
        for name, median in medians.items()
    ]
    report.write(
        "startup",
        "Waiting for help",
        ["command", "median", "ratio to import torch", "range"],
        rows,
        seconds,
        f"Medians of {ROUNDS} rounds in turn.",
    )
