"""Hugging Face's Trainer on GPT-2 of the same sizes: in_trainer.py '"FOLDER"' 90 200 2000."""

import json
import sys
import tempfile

import numpy as np
import torch
import turns
import windows
from torch.utils.data import Dataset
from trainer_turns import Turns
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments


class Windows(Dataset):
    """Window n of the text; Trainer draws which come."""

    def __init__(self, text: np.ndarray) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text) // windows.CONTEXT

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = index * windows.CONTEXT
        row = torch.from_numpy(self.text[start : start + windows.CONTEXT].astype(np.int64))
        return {"input_ids": row, "labels": row}


def main(folder: str, vocab_size: int, updates: int, total: int) -> None:
    torch.manual_seed(1)
    sizes = windows.SIZES
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=windows.CONTEXT,
        n_embd=sizes["dim"],
        n_layer=sizes["layers"],
        n_head=sizes["heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out,
            max_steps=total,
            per_device_train_batch_size=windows.ROWS,
            learning_rate=windows.LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=windows.WARMUP,
            weight_decay=windows.WEIGHT_DECAY,
            adam_beta2=windows.BETAS[1],
            use_cpu=True,
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        text = Windows(windows.ids(folder, "train"))
        trainer = Trainer(model, arguments, train_dataset=text, callbacks=[Turns(updates)])
        # what it prints is not for our pipe
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    loss = windows.mean_loss(lambda tokens: model(input_ids=tokens).logits, folder)
    turns.tell(dev_loss=loss, parameters=sum(each.numel() for each in model.parameters()))


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
