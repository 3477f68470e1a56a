"""Hugging Face's Trainer, full or with peft, on the batches that Regard learns: in_tuning.py '"FOLDER"' '"MODEL"' …

It knows nothing of Regard. The folder has tokens.npy and labels.npy, a row for each window in the order in which they
are learned, and the same of dev.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import turns
from torch.utils.data import Dataset, SequentialSampler
from trainer_turns import Turns
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

IGNORED = -100


class Windows(Dataset):
    """Windows in their order; the labels are those of the tokens, not shifted."""

    def __init__(self, folder: str, split: str) -> None:
        self.tokens, self.labels = (np.load(Path(folder) / f"{split}-{name}.npy") for name in ("tokens", "labels"))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens, labels = torch.from_numpy(self.tokens[index]), torch.from_numpy(self.labels[index])
        labels = labels.where(labels >= 0, IGNORED)
        # the model shifts labels by itself, unless it is given them shifted
        return {"input_ids": tokens, "labels": labels, "shift_labels": labels}


class InOrder(Trainer):
    """Trainer that draws nothing."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # pyright: ignore[reportArgumentType]


def main(folder: str, name: str, updates: int, total: int, settings: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, use_cache=False)
    torch.manual_seed(1)
    if (rank := settings["rank"]) is not None:
        import peft

        adapters = peft.LoraConfig(
            r=rank, lora_alpha=settings["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, adapters)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out,
            max_steps=total,
            per_device_train_batch_size=settings["rows"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            warmup_steps=0,
            weight_decay=0.0,
            adam_beta2=0.98,
            adam_epsilon=1e-9,
            max_grad_norm=1.0,
            use_cpu=True,
            bf16=settings["dtype"] == "bfloat16",
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = InOrder(model, arguments, train_dataset=Windows(folder, "train"), callbacks=[Turns(updates)])
        # what it prints is not for our pipe
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    turns.tell(dev_loss=mean_loss(model.eval(), Windows(folder, "dev")), trained_parameters=trained)


@torch.inference_mode()
def mean_loss(model: Any, dev: Windows) -> float:
    total = count = 0
    for index in range(len(dev)):
        row = dev[index]
        logits = model(input_ids=row["input_ids"][None]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, row["labels"], reduction="sum", ignore_index=IGNORED)
        total, count = total + losses.item(), count + int((row["labels"] != IGNORED).sum())
    return total / count


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
