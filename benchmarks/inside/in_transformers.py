"""A transformers model in a process of its own: in_transformers.py '"forward"' '"FOLDER"' '"all"' 4096 64."""

import json
import resource
import sys
import time
from typing import Any

import torch
import turns
from transformers import AutoModelForCausalLM

import regard


def forward(folder: str, way: str, length: int, num_rows: int) -> None:
    """Each turn runs the model once over the same tokens; in the end the process's peak of memory, in bytes."""
    implementation = "eager" if way == "eager" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=implementation).eval()
    tokens = torch.randint(100, 40_000, (1, length), generator=torch.Generator().manual_seed(1))
    rows = list(range(length - num_rows, length))
    settings: dict[str, Any] = {"top_k": 8, "statistics": ("received", "entropy")} if way == "all" else {}
    reading = None
    while turns.wait() is not None:
        reading = None
        started = time.perf_counter()
        with torch.inference_mode():
            if way in ("all", "rows"):
                with regard.watching(model, rows=rows, **settings) as watch:
                    model(input_ids=tokens)
                reading = watch.reading(0)
            else:
                model(input_ids=tokens, output_attentions=way == "eager")
        turns.tell(seconds=time.perf_counter() - started)
    end: dict[str, Any] = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if reading is not None:
        assert not reading.refused
        assert len(reading.layers("decoder")) == model.config.num_hidden_layers
        end["size"] = sum(table.nbytes for _, table in reading.tensors())
    turns.tell(**end)


def parts(folder: str, length: int, num_rows: int) -> None:
    """One turn: the seconds of each part of reading all of a forward pass, in the second of two."""
    from regard.kernels.softmax import SoftmaxRows
    from regard.reading.compute import rows, statistics, tiles

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    tokens = torch.randint(100, 40_000, (1, length), generator=torch.Generator().manual_seed(1))
    seconds: dict[str, float] = {}

    def timed(owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started

        setattr(owner, name, wrapped)

    def in_steps(function: Any, part: str) -> Any:
        def wrapped(*args: Any) -> Any:
            each = function(*args)
            while True:
                started = time.perf_counter()
                found = next(each, None)
                seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started
                if found is None:
                    return
                yield found

        return wrapped

    timed(rows, "_rows", "kept rows and their proof")
    timed(rows, "_sweep", "all rows")
    timed(SoftmaxRows, "numerators_", "exponentials, sums, strongest keys")
    timed(statistics.Statistic, "note", "statistics")
    tiles._scores = in_steps(tiles._scores, "products of queries and keys")
    turns.wait()
    with torch.inference_mode():
        for _ in range(2):
            seconds.clear()
            with regard.watching(
                model, rows=slice(length - num_rows, None), top_k=8, statistics=("received", "entropy")
            ):
                model(input_ids=tokens)
    turns.tell(seconds=seconds)
    turns.wait()
    turns.tell()


def opening(name: str) -> None:
    """One turn: a model is opened."""
    import transformers.models.llama.modeling_llama  # noqa: F401

    turns.wait()
    started = time.perf_counter()
    regard.load(name)
    turns.tell(seconds=time.perf_counter() - started)
    turns.wait()
    turns.tell()


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    {"forward": forward, "parts": parts, "opening": opening}[json.loads(task)](*map(json.loads, arguments))
