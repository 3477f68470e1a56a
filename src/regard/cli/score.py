"""`regard score`: how likely a model finds texts that others wrote."""

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.cli.options import NO_LANGUAGES, Device, Dtype, Languages, PairFiles, pair_chunks
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.language_model import LanguageModel
    from regard.translator import Translator

FIGURES = ("score", "log_probability", "tokens")


def score(
    model: str,
    files: PairFiles = (Path("-"),),
    /,
    *,
    json: bool = False,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Score given translations or, with a language model, given texts: score and log-probability, a line for each.

    Log-probabilities are natural ones, of all tokens and, the score, of a token on average. A translation's end counts
    as a token; the first token of a text, which nothing predicts, does not. What is blank has an empty line.

    Parameters
    ----------
    model
        A run folder, a pretrained translator, or any language model.
    files
        One file with both sides, or two aligned files, source first, in any format that training takes; for a language
        model a text file with a text on each line. `-`, or nothing, is standard input.
    json
        One JSON object a line: what was scored, score, log_probability and the number of tokens.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load
    from regard.translator import Translator

    opened = load(model, device=device, dtype=dtype, **vars(languages))
    found = _pairs(opened, files) if isinstance(opened, Translator) else _texts(opened, files)
    for scored, figures in found:
        if json:
            told = dict(zip(FIGURES, figures or (None, None, 0), strict=True))
            print(json_module.dumps({**scored, **told}, ensure_ascii=False))
        else:
            print("" if figures is None else f"{figures[0]:.6f}\t{figures[1]:.6f}")


Scored = tuple[dict[str, str], tuple[Any, ...] | None]


def _pairs(translator: "Translator", files: tuple[Path, ...]) -> Iterator[Scored]:
    for pairs, name in pair_chunks(files):
        # blank ones are scored too, so that each has its place
        found = translator.score(*map(list, zip(*pairs, strict=True)), name=name)
        for pair, each in zip(pairs, found, strict=True):
            figures = None if pair.is_blank else (each.score, each.log_probability, len(each.tokens) + 1)
            yield pair._asdict(), figures


def _texts(model: "LanguageModel", files: tuple[Path, ...]) -> Iterator[Scored]:
    from regard.data.formats import display_name, read_lines

    file, *others = files
    if others:
        raise RegardError(
            f"{model.name} is a language model: it scores the lines of one text file, not of {len(files)}; name one"
        )
    for number, line in enumerate(read_lines(file), 1):
        figures = None
        if line.strip():
            try:
                found = model.log_probabilities(line)
            except RegardError as error:
                raise RegardError(f"{display_name(file)}:{number}: {error}") from None
            figures = (sum(found) / len(found), sum(found), len(found))
        yield {"text": line}, figures
