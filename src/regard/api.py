"""What `import regard` offers: train a model, load it, run it, read it."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from regard.data.formats import Pair
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.evaluation.quality import Quality, evaluate_translations
from regard.generation.search import Hypothesis
from regard.generation.translate import translate_tokens
from regard.reading.reading import Reading
from regard.reading.replay import alignments, replay
from regard.training.loop import Progress
from regard.training.recipe import load_recipe
from regard.training.run import Run, find_device, train_run
from regard.view import renderers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
renderers.register()


@dataclass(frozen=True)
class Generation:
    """One translation. `score` is its log-probability over its length; `finished` is False where the limit cut it."""

    text: str
    tokens: list[int]
    score: float
    finished: bool


@final
class Translator:
    """A trained translator: the torch module, its tokenizer, and what can be done with them."""

    def __init__(
        self, module: nn.Module, tokenizer: Tokenizer, run: Run, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.module = module.to(device=device, dtype=dtype)
        self.tokenizer = tokenizer
        self.run = run
        self.device = device
        self.max_length = run.recipe.model.max_length

    @property
    def name(self) -> str:
        return self.run.path.name

    @overload
    def translate(self, texts: str, **settings: Any) -> Generation: ...
    @overload
    def translate(self, texts: list[str], **settings: Any) -> list[Generation]: ...
    def translate(self, texts: str | list[str], **settings: Any) -> Generation | list[Generation]:
        """The best translation of a text, or of each of several; the settings are those of `translate_n_best`."""
        if isinstance(texts, str):
            return self.translate_n_best([texts], **settings)[0][0]
        return [best[0] for best in self.translate_n_best(texts, **settings)]

    def translate_n_best(
        self,
        texts: Sequence[str],
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] = lambda sentences: None,
        name: Callable[[int], str] = lambda index: f"sentence {index + 1}",
    ) -> list[list[Generation]]:
        """Up to `num_beams` translations of each text, best first. An empty text gives an empty one.

        Raises RegardError for a text longer than the model's limit and for settings out of range.
        """
        filled = [index for index, text in enumerate(texts) if text.strip()]
        found = translate_tokens(
            self.module,  # pyright: ignore[reportArgumentType]
            self.tokenizer.encode_batch([texts[index] for index in filled]),
            max_length=self.max_length,
            num_beams=num_beams,
            length_penalty=length_penalty,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            device=self.device,
            progress=progress,
            name=lambda index: name(filled[index]),
        )
        results = [[Generation(text="", tokens=[], score=0.0, finished=True)] for _ in texts]
        for index, hypotheses in zip(filled, found, strict=True):
            results[index] = [self._generation(hypothesis) for hypothesis in hypotheses]
        return results

    def read(self, source: str, target: str | None = None, **settings: Any) -> Reading:
        """What the translation of `source` looked at: its own, or `target`, given as text. Settings as in `translate`.

        Raises RegardError for a model without attention and for texts that are empty or too long.
        """
        if not source.strip():
            raise RegardError("the source is empty; there is nothing to read")
        ids = self.translate(source, **settings).tokens if target is None else self.tokenizer.encode(target)
        if not ids:
            whose = "the model's translation" if target is None else "the target"
            raise RegardError(f"{whose} is empty; there is nothing to read")
        reading = replay(
            self.module,
            self.tokenizer,
            source,
            ids,
            model=self.name,
            max_length=self.max_length,
            device=self.device,
        )
        told = {name: value for name, value in settings.items() if isinstance(value, int | float)}
        return replace(reading, settings={"target": "own", **told} if target is None else {"target": "given"})

    def check_cross_attention(self, *, layer: int = -1, head: int | None = None) -> None:
        """Raises RegardError if the model has no such cross layer and head."""
        token = [len(self.tokenizer) - 1]
        sample = Generation(text="", tokens=token, score=0.0, finished=True)
        list(self.alignments([self.tokenizer.decode(token)], [sample], layer=layer, head=head))

    def alignments(
        self, sources: Sequence[str], translations: Sequence[Generation], *, layer: int = -1, head: int | None = None
    ) -> Iterator[Float[np.ndarray, "target source"]]:
        """The word alignment of each translation with its source, read from one cross layer."""
        pairs = [(source, written.tokens) for source, written in zip(sources, translations, strict=True)]
        filled = [pair for pair in pairs if all(pair)]
        found = alignments(
            self.module,
            self.tokenizer,
            [source for source, _ in filled],
            [target for _, target in filled],
            layer=layer,
            head=head,
            device=self.device,
        )
        return (next(found) if all(pair) else np.zeros((0, 0)) for pair in pairs)

    def evaluate(
        self,
        split: str = "test",
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        batch_size: int = 64,
        progress: Callable[[int], None] = lambda sentences: None,
    ) -> Quality:
        """Quality on a split of the corpus that the run was trained on, overall and by source length.

        Pairs longer than the model's limit are left out, and told in the log.
        """
        tokenized = self.run.tokenized(split)
        pairs = self.pairs(split)
        sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
        hypotheses = self.translate(
            sources, num_beams=num_beams, length_penalty=length_penalty, batch_size=batch_size, progress=progress
        )
        likely = likelihood(self.module, tokenized, device=self.device)
        return evaluate_translations(
            sources,
            [hypothesis.text for hypothesis in hypotheses],
            references,
            log_probs=likely.log_probs.tolist(),
            token_counts=likely.token_counts.tolist(),
        )

    def pairs(self, split: str) -> list[Pair]:
        """The sentence pairs of a split that are short enough for the model."""
        return [
            pair
            for pair in self.run.corpus().pairs(split)
            if len(self.tokenizer.encode(pair.source)) + 1 <= self.max_length
            and len(self.tokenizer.encode(pair.target)) + 2 <= self.max_length
        ]

    def _generation(self, hypothesis: Hypothesis) -> Generation:
        return Generation(
            text=self.tokenizer.decode(hypothesis.tokens),
            tokens=hypothesis.tokens,
            score=hypothesis.score,
            finished=hypothesis.finished,
        )


def train(
    recipe: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Translator:
    """Train a model by a recipe, a file or the name of a shipped one, into the folder `out`.

    `changes` are settings such as {"train.minutes": 1, "data.train": "my.tsv"}; `report` hears of every step.
    Raises RegardError for what cannot be used: recipe, data, folder.
    """
    run = train_run(load_recipe(recipe, changes), Path(out), resume=resume, report=report)
    return load(run.path)


def load(model: str | os.PathLike[str], *, device: str = "auto", dtype: str = "float32") -> Translator:
    """The model of a run folder. Raises RegardError if it is none, or its weights do not fit."""
    if dtype not in DTYPES:
        raise RegardError(f"dtype must be {', '.join(DTYPES)}, not {dtype!r}")
    run = Run.open(model)
    return Translator(run.module(), run.tokenizer(), run, device=find_device(device), dtype=DTYPES[dtype])


def read(
    model: str | os.PathLike[str] | Translator, *, source: str, target: str | None = None, **settings: Any
) -> Reading:
    """Which source tokens every written token looked at: `Translator.read` of a run, or of one that is loaded."""
    translator = model if isinstance(model, Translator) else load(model)
    return translator.read(source, target, **settings)


def evaluate(model: str | os.PathLike[str] | Translator, split: str = "test", **settings: Any) -> Quality:
    """Quality overall and by source length: `Translator.evaluate` of a run, or of one that is loaded."""
    translator = model if isinstance(model, Translator) else load(model)
    return translator.evaluate(split, **settings)
