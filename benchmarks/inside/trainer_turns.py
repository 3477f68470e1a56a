"""Turns of Hugging Face's Trainer, for the programs here that run it."""

import time
from typing import Any

import turns
from transformers import TrainerCallback


class Turns(TrainerCallback):
    """A turn ends after so many updates."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        turns.wait()
        self.started = time.perf_counter()

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step % self.updates == 0:
            turns.tell(seconds=time.perf_counter() - self.started)
            turns.wait()
            self.started = time.perf_counter()
