"""A benchmark's figures as JSON and as a Markdown table, with date, commit and machine."""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def write(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: Any, note: str) -> None:
    """Print the table and write results/NAME.md and results/NAME.json."""
    facts = {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    table = "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
    text = f"# {title}\n\n{table}\n\n{note}\n\n{facts['date']}, commit {facts['commit']}, {facts['machine']}.\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps({**facts, "figures": figures}, indent=2) + "\n", encoding="utf-8")


def spread(values: Sequence[float], form: str) -> str:
    """The median of several measurements, and their range."""
    return "{} ({}–{})".format(*map(form.format, (statistics.median(values), min(values), max(values))))


def commit() -> str:
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine() -> str:
    """The processor, how many cores, and the build of torch."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = f"{_processor()} ({platform.machine()}, {capability})"
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def _processor() -> str:
    """The processor's name, and whether it multiplies matrices in units of their own (AMX)."""
    told = Path("/proc/cpuinfo")
    facts = dict(re.findall(r"^(.+?)\s*: (.*)$", told.read_text(), re.MULTILINE)) if told.exists() else {}
    name = facts.get("model name", platform.processor() or "processor")
    number = f" {facts['cpu family']}-{facts['model']}" if {"cpu family", "model"} <= facts.keys() else ""
    return f"{name}{number} {'with' if 'amx_tile' in facts.get('flags', '') else 'without'} AMX"
