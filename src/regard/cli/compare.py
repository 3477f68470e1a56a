"""`regard compare`: several runs side by side, by source length."""

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regard.cli.options import (
    GREEDY,
    NO_LANGUAGES,
    Count,
    DecodingOptions,
    Device,
    Dtype,
    Languages,
    Split,
    TestFiles,
    test_set,
)
from regard.errors import RegardError
from regard.files import real_path


def compare(
    *runs: str,
    split: Split | None = None,
    file: TestFiles = (),
    metric: Literal["exact", "chrf", "bleu"] = "chrf",
    out: Annotated[tuple[Path, ...], Parameter(consume_multiple=False)] = (),
    decoding: DecodingOptions = GREEDY,
    batch_size: Count = 64,
    json: bool = False,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure several models and lay their quality by source length side by side; alignment error rates below it.

    Below that, how each differs from the first one, with the p-value of a paired bootstrap test: how probable so
    large a difference would be if both were equally good.
    Of language models: the bits that each needs for a byte of the text, which compare whatever their tokens are.

    Parameters
    ----------
    runs
        Run folders, trained on one corpus or compared on --file; also pretrained translators, on --file, and language
        models, such as what a run began from.
    split
        train, dev or test, of the runs' own corpus; by default test.
    file
        A test set of your own in place of the split, as for `regard evaluate`.
    metric
        exact, chrf or bleu: what the picture shows.
    out
        Draws the length curve as .png, .svg or .pdf; may be given again.
    batch_size
        Sentences translated at a time; it does not change the result.
    json
        One JSON document.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_translator
    from regard.evaluation.significance import paired_bootstrap
    from regard.training.folder import RECIPE
    from regard.training.init import Start
    from regard.training.run import Run
    from regard.view.alignment_error import error_rate_line
    from regard.view.differences import difference_table
    from regard.view.figure import check_path
    from regard.view.plots import plot_length_curve
    from regard.view.progress import counting
    from regard.view.terminal import quality_table
    from regard.view.words import printable

    if len(runs) < 2:
        raise RegardError("compare takes two runs or more; `regard evaluate RUN` measures one")
    if len({real_path(Path(run)) for run in runs}) < len(runs):
        raise RegardError("a run is named twice; compare takes different runs")
    chosen, files, measured = test_set(split, file)
    for path in out:
        check_path(path)
    trained = [run for run in runs if (Path(run) / RECIPE).is_file()]
    if not trained and files is None:
        raise RegardError("none of these is a run, which would have a test set; give --file")
    others = [run for run in runs if run not in trained]
    translates = {Run.open(run).recipe.translates for run in trained}
    translates |= {not Start.find(run).is_language_model for run in others}
    if len(translates) == 2:
        raise RegardError("a translator and a language model cannot be compared; name runs of one kind")
    if translates == {False}:
        if out:
            raise RegardError("language models have no length curve to draw; leave out --out")
        _compare_texts(runs, trained[:1], chosen, files, measured, json=json, device=device)
        return
    if languages != NO_LANGUAGES and not others:
        raise RegardError("runs know their languages; leave out --source-language and its like")
    told = {run: vars(languages) for run in others}
    translators = [load_translator(run, device=device, dtype=dtype, **told.get(run, {})) for run in runs]
    if files is None:
        if others:
            raise RegardError(f"{others[0]} is no run, and has no test set; give --file")
        first, *others = (translator.pairs(chosen) for translator in translators)
        if any(other != first for other in others):
            raise RegardError(
                "these runs were not tested on the same sentences; compare runs of one corpus and split, or on --file"
            )
    names = _names(list(runs))
    found = {}
    for name, translator in zip(names, translators, strict=True):
        with counting(name, None) as progress:
            found[name] = translator.evaluation(chosen, decoding, files=files, batch_size=batch_size, progress=progress)
    first = found[names[0]]
    if any(each.sources != first.sources for each in found.values()):
        raise RegardError(
            "some pairs are too long for one of these runs, so that they were not tested on the same sentences; leave "
            "them out of --file"
        )
    differences = {name: paired_bootstrap(first.outputs, found[name].outputs, first.references) for name in names[1:]}
    documents = {name: each.quality.to_json() for name, each in found.items()}
    curves = {name: document["by_length"] for name, document in documents.items()}
    unit = first.quality.length_unit
    for path in out:
        plot_length_curve(curves, path, metric=metric, length_unit=unit)
    if json:
        models = [{"name": name, **document} for name, document in documents.items()]
        told = {name: {metric: asdict(each) for metric, each in found.items()} for name, found in differences.items()}
        print(json_module.dumps({**measured, "models": models, "differences": told}, indent=2))
        return
    console = Console()
    console.print(quality_table(curves, length_unit=unit, width=console.width))
    console.print()
    console.print(difference_table(names[0], differences))
    for name, document in documents.items():
        if document["aer"] is not None:
            console.print()
            console.print(Text(printable(name)))
            console.print(error_rate_line(document))


def _compare_texts(
    runs: tuple[str, ...],
    trained: list[str],
    split: str,
    files: list[Path] | None,
    measured: dict[str, Any],
    *,
    json: bool,
    device: str,
) -> None:
    from regard.api import evaluate

    data_of = trained[0] if trained else None
    qualities = [evaluate(run, split, files=files, data_of=data_of, device=device).to_json() for run in runs]
    if len({(quality["documents"], quality["bytes"]) for quality in qualities}) > 1:
        raise RegardError("these runs were not tested on the same text; compare runs of one corpus and split")
    models = [{"name": name, **quality} for name, quality in zip(_names(list(runs)), qualities, strict=True)]
    if json:
        print(json_module.dumps({**measured, "models": models}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("bits per byte", "perplexity per token", "tokens"):
        table.add_column(heading, justify="right")
    for model in models:
        figures = (f"{model['bits_per_byte']:.3f}", f"{model['perplexity']:.2f}", f"{model['tokens']:,}")
        table.add_row(Text(model["name"]), *figures)
    Console().print(table)


def _names(runs: list[str]) -> list[str]:
    """The folders' own names, or their paths where two have the same."""
    names = [real_path(Path(run)).name for run in runs]
    return names if len(set(names)) == len(names) else runs
