"""nanoGPT's training on a CPU, rebuilt in plain torch: in_nanogpt.py '"FOLDER"' 90 200 2000.

Its sizes, batches, optimiser and schedule; random windows, copied one by one; no dropout and no biases.
"""

import json
import math
import sys
import time

import numpy as np
import torch
import turns
import windows
from torch import Tensor, nn
from torch.nn import functional

DIM, HEADS, LAYERS = windows.SIZES["dim"], windows.SIZES["heads"], windows.SIZES["layers"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(DIM, bias=False) for _ in range(2))
        self.query_key_value = nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = nn.Linear(DIM, DIM, bias=False)
        self.inner = nn.Linear(DIM, 4 * DIM, bias=False)
        self.outer = nn.Linear(4 * DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(self.norms[0](x)).split(DIM, dim=2)
        query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
        context = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(context.transpose(1, 2).contiguous().flatten(2))
        return x + self.outer(functional.gelu(self.inner(self.norms[1](x))))


class NanoGPT(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, DIM)
        self.positions = nn.Embedding(windows.CONTEXT, DIM)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(DIM, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                out = name.endswith(("out.weight", "outer.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if out else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return functional.linear(self.norm(self.blocks(x)), self.embedding.weight)


def main(folder: str, vocab_size: int, updates: int, total: int) -> None:
    """Turns of `updates` updates; in the end the loss on dev."""
    torch.manual_seed(1)
    text, model = windows.ids(folder, "train"), NanoGPT(vocab_size)
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": windows.WEIGHT_DECAY},
        {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=windows.LEARNING_RATE, betas=windows.BETAS)
    step = 0
    while turns.wait() is not None:
        started = time.perf_counter()
        for _ in range(updates):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, total)
            tokens, labels = batch(text)
            loss = functional.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
        turns.tell(seconds=time.perf_counter() - started)
    turns.tell(dev_loss=windows.mean_loss(model, folder), parameters=sum(each.numel() for each in parameters))


def rate(step: int, total: int) -> float:
    if step < windows.WARMUP:
        return windows.LEARNING_RATE * (step + 1) / (windows.WARMUP + 1)
    share = 0.5 * (1 + math.cos(math.pi * (step - windows.WARMUP) / (total - windows.WARMUP)))
    return windows.LEAST_RATE + share * (windows.LEARNING_RATE - windows.LEAST_RATE)


def batch(text: np.ndarray) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(text) - windows.CONTEXT, (windows.ROWS,)).tolist()
    rows = [torch.from_numpy(text[start : start + windows.CONTEXT + 1].astype(np.int64)) for start in starts]
    return torch.stack([row[:-1] for row in rows]), torch.stack([row[1:] for row in rows])


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
