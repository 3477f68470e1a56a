"""`regard train`: one model from one recipe."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from regard.cli.options import Device
from regard.config import parse_value
from regard.errors import RegardError

# seconds after which a line says what takes so long
PATIENCE = 2


def train(
    recipe: str,
    /,
    *,
    out: Path | None = None,
    init: str | None = None,
    set: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    resume: bool = False,
    seed: int | None = None,
    device: Device | None = None,
) -> None:
    """Train one model. Ctrl-C ends the step and saves the run; `--resume` goes on exactly there.

    Parameters
    ----------
    recipe
        A TOML file, or the name of a shipped recipe: {numbers,bible}-{rnn,bahdanau,transformer},
        greek-{bahdanau,luong,transformer}, gpt-{austen,bible}, or fine-tune, which takes --init and --set data.train=…
    out
        The folder of the run, which must not exist yet; by default runs/NAME.
    init
        Begin from the weights of a run, a Hugging Face folder or hub name, a GGUF file or an alias such as smollm2;
        the settings under [model] and the tokenizer are then its own. The same as --set model.init=…
    set
        A setting of the recipe, such as train.minutes=1 or data.train=my.tsv; may be given again. A budget
        (train.steps, train.epochs, train.minutes) takes the place of the recipe's own, data.train that of its corpus.
    resume
        Go on with the run in --out.
    seed
        The same as --set train.seed=…
    device
        auto, cpu or cuda: the same as --set train.device=…
    """
    # torchrun gave it another rank than 0
    is_follower = os.environ.get("RANK", "0") != "0"
    with contextlib.nullcontext() if is_follower else _explained(f"{Path(recipe).stem}  loading PyTorch"):
        from regard.training.card import bits_told
        from regard.training.look import log_look
        from regard.training.recipe import load_recipe
        from regard.training.train import train_run
        from regard.view.progress import clock, training_progress

    changes = dict(_setting(text) for text in set)
    changes |= {} if seed is None else {"train.seed": seed}
    changes |= {} if init is None else {"model.init": init}
    changes |= {} if device is None else {"train.device": device}
    loaded = load_recipe(recipe, changes)
    folder = out or Path("runs") / loaded.name
    if is_follower:
        # rank 0 says what there is to say
        train_run(loaded, folder, resume=resume)
        return
    with training_progress(loaded.name) as reports:
        run = train_run(loaded, folder, resume=resume, look=log_look, **reports._asdict())
    facts = run.facts
    Console(stderr=True).print(
        f"{loaded.name}: {facts['status']} after {facts['steps']:,} steps, {facts['epochs']:.1f} epochs, "
        f"{clock(facts['seconds'])}; {facts['parameters']:,} parameters, "
        f"loss on dev {facts['dev_loss']:.3f}{bits_told(facts)}, {facts['tokens_per_second']:,.0f} tokens/s",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    print(folder)
    if facts["status"] == "interrupted":
        raise KeyboardInterrupt


@contextlib.contextmanager
def _explained(line: str) -> Iterator[None]:
    """Where something takes longer than PATIENCE, as importing torch does on a busy machine, `line` is shown."""
    timer = threading.Timer(PATIENCE, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise RegardError(f"--set {text}: give a value too, as in train.minutes=1")
    return key.strip(), parse_value(value.strip())
