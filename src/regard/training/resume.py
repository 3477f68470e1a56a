"""What must be as it was when a run goes on, and what may be another: its budget, device, processes and paths."""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from regard import __version__
from regard.data.parts import data_name
from regard.errors import RegardError
from regard.files import read_whole
from regard.training.data_files import absolute, files_of_stdin, with_files, with_files_of
from regard.training.folder import LARGEST_FACTS, STATE
from regard.training.loop import Data, State
from regard.training.recipe import Recipe
from regard.training.train_config import BUDGETS, TrainConfig

if TYPE_CHECKING:
    from regard.training.run import Run

# what may be another when a run goes on
FREE = (*BUDGETS, "device", "threads", "shard", "report")


def resumed(recipe: Recipe, before: "Run") -> Recipe:
    """The recipe that a run began with, with the budget, device, threads and paths of `recipe`."""
    data = with_files(recipe.data, absolute)
    kept = files_of_stdin(before.path, data)
    if data.train == "-" and before.recipe.data.train == kept["train"]:
        data = replace(data, **kept)
    if before.recipe.data.form is None:
        # of an older run no recipe says so
        data = replace(data, normalise=before.recipe.data.normalise)
    # where sums are known, the data are known by them, whatever their files are called by now
    begun = with_files_of(before.recipe.data, data) if "token_sums" in before.facts else before.recipe.data
    begun = replace(before.recipe, data=begun)
    ours, theirs = _settings(begun), _settings(replace(recipe, data=data))
    for name in ours:
        if ours[name] != theirs.get(name):
            raise RegardError(
                f"{before.path} began with {name} = {ours[name]!r}, not {theirs.get(name)!r}; "
                "a run goes on as it began, or begins anew under another --out"
            )
    return replace(begun, train=recipe.train)


def goes_on_as_it_was(before: "Run", recipe: Recipe, threads: int, processes: int) -> bool:
    """Whether a run has had one budget, device, number of threads and processes and version since it began."""
    had, has = before.recipe.train, recipe.train
    same = all(getattr(had, name) == getattr(has, name) for name in (*BUDGETS, "device", "shard"))
    now = {"threads": threads, "processes": processes, "regard": __version__}
    same = same and all(before.facts.get(name) == value for name, value in now.items())
    return same and before.facts.get("repeats", True)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What must be the same when a run goes on."""
    return {"model.init": recipe.init, "model.lora": recipe.lora} | {
        f"{section}.{name}": value
        for section in ("model", "train", "data")
        for name, value in asdict(getattr(recipe, section)).items()
        if section != "train" or name not in FREE
    }


def check_same_data(run: "Run", began: dict[str, Any]) -> None:
    for split, token_sum in run.facts["token_sums"].items():
        if "token_sums" in began and began["token_sums"].get(split) != token_sum:
            names = data_name(run.corpus().splits[split])
            raise RegardError(
                f"{run.path}: its {split} data are not those that it began with; put {names} back as it was, "
                "or begin anew under another --out"
            )


def check_budget(run: "Run", train: Data) -> None:
    """Raises RegardError for a new budget that the run has used up already."""
    try:
        state = State(**json.loads(read_whole(run.path / STATE / "state.json", LARGEST_FACTS)))
    except (OSError, ValueError, TypeError, RecursionError):
        # the loop says what is wrong with it
        return
    config = run.recipe.train
    # a run that was interrupted at its very last step has yet to end
    if state.budget == {name: getattr(config, name) for name in BUDGETS}:
        return
    for name, done in (
        ("steps", state.step),
        ("epochs", state.step / steps_per_epoch(train, config)),
        ("minutes", state.seconds / 60),
    ):
        budget = getattr(config, name)
        if budget is not None and done >= budget:
            raise RegardError(
                f"{run.path} has trained for {done:,.{0 if name == 'steps' else 2}f} {name} already, which a budget of "
                f"{budget:,} has no room for; raise train.{name} above that"
            )


def steps_per_epoch(train: Data, config: TrainConfig) -> int:
    order = train.order(batch_tokens=config.batch_tokens, seed=config.seed, epoch=0)
    return -(-len(order) // config.accumulate)
