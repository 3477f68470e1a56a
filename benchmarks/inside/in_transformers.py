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
    {"forward": forward, "opening": opening}[json.loads(task)](*map(json.loads, arguments))
