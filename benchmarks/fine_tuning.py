"""Fine-tuning SmolLM2-135M on a small text: Hugging Face's Trainer, peft with Trainer, and Regard in turn, two threads.

All learn the same windows of Jane Austen's novels in the same order with the same optimiser, at one learning rate.
Where the model cannot be had, one of the same sizes with random weights takes its place, which the page says.
"""

import contextlib
import json
import re
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import report
from benchmarks.peers import Contender
from regard.data.corpora import get_corpus
from regard.data.packed import PackedText, pack
from regard.data.text import Text, write_documents
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.evaluation.text import bits_per_byte
from regard.models.pretrained.aliases import alias_folder
from regard.models.pretrained.own_tokenizer import as_transformers
from regard.models.pretrained.text_tokenizer import TextTokenizer

THREADS = 2
# the first warms up
TURNS, UPDATES = 6, 2
TOTAL = TURNS * UPDATES
CONTEXT, BATCH_TOKENS = 256, 1024
# characters of each split
SPLITS = {"train": 200_000, "dev": 20_000, "test": 2000}
SEED = 1
LORA = {"rank": 8, "alpha": 16.0}
# by kind: the learning rate, the precision, the peer's name
KINDS = {
    "full": (5e-5, "float32", "HF Trainer"),
    "full, bfloat16": (5e-5, "bfloat16", "HF Trainer, bfloat16"),
    "LoRA": (2e-4, "float32", "peft with Trainer"),
}
MODEL, CORPUS = "smollm2", "austen"
# of SmolLM2-135M
SIZES = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
# seconds between two looks at the memory
EVERY = 0.2


def run() -> None:
    corpus = get_corpus(CORPUS)
    assert isinstance(corpus, Text)
    with tempfile.TemporaryDirectory() as folder:
        model, origin = _model(Path(folder) / "model", corpus)
        figures = _measure(Path(folder), model, corpus)
    rows = [
        [
            side,
            f"{figure['trained_parameters']:,}",
            report.spread(figure["tokens_per_second"], "{:,.0f}"),
            f"{figure['ratio']:.2f}",
            f"{figure['peak_bytes'] / 1e9:.2f}",
            f"{figure['bits_per_byte']:.4f}",
        ]
        for side, figure in figures["sides"].items()
    ]
    report.write(
        "fine-tuning",
        f"Fine-tuning {origin} on {THREADS} threads, Jane Austen's novels",
        ["", "trained parameters", "tokens/s", "times as fast as its peer", "peak memory, GB", "bits per byte on dev"],
        rows,
        {"model": origin, **figures},
        f"In turns of {UPDATES} updates of {BATCH_TOKENS} tokens in windows of {CONTEXT}, in float32, or with products "
        "in bfloat16 by autocast where that is said, on both sides; medians of "
        f"{TURNS - 1} turns, the first warms up, their range in brackets; how many times as fast is the median of the "
        f"turns' ratios. Before the first update dev takes {figures['before']:.4f} bits per byte. AdamW at a constant "
        f"rate of {KINDS['full'][0]:g}, of LoRA {KINDS['LoRA'][0]:g}, without weight decay; adapters of rank "
        f"{LORA['rank']} in every linear layer but the output's. Regard's have one A for query, key and value, one for "
        "gate and up, which its model has as one layer each. Memory is the most that all processes of a side held "
        f"during a turn, what they share counted once. Trainer is that of transformers {transformers.__version__}."
        + ("" if _has_bfloat16() else " This processor has no bfloat16, so that it was not tried."),
    )


def _has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _model(folder: Path, corpus: Text) -> tuple[str, str]:
    """The path of the model, and what the page calls it."""
    try:
        return str(alias_folder(MODEL)), "SmolLM2-135M-Instruct"
    except RegardError as error:
        print(f"{error}; random weights take its place", file=sys.stderr, flush=True)
    torch.manual_seed(SEED)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(folder)
    tokenizer = Tokenizer.train(corpus.documents("train"), kind="bpe", vocab_size=4000)
    as_transformers(tokenizer).save_pretrained(str(folder))
    return str(folder), "a model of SmolLM2-135M's sizes with random weights"


