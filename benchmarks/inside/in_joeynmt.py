"""JoeyNMT at work, run by the interpreter of its environment: in_joeynmt.py '"train"' '"SETTINGS"'."""

import json
import sys
import time
from pathlib import Path

import torch
import turns
from joeynmt import prediction, training
from joeynmt.config import load_config, parse_global_args
from joeynmt.helpers import make_model_dir
from joeynmt.training import TrainManager


def train(settings: str) -> None:
    """Turns of `logging_freq` updates, timed by JoeyNMT itself; in the end the loss on dev."""
    config = load_config(Path(settings))
    make_model_dir(Path(config["model_dir"]), overwrite=True)
    begin, log = TrainManager.train_and_validate, TrainManager._log_scores

    def begin_in_turn(self, *args, **data):
        turns.wait()
        begin(self, *args, **data)

    def log_in_turn(self, epoch, seconds, tokens_before, *scores):
        # it stops its clock before it logs, and starts it again afterwards
        log(self, epoch, seconds, tokens_before, *scores)
        turns.tell(seconds=seconds, tokens=self.stats.total_tokens - tokens_before)
        turns.wait()

    TrainManager.train_and_validate, TrainManager._log_scores = begin_in_turn, log_in_turn
    training.train(rank=0, world_size=None, cfg=config, skip_test=True)
    turns.tell(**likelihood(settings))


@torch.no_grad()
def likelihood(settings: str) -> dict:
    """Teacher-forced loss per token on dev, without label smoothing, and the model's parameters."""
    args = parse_global_args(load_config(Path(settings)), rank=0, mode="test")
    model, _, dev, _ = prediction.prepare(args, rank=0, mode="test")
    model.loss_function = ("crossentropy", 0.0)
    model.eval()
    loss, tokens = 0.0, 0
    for batch in dev.make_iter(batch_size=32, pad_index=model.pad_index, eos_index=model.eos_index):
        batch.sort_by_src_length()
        loss += model(return_type="loss", **vars(batch))[0].item()
        tokens += batch.ntokens
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"dev_loss": loss / tokens, "dev_tokens": tokens, "parameters": parameters}


def translate(settings: str, sentences: str) -> None:
    """Each turn translates every so many lines of tokens, by the batch and the beam that it is told."""
    args = parse_global_args(load_config(Path(settings)), rank=0, mode="translate")
    model, _, _, data = prediction.prepare(args, rank=0, mode="translate")
    lines = Path(sentences).read_text(encoding="utf-8").split("\n")[:-1]
    while (request := turns.wait()) is not None:
        started = time.perf_counter()
        for line in lines[:: request["every"]]:
            data.set_item(line)
        _, _, _, tokens, _, _ = prediction.predict(
            model=model,
            data=data,
            device=args.device,
            n_gpu=0,
            normalization="none",
            args=args.test._replace(
                beam_size=request["num_beams"],
                batch_size=request["batch_size"],
                max_output_length=request["max_new_tokens"],
            ),
            autocast=args.autocast,
        )
        seconds = time.perf_counter() - started
        data.reset_cache()
        turns.tell(seconds=seconds, outputs=[[token for token in row if token != "</s>"] for row in tokens])
    turns.tell()


if __name__ == "__main__":
    name, *arguments = map(json.loads, sys.argv[1:])
    {"train": train, "translate": translate}[name](*arguments)
