"""Where translators come from: a run, or a pretrained encoder–decoder."""

import os
from pathlib import Path
from typing import Any

import torch

from regard.data.download import file_sha256
from regard.data.pair_tokenizer import PairTokenizer
from regard.models.pretrained.translators import Languages, as_translator
from regard.training.folder import WEIGHTS
from regard.training.run import Run
from regard.translator import Translator

NO_LANGUAGES = Languages()


def translator_of_run(run: Run, *, device: torch.device, dtype: torch.dtype) -> Translator:
    """The translator that a run trained. Raises RegardError if its weights are missing or do not fit."""
    longest, tokenizer = run.facts.get("longest_source"), run.tokenizer()
    assert isinstance(tokenizer, PairTokenizer)
    return Translator(
        run.module(),
        tokenizer,
        name=run.path.name,
        max_length=run.recipe.model.max_length,
        device=device,
        dtype=dtype,
        run=run,
        longest_source=longest if isinstance(longest, int) else None,
        origin=lambda: {"run": os.path.realpath(run.path), "weights": file_sha256(run.path / WEIGHTS)},
    )


def pretrained_translator(
    model: Any,
    tokenizer: Any,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    languages: Languages = NO_LANGUAGES,
    folder: Path | None = None,
    run: Run | None = None,
) -> Translator:
    """An encoder–decoder of transformers with its tokenizer, from a `folder` if from any, which may be that of a `run`.

    Raises RegardError for languages that it does not have.
    """
    found = as_translator(model, tokenizer, name=name, languages=languages)

    def origin() -> dict[str, Any]:
        weights = [] if folder is None else [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))]
        return {"run": folder and os.path.realpath(folder), "weights": weights, **languages._asdict()}

    return Translator(**found._asdict(), name=name, device=device, dtype=dtype, origin=origin, run=run)
