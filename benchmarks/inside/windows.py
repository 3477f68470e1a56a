"""Windows of a text's token ids, for both peers: it knows torch and numpy alone."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

# of nanoGPT's setting for a CPU
CONTEXT, ROWS = 64, 12
SIZES = {"layers": 4, "heads": 4, "dim": 128}
LEARNING_RATE, LEAST_RATE, WARMUP, WEIGHT_DECAY, BETAS = 1e-3, 1e-4, 100, 0.1, (0.9, 0.99)


def ids(folder: str, split: str) -> np.ndarray:
    return np.load(Path(folder) / f"{split}.npy", mmap_mode="r", allow_pickle=False)


@torch.inference_mode()
def mean_loss(model: Any, folder: str) -> float:
    """Nats a token over dev, its windows side by side; `model` gives the logits of tokens."""
    text = torch.from_numpy(ids(folder, "dev").astype(np.int64))
    starts = range(0, len(text) - 1, CONTEXT)
    total = 0.0
    for start in starts:
        tokens = text[start : start + CONTEXT + 1]
        logits = model(tokens[None, :-1])[0]
        total += torch.nn.functional.cross_entropy(logits.float(), tokens[1:], reduction="sum").item()
    return total / (len(text) - 1)