def _measure(folder: Path, model: str, corpus: Text) -> dict[str, Any]:
    for split, length in SPLITS.items():
        letters = chain.from_iterable(passage.text for passage in corpus.passages(split))
        write_documents(folder / f"{split}.jsonl", ["".join(islice(letters, length))])
    text = _write_windows(folder, model)
    changes = {
        **{f"data.{split}": str(folder / f"{split}.jsonl") for split in SPLITS},
        "data.context_length": CONTEXT,
        "train.batch_tokens": BATCH_TOKENS,
        "train.threads": THREADS,
        "train.seed": SEED,
        "train.steps": TOTAL,
        "train.schedule": "constant",
        "train.warmup_steps": 0,
        # at the end alone
        "train.validate_every": 10 * TOTAL,
        "model.init": model,
    }
    figures: dict[str, Any] = {}
    # two at a time: four would take the memory of two more trainings
    for kind, (rate, dtype, peer_name) in KINDS.items():
        if dtype == "bfloat16" and not _has_bfloat16():
            continue
        settings = {"rank": None, **LORA} if kind == "LoRA" else {"rank": None}
        settings |= {"rows": BATCH_TOKENS // CONTEXT, "learning_rate": rate, "dtype": dtype}
        peer = (str(folder), model, UPDATES, TOTAL, settings)
        ours = (
            changes
            | {"train.learning_rate": rate, "train.dtype": dtype}
            | ({"model.lora": LORA} if kind == "LoRA" else {})
        )
        ours = ("train", "fine-tune", ours, str(folder / f"run-{kind}"), UPDATES)
        contenders = {
            peer_name: Contender(sys.executable, "in_tuning", *peer, threads=THREADS),
            f"Regard, {kind}": Contender(sys.executable, "in_regard", *ours, threads=THREADS),
        }
        figures |= _in_turns(contenders, text)
    facts = json.loads((folder / f"run-{next(iter(KINDS))}" / "run.json").read_text(encoding="utf-8"))
    return {"before": bits_per_byte(facts["init_dev_loss"], len(text), text.facts), "sides": figures}


def _in_turns(contenders: dict[str, Contender], text: PackedText) -> dict[str, Any]:
    """The figures of those that work in turn, the first of whom is the peer."""
    turns, peaks = [], dict.fromkeys(contenders, 0)
    for _ in range(TURNS):
        turns.append({})
        for side, contender in contenders.items():
            with _watched(contender.pid) as peak:
                turns[-1][side] = contender.turn()["seconds"]
            peaks[side] = max(peaks[side], *peak)
    ends = {side: contender.last() for side, contender in contenders.items()}
    peer = next(iter(contenders))
    return {
        side: {
            "tokens_per_second": [UPDATES * BATCH_TOKENS / turn[side] for turn in turns[1:]],
            "ratio": statistics.median(turn[peer] / turn[side] for turn in turns[1:]),
            "peak_bytes": peaks[side],
            "trained_parameters": end["trained_parameters"],
            "dev_loss": end["dev_loss"],
            "bits_per_byte": bits_per_byte(end["dev_loss"], len(text), text.facts),
        }
        for side, end in ends.items()
    }


def _write_windows(folder: Path, model: str) -> PackedText:
    """What Regard's run learns, update by update, and dev, as arrays for its peers; returns dev."""
    tokenizer = TextTokenizer.load(Path(model))
    found = {}
    for split in ("train", "dev"):
        passages = Text(split, {split: str(folder / f"{split}.jsonl")}, form="NFC").passages(split)
        pack(passages, tokenizer, folder / split)
        found[split] = PackedText.open(folder / split, context=CONTEXT)
    order = found["train"].order(batch_tokens=BATCH_TOKENS, seed=SEED, epoch=0)
    assert len(order) > TOTAL, "one epoch has all updates"
    batches = {
        "train": [found["train"].batch(starts) for starts in order[:TOTAL]],
        "dev": [found["dev"].batch(starts, once=True) for starts in found["dev"].in_order(batch_tokens=BATCH_TOKENS)],
    }
    for split, each in batches.items():
        for name in ("tokens", "labels"):
            rows = np.concatenate([getattr(batch, name).numpy() for batch in each])
            np.save(folder / f"{split}-{name}.npy", rows)
    return found["dev"]


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """The bytes that a process and those it started hold, seen now and then."""
    seen, done = [_memory(pid)], threading.Event()

    def look() -> None:
        while not done.wait(EVERY):
            seen.append(_memory(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _memory(pid: int) -> int:
    """What is shared counts for each process by its part."""
    total, left = 0, [pid]
    while left:
        process = left.pop()
        # one that has ended since has nothing any more
        with contextlib.suppress(OSError):
            (size,) = re.findall(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
            total += 1024 * int(size)
            tasks = Path(f"/proc/{process}/task").glob("*/children")
            left += [int(child) for task in tasks for child in task.read_text().split()]
    return total
