"""A trained model handed to another tool, with proof that it translates there as it does here."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from regard.data.pair_tokenizer import PairTokenizer
from regard.errors import RegardError
from regard.export import ctranslate2
from regard.files import check_new_folder, new_folder
from regard.generation.decoding import Decoding
from regard.generation.translate import translate_tokens
from regard.models import type_name
from regard.training.card import rights
from regard.training.run import Run

LEAST_AGREEMENT = 0.99
RUNGS = {"rnn": "rungs 1 and 2", "transformer": "rung 3"}


class Target(NamedTuple):
    """A tool: the models it holds, what writes one into a folder, what translates there, and what tells a user how.

    `translate(folder, texts, max_new_tokens)` is greedy; `usage(max_new_tokens)` is Markdown.
    """

    models: tuple[str, ...]
    write: Callable[[nn.Module, Any, Path], None]
    translate: Callable[[Path, list[str], int], list[str]]
    usage: Callable[[int], str]


# by the name of the package that a target needs, and of the extra that brings it
EXPORTS = {
    "ctranslate2": Target(("transformer",), ctranslate2.write, ctranslate2.translate, ctranslate2.usage),
}


class Agreement(NamedTuple):
    """Of how many sentences the greedy translation is the same in the other tool as in Regard."""

    same: int
    sentences: int


def check_export(name: str, folder: Path, run: Run) -> None:
    """Raises RegardError for an unknown target, a model it cannot hold, a missing package, a folder not empty."""
    if name not in EXPORTS:
        raise RegardError(f"a translator is exported to {', '.join(EXPORTS)}, not to {name!r}")
    model, held = type_name(run.recipe.model), EXPORTS[name].models
    if model not in held:
        raise RegardError(
            f"{run.path} is of type {model} ({RUNGS[model]}), which {name} cannot hold; "
            f"it holds {', '.join(f'{model} ({RUNGS[model]})' for model in held)}"
        )
    if importlib.util.find_spec(name) is None:
        raise RegardError(f"an export to {name} needs that package; pip install 'regard[{name}]'")
    check_new_folder(folder)


def export(
    name: str,
    folder: Path,
    *,
    module: nn.Module,
    tokenizer: PairTokenizer,
    run: Run,
    sample: list[str],
) -> Agreement:
    """Write what `check_export` let through into `folder`, which appears once the target has translated the sample.

    Blank lines of the sample are passed over; they count where an error names a sentence.
    Greedy translations are compared, of whatever tokens: other tools do not keep to valid UTF-8.
    Raises RegardError if fewer than 99 % of the target's are the same, and for an empty sample.
    """
    target, most = EXPORTS[name], run.recipe.model.max_length - 1
    sample, ours = greedy(module, tokenizer, sample, max_length=run.recipe.model.max_length, max_new_tokens=most)
    with new_folder(folder) as made:
        target.write(module, tokenizer, made)
        agreement = agreed(name, ours, target.translate(made, sample, most))
        card = [
            f"# {run.recipe.name}, for {name}",
            "",
            f"A translator that Regard trained from scratch. Checked at its export: {name} gives the same greedy",
            f"translation as Regard of {agreement.same} in {agreement.sentences} sentences.",
            "",
            *rights(run.facts),
            "",
            target.usage(most),
        ]
        (made / "README.md").write_text("\n".join(card), encoding="utf-8")
    return agreement


def greedy(
    module: nn.Module, tokenizer: PairTokenizer, sample: Sequence[str], *, max_length: int, max_new_tokens: int
) -> tuple[list[str], list[str]]:
    """The sample without blank lines, and its greedy translations. Raises RegardError for an empty sample."""
    lines = [number for number, line in enumerate(sample, 1) if line.strip()]
    if not lines:
        raise RegardError("there is no sentence to check the export on; give a sample with some text")
    filled = [sample[number - 1] for number in lines]
    found = translate_tokens(
        module,  # pyright: ignore[reportArgumentType]
        tokenizer.encode_batch(filled),
        max_length=max_length,
        decoding=Decoding(max_new_tokens=max_new_tokens),
        frames=tokenizer.frames,
        device=next(module.parameters()).device,
        name=lambda index: f"sentence {lines[index]}",
    )
    return filled, [tokenizer.target.decode(hypotheses[0].tokens) for hypotheses in found]


def agreed(name: str, ours: Sequence[str], theirs: Sequence[str]) -> Agreement:
    """How many are the same. Raises RegardError if fewer than 99 % are."""
    same = sum(text == other for text, other in zip(ours, theirs, strict=True))
    if same < LEAST_AGREEMENT * len(ours):
        raise RegardError(
            f"{name} gives the same greedy translation of only {same} in {len(ours)} sentences, so that nothing "
            f"was exported; load the run in float32, and install the {name} that constraints.txt names"
        )
    return Agreement(same=same, sentences=len(ours))
