"""A language model writes, in a process of its own: in_generate.py '"regard"' '"int4"' '"smollm2"'."""

import itertools
import json
import sys
import time
from typing import Any

import torch
import turns
from torch import Tensor

import regard
from regard.generation.steps import OwnFeed, write
from regard.generation.writing import Writing


def work(library: str, dtype: str, name: str, compiled: bool = False) -> None:
    """Each turn writes so many tokens after a prompt, or reads windows of a text and tells its likelihood."""
    model: Any = regard.load(name, library=library, dtype=dtype)
    if compiled:
        model.compile()
    while (request := turns.wait()) is not None:
        if "windows" in request:
            perplexity = _perplexity(model, request["windows"])
            if library == "regard":
                # before telling, upon which the next begins to work
                torch.set_num_threads(model.fastest_threads())
            turns.tell(perplexity=perplexity)
            continue
        way = _write if library == "regard" else _generate
        started = time.perf_counter()
        tokens = way(model, request["prompt"], request["new"], **request["how"])
        turns.tell(seconds=time.perf_counter() - started, tokens=tokens)
    turns.tell(threads=torch.get_num_threads(), bytes=_bytes_of_a_step(model.module))


def _write(model: Any, prompt: list[int], new: int, *, reads: bool = False) -> list[int]:
    """The likeliest tokens, whether or not one ends the text; what they looked at, too, where it is to be read."""
    feed = OwnFeed(model.module, len(prompt) + new, reads=reads)
    steps = write(
        feed, [prompt], Writing(max_new_tokens=new), ends=frozenset(), context_length=None, device=torch.device("cpu")
    )
    tokens = [step.tokens[0] for step in steps]
    if reads:
        assert all(map.weights.shape[2] == new for map in feed.attention())
    return tokens


def _generate(model: Any, prompt: list[int], new: int) -> list[int]:
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "use_cache": True}
    written = model.module.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return written[0, len(prompt) :].tolist()


@torch.inference_mode()
def _perplexity(model: Any, windows: list[list[int]]) -> float:
    losses = []
    for ids in windows:
        logits = model.module(torch.tensor([ids])).logits[0, :-1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none"))
    return float(torch.cat(losses).mean().exp())


def _bytes_of_a_step(module: torch.nn.Module) -> int:
    """Of weights that a step reads: all but the table of which it takes a row, unless that is the output layer too."""
    # weights of 4 bits are kept a second time for long prompts
    buffers = (tensor for name, tensor in module.named_buffers() if not name.endswith(".pairs"))
    tensors = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), buffers)}
    embedding: Tensor = next(each.weight for each in module.modules() if isinstance(each, torch.nn.Embedding))
    output = getattr(module, "output", None) or getattr(module, "lm_head", None)
    is_tied = output is None or getattr(output, "weight", None) is embedding
    size = sum(tensor.nbytes for tensor in tensors.values())
    return size if is_tied else size - embedding.nbytes


if __name__ == "__main__":
    work(*map(json.loads, sys.argv[1:]))
