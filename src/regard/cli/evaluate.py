"""`regard evaluate`: quality overall and by source length."""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

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

BATCH_SIZE = 64


def evaluate(
    model: str,
    /,
    *,
    split: Split | None = None,
    file: TestFiles = (),
    links: Path | None = None,
    out: Path | None = None,
    decoding: DecodingOptions = GREEDY,
    batch_size: Count = BATCH_SIZE,
    json: bool = False,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure a run on its corpus or on files: BLEU, chrF, exact match and perplexity, overall and by source length.

    Of a language model: the bits that it needs for each byte of the text, which compare whatever its tokens are.
    Where the corpus has gold links between words, the alignment error rate of attention too, of each head and of the
    one that aligns dev best.

    Parameters
    ----------
    model
        A run folder or, with --file, a pretrained translator: a Hugging Face folder or a name of its hub.
    split
        train, dev or test, of the run's own corpus; by default test.
    file
        A test set of your own in place of the split, in any format that training takes: one file with both sides, or
        two aligned files, source first; for a language model text files.
    links
        Gold links of the words of --file, a line for each pair: measures the alignment error rate too.
    out
        A new folder for source.txt, output.txt and reference.txt, line for line, as other scorers take them.
    batch_size
        Sentences translated at a time. In float32 it does not change the result; the coarser rounding of bfloat16 turns
        some translations into others.
    json
        One JSON document.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_translator
    from regard.files import check_new_folder
    from regard.training.folder import RECIPE
    from regard.training.init import Start
    from regard.training.run import Run
    from regard.view.alignment_error import error_rate_grid, error_rate_line
    from regard.view.progress import counting
    from regard.view.terminal import quality_line, quality_table

    chosen, files, measured = test_set(split, file)
    if links is not None and not file:
        raise RegardError("--links are of the pairs of --file; for a split, data.test_links names them in the recipe")
    if out is not None:
        check_new_folder(out)
    if not file and Path(model).is_dir() and not (Path(model) / RECIPE).is_file():
        raise RegardError(f"{model}: not a run, so it has no test set of its own; give --file")
    opened = Run.open(model) if not file or (Path(model) / RECIPE).is_file() else None
    if not opened.recipe.translates if opened else Start.find(model).is_language_model:
        if decoding != GREEDY:
            raise RegardError(f"{model} is a language model, measured on text as it is; leave out options of decoding")
        if batch_size != BATCH_SIZE or dtype != "float32":
            raise RegardError(f"{model} is a language model, measured in float32; leave out --batch-size and --dtype")
        if links is not None or out is not None:
            raise RegardError(f"{model} is a language model, which translates nothing; leave out --links and --out")
        name, facts = (opened.path.name, opened.facts) if opened else (str(model), {})
        _evaluate_text(model, name, facts, chosen, files, measured, json=json, device=device)
        return
    translator = load_translator(model, device=device, dtype=dtype, **vars(languages))
    with counting(translator.name, None) as progress:
        found = translator.evaluation(
            chosen, decoding, files=files, links=links, batch_size=batch_size, progress=progress
        )
    quality = found.quality
    if out is not None:
        found.save(out)
    attribution = None if file else translator.own_run().facts.get("attribution")
    if json:
        facts = {"run": translator.name, **measured, "attribution": attribution}
        print(json_module.dumps({**facts, **quality.to_json()}, indent=2))
        return
    console, document = Console(), quality.to_json()
    curves = {translator.name: document["by_length"]}
    console.print(quality_table(curves, length_unit=quality.length_unit, width=console.width))
    console.print(quality_line(document))
    if quality.aer is not None:
        console.print()
        console.print(error_rate_line(document))
        if len(document["aer_by_head"]) > 1:
            console.print()
            console.print(error_rate_grid(document))
    if attribution:
        console.print()
        console.print(attribution, markup=False, highlight=False, style="dim")


def _evaluate_text(
    model: str,
    name: str,
    facts: Mapping[str, Any],
    split: str,
    files: list[Path] | None,
    measured: dict[str, Any],
    *,
    json: bool,
    device: str,
) -> None:
    from regard.api import evaluate as measure

    quality = measure(model, split, files=files, device=device).to_json()
    attribution = None if files else facts.get("attribution")
    if json:
        facts = {"run": name, **measured, "attribution": attribution}
        print(json_module.dumps({**facts, **quality}, indent=2))
        return
    console = Console(highlight=False, markup=False)
    console.print(
        f"{name} on {' and '.join(map(str, files or [split]))}: {quality['bits_per_byte']:.3f} bits per byte, "
        f"perplexity {quality['perplexity']:.2f} per token; {quality['documents']:,} documents, "
        f"{quality['bytes']:,} bytes, {quality['tokens']:,} tokens"
        + (f", {quality['unknown']:,} unknown characters" if quality["unknown"] else "")
    )
    if attribution:
        console.print(attribution, style="dim")
