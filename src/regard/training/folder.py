"""The folder of a run while it trains: one process has it, and whatever ended that process, the run goes on from it."""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from regard.errors import RegardError
from regard.files import clear_leftovers, locked
from regard.models.pretrained.lora import ADAPTER, ADAPTER_CONFIG

RECIPE, TOKENIZER, WEIGHTS, FACTS, CARD = "recipe.toml", "tokenizer.json", "model.safetensors", "run.json", "README.md"
METRICS, DATA, CHECKPOINTS, STATE = "metrics.jsonl", "data", "checkpoints", "resume"
# links between the words of the training pairs, by which a head is guided
GUIDE = "guide.links"
# files of a Hugging Face folder that say what the model is and cut its texts; a run that begins from one has them too
PRETRAINED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
)
# all that a run has before its first state is saved; the first of them is made first, and is what is locked
BEFORE_STATE = {
    METRICS,
    RECIPE,
    TOKENIZER,
    FACTS,
    DATA,
    GUIDE,
    CHECKPOINTS,
    "tensorboard",
    "wandb",
    ADAPTER_CONFIG,
    *PRETRAINED,
}
# of DATA, what came by standard input
DATA_FILES = re.compile(r"(train|dev|test)\.(tsv|links)")
# bytes of a file of facts
LARGEST_FACTS = 1 << 24
# of run.json, recipe.toml and the names of weights: a run of a later format is refused
RUN_FORMAT = 1
# what `new_file` leaves where its process is killed
PARTIAL = re.compile(rf"\.\d+-({'|'.join(map(re.escape, (RECIPE, TOKENIZER, WEIGHTS, ADAPTER, FACTS, CARD, GUIDE)))})")
# how a training ends that leaves nothing to go on from
ENDED = ("finished", "stopped early")

logger = logging.getLogger("regard")


@contextlib.contextmanager
def claimed(folder: Path, *, resume: bool) -> Iterator[bool]:
    """Have the folder of a run for this process alone; gives whether there is a state to go on from.

    A run that was ended before it saved a state begins anew, with `resume` and without.
    What was made for nothing is removed at the end.
    Raises RegardError where another process trains in the folder, and where it is not to be used.
    """
    is_new = not folder.exists()
    if is_new and resume:
        raise RegardError(f"{folder}: there is no such run; leave out --resume to begin it")
    if not is_new and not _may_be_claimed(folder):
        raise _not_to_be_used(folder, resume=resume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / METRICS).touch()
    except OSError as error:
        raise RegardError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from None
    try:
        with locked(folder / METRICS) as is_ours:
            if is_ours is False:
                raise RegardError(f"{folder} is being trained by another process; let it end, or choose another --out")
            _put_right(folder)
            if has_no_state(folder):
                with _begun(folder, told=resume):
                    yield False
            elif resume and (folder / STATE).is_dir():
                yield True
            else:
                raise _not_to_be_used(folder, resume=resume)
    except OSError as error:
        where = error.filename or folder
        raise RegardError(f"{where}: {error.strerror or error}; free the disk, or choose another place") from None


def has_no_state(folder: Path) -> bool:
    """Whether it has nothing but what a run leaves that was ended before it saved a state."""
    names = {path.name for path in folder.iterdir() if not PARTIAL.fullmatch(path.name)}
    data = (folder / DATA).iterdir() if DATA in names else ()
    return METRICS in names <= BEFORE_STATE and all(DATA_FILES.fullmatch(path.name) for path in data)


def _may_be_claimed(folder: Path) -> bool:
    """Whether it is empty or looks like a run: only then may anything be changed in it."""
    return folder.is_dir() and ((folder / METRICS).is_file() or (folder / STATE).is_dir() or not any(folder.iterdir()))


@contextlib.contextmanager
def _begun(folder: Path, *, told: bool) -> Iterator[None]:
    """An empty run, which goes again if nothing was saved in it; what one left that had no state is removed.

    Checkpoints stay until there are others to go on from.
    """
    if told:
        logger.warning("%s: it was ended before it saved a state; it begins anew", folder)
    for name in (RECIPE, TOKENIZER, FACTS, ADAPTER_CONFIG, *PRETRAINED):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / DATA, ignore_errors=True)
    # not removed: it has the lock
    (folder / METRICS).write_bytes(b"")
    try:
        yield
    finally:
        is_kept = has_weights(folder) or (folder / STATE).exists()
        if not is_kept and (kept := sorted((folder / CHECKPOINTS).glob("[!.]*"))):
            logger.warning("%s: the weights of the last validation, kept; --resume begins anew", kept[-1])
        elif not is_kept:
            shutil.rmtree(folder, ignore_errors=True)


def _put_right(folder: Path) -> None:
    """Clear what a killed process was writing, and what a run that has ended has no use for."""
    clear_leftovers(folder / STATE)
    for path in (folder / CHECKPOINTS).glob(".*"):
        clear_leftovers(path.with_name(path.name[1:].rpartition("-")[0]))
    for path in folder.iterdir():
        if PARTIAL.fullmatch(path.name):
            path.unlink()
    if has_ended(folder):
        remove_state(folder)


def has_ended(folder: Path) -> bool:
    """Whether a training in this folder has come to its end."""
    return has_weights(folder) and _status(folder) in ENDED


def has_weights(folder: Path) -> bool:
    """Whether a run has what it learned, all weights or adapters of them."""
    return any((folder / name).is_file() for name in (WEIGHTS, ADAPTER))


def remove_state(folder: Path) -> None:
    """Remove what an interrupted run goes on from."""
    clear_leftovers(folder / STATE)
    # the state last: as long as it is there, it is known that it was to go
    for name in (CHECKPOINTS, STATE):
        shutil.rmtree(folder / name, ignore_errors=True)


def _status(folder: Path) -> object:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return facts.get("status")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _not_to_be_used(folder: Path, *, resume: bool) -> RegardError:
    if not resume:
        return RegardError(f"{folder} exists already; choose another --out, or go on with it by --resume")
    if not (folder / RECIPE).is_file():
        return RegardError(f"{folder}: not a run, it holds no {RECIPE}; name a folder that `regard train` made")
    return RegardError(
        f"{folder}: there is nothing to resume; the run is finished, or was never saved. --init {folder} with another "
        "--out begins a new run from it"
    )
