"""attnread in an environment of its own: in_attnread.py '"forward"' '"FOLDER"' 512 3."""

import json
import resource
import sys
import time

import torch
import turns
from attnread import extract_attention
from transformers import AutoModelForCausalLM


def forward(folder: str, length: int, num_layers: int) -> None:
    """Each turn reads all heads of the first so many layers; in the end the peak of memory, in bytes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    model.requires_grad_(False)
    tokens = torch.randint(100, 40_000, (1, length), generator=torch.Generator().manual_seed(1))
    heads = [(layer, head) for layer in range(num_layers) for head in range(model.config.num_attention_heads)]
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    while turns.wait() is not None:
        started = time.perf_counter()
        extract_attention(model, inputs, heads=heads)
        turns.tell(seconds=time.perf_counter() - started)
    turns.tell(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    {"forward": forward}[json.loads(task)](*map(json.loads, arguments))
