"""llama.cpp at work in a process of its own: in_llama.py '"MODEL.gguf"' 2."""

import json
import sys
import time

import numpy as np
import turns
from llama_cpp import Llama


def work(path: str, threads: int) -> None:
    """Each turn writes so many tokens after a prompt, or reads windows of a text and tells its likelihood."""
    size = {"n_ctx": 4096, "n_threads": threads, "n_threads_batch": threads, "verbose": False}
    writer, reader = Llama(path, **size), None
    while (request := turns.wait()) is not None:
        if "windows" in request:
            reader = reader or Llama(path, logits_all=True, **size)
            turns.tell(perplexity=_perplexity(reader, request["windows"]))
            continue
        tokens: list[int] = []
        writer.reset()
        started = time.perf_counter()
        # always the likeliest, whether or not it is one that ends a text
        for token in writer.generate(request["prompt"], temp=0.0, repeat_penalty=1.0, reset=True):
            tokens.append(token)
            if len(tokens) == request["new"]:
                break
        turns.tell(seconds=time.perf_counter() - started, tokens=tokens)
    turns.tell()


def _perplexity(model: Llama, windows: list[list[int]]) -> float:
    losses = []
    for ids in windows:
        model.reset()
        model.eval(ids)
        logits = np.array(model.scores[: len(ids) - 1], dtype=np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        losses.append(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]])
    return float(np.exp(np.concatenate(losses).mean()))


if __name__ == "__main__":
    path, threads = map(json.loads, sys.argv[1:])
    work(path, threads)
