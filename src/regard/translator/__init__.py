"""A translator, a run's or a pretrained one: its module and tokenizer, and what can be done with them."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, final, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from regard.config import shows
from regard.data.batch import UNKNOWN
from regard.data.formats import Pair
from regard.data.pair_tokenizer import PairTokenizer
from regard.errors import RegardError
from regard.evaluation.alignment import AlignmentQuality
from regard.evaluation.pairs import check_pairs, score_pairs
from regard.evaluation.quality import Quality
from regard.evaluation.test_set import Evaluation
from regard.export import Agreement, check_export, export
from regard.export.pretrained import export_pretrained
from regard.generation.decoding import Decoding
from regard.generation.result import Generation, first_of_each_text
from regard.generation.search import Hypothesis
from regard.generation.spelling import Spelling, prefixes_of
from regard.generation.translate import translate_tokens
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer
from regard.models.pretrained.seq2seq import PretrainedTranslator
from regard.models.transformer import TransformerConfig
from regard.reading.language import read_pair
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.replay import alignments, asked_of, check_lengths, replay
from regard.reading.source_record import Sources
from regard.reading.sources import SourceOptions, find_sources
from regard.reading.unknown import replace_unknown
from regard.training.guided import guided_head
from regard.training.run import Run
from regard.translator import measuring

# dev sentences on which an export is checked
EXPORT_SAMPLE = 200


@final
class Translator:
    """A trained translator: the torch module, its tokenizer, and what can be done with them.

    `run` is the run that trained it, None where none did. `origin` says where it is from, as files that record
    work do. `longest_source` is how many tokens the longest source had that it was trained on, where that is known.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: PairTokenizer,
        *,
        name: str,
        max_length: int,
        device: torch.device,
        dtype: torch.dtype,
        run: Run | None = None,
        longest_source: int | None = None,
        origin: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.module = module.to(device=device, dtype=dtype)
        self.tokenizer = tokenizer
        self.name = name
        self.run = run
        self.device = device
        self.max_length = max_length
        self.longest_source = longest_source
        self.origin = origin

    @property
    def is_pretrained(self) -> bool:
        """Whether it is a model of transformers, also where a run trained it further."""
        return isinstance(self.tokenizer, PretrainedTokenizer)

    def source_lengths(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text as the model reads it, special ones counted."""
        return [len(ids) + self.tokenizer.frames.source.size for ids in self.tokenizer.encode_batch(texts)]

    @overload
    def translate(self, texts: str, decoding: Decoding | None = None, **settings: Any) -> Generation: ...
    @overload
    def translate(self, texts: list[str], decoding: Decoding | None = None, **settings: Any) -> list[Generation]: ...
    @shows(Decoding)
    def translate(
        self, texts: str | list[str], decoding: Decoding | None = None, **settings: Any
    ) -> Generation | list[Generation]:
        """The best translation of a text, or of each of several; `translate_n_best` takes further options."""
        if isinstance(texts, str):
            return self.translate_n_best([texts], decoding, **settings)[0][0]
        return [best[0] for best in self.translate_n_best(texts, decoding, **settings)]

    @shows(Decoding)
    def translate_n_best(
        self,
        texts: Sequence[str],
        decoding: Decoding | None = None,
        *,
        prefixes: Sequence[str] | None = None,
        replace_unknown: bool = False,
        batch_size: int = 64,
        first: int = 0,
        numbers: Sequence[int] | None = None,
        progress: Callable[[int], None] = lambda sentences: None,
        name: Callable[[int], str] = lambda index: f"sentence {index + 1}",
        **settings: Any,
    ) -> list[list[Generation]]:
        """`n_best` translations of each text, or as many as there are; an empty text has an empty one.

        Settings given by name override those of `decoding`. The translations of a beam search differ in their texts.
        Each translation begins with its one of `prefixes`, to the letter. The model chooses the tokens that spell it,
        so that a word that it breaks off is completed as the model would have written it.
        With `replace_unknown` a model of words writes, for a word it does not know, the source word it looked at most,
        of those that it does not know either where there are any.
        `first` is the place among all of the first text, `numbers` those of each: samples follow from them.
        Raises RegardError for a text or prefix longer than the model's limit and for settings that make no sense.
        """
        decoding = Decoding.of(decoding, settings)
        if prefixes is not None and len(prefixes) != len(texts):
            raise RegardError(f"{len(prefixes)} prefixes for {len(texts)} texts; give one for each, '' for none")
        if decoding.num_beams > (tokens := len(self.tokenizer.target)):
            raise RegardError(
                f"num_beams {decoding.num_beams} is more than the {tokens} tokens that a translation can begin with; "
                "4 to 10 serve most"
            )
        if replace_unknown:
            self.check_replace_unknown()
        filled = [index for index, text in enumerate(texts) if text.strip()]
        found = translate_tokens(
            self.module,  # pyright: ignore[reportArgumentType]
            self.tokenizer.encode_batch([texts[index] for index in filled]),
            max_length=self.max_length,
            decoding=decoding,
            frames=self.tokenizer.frames,
            spelling=self._spelling,
            prefixes=None
            if prefixes is None
            else prefixes_of(self.tokenizer.target, self._spelling, {i: prefixes[i] for i in filled}, name),
            numbers=[first + index if numbers is None else numbers[index] for index in filled],
            batch_size=batch_size,
            device=self.device,
            progress=progress,
            name=lambda index: name(filled[index]),
        )
        results = [[Generation(text="", tokens=[], score=0.0, finished=True)] for _ in texts]
        for index, hypotheses in zip(filled, found, strict=True):
            results[index] = [self._generation(hypothesis) for hypothesis in hypotheses]
        if replace_unknown:
            results = self._without_unknown(texts, results)
        # samples are as drawn; what differed by an unknown word may now be the same
        return results if decoding.do_sample else [first_of_each_text(found) for found in results]

    @functools.cached_property
    def _spelling(self) -> Spelling:
        return Spelling(self.tokenizer.target.pieces, leading=self.tokenizer.target.leading)

    def check_replace_unknown(self) -> None:
        """Raises RegardError if the model has no unknown words, or no attention that says what to write for them."""
        if self.tokenizer.kind != "word":
            raise RegardError(
                f"{self.name} has no unknown words: its {self.tokenizer.kind} tokenizer spells any text; leave out "
                "replace_unknown"
            )
        self.check_cross_attention()

    def _without_unknown(self, texts: Sequence[str], results: list[list[Generation]]) -> list[list[Generation]]:
        unknown = [
            (row, rank)
            for row, generations in enumerate(results)
            for rank, generation in enumerate(generations)
            if UNKNOWN in generation.tokens
        ]
        sources, targets = [texts[row] for row, _ in unknown], [results[row][rank].tokens for row, rank in unknown]
        guided = self.guided_head
        replaced = replace_unknown(self.module, self.tokenizer, sources, targets, guided=guided, device=self.device)
        for (row, rank), text in zip(unknown, replaced, strict=True):
            results[row][rank] = replace(results[row][rank], text=text)
        return results

    def read(self, source: str, target: str | None = None, **settings: Any) -> Reading:
        """What the translation of `source` looked at: its own, or `target`, given as text. Settings as in `translate`.

        A pretrained translator takes the options of `ReadOptions` too; by default all rows of it are read.
        Raises RegardError for a model without attention and for texts that are empty or too long.
        """
        if not source.strip():
            raise RegardError("the source is empty; there is nothing to read")
        known = {field.name for field in fields(ReadOptions)} if self.is_pretrained else set()
        options = {name: value for name, value in settings.items() if name in known}
        settings = {name: value for name, value in settings.items() if name not in known}
        options = ReadOptions.of(options, rows="all")
        ids = self.translate(source, **settings).tokens if target is None else self.tokenizer.target.encode(target)
        if not ids:
            whose = "the model's translation" if target is None else "the target"
            raise RegardError(f"{whose} is empty; there is nothing to read")
        name, most = self.name, self.max_length
        if isinstance(self.tokenizer, PretrainedTokenizer):
            check_lengths(self.tokenizer.encode(source), ids, most, self.tokenizer.frames)
            reading = read_pair(self.module.model, self.tokenizer, source, ids, options, name=name)
        else:
            reading = replay(self.module, self.tokenizer, source, ids, model=name, max_length=most, device=self.device)
        told = {name: value for name, value in settings.items() if isinstance(value, int | float)}
        origin = {"target": "own", **told} if target is None else {"target": "given"}
        return replace(reading, settings={**reading.settings, **origin})

    @shows(SourceOptions)
    def sources(
        self,
        source: str,
        target: str | None = None,
        *,
        contrast: str | None = None,
        progress: Callable[[int], None] = lambda steps: None,
        **options: Any,
    ) -> Sources:
        """Which passages of `source` its translation rests on: its own, or `target`; every passage is removed.

        With a `contrast`, another translation, it is asked why this one and not that. `progress` is called with 1 after
        each removal. Raises RegardError for texts that are empty or too long and for options that make no sense.
        """
        ids = self.translate(source).tokens if target is None else self.tokenizer.target.encode(target)
        other = None if contrast is None else self.tokenizer.target.encode(contrast)
        for each in (ids, other or []):
            check_lengths(self.tokenizer.encode(source), each, self.max_length, self.tokenizer.frames)
        asked = asked_of(self.module, self.tokenizer, source, ids, device=self.device)
        return find_sources(asked, SourceOptions.of_settings(options), contrast=other, progress=progress)

    @property
    def guided_head(self) -> tuple[int, int] | None:
        """Layer and head of cross-attention that training guided to align words; None where none was."""
        if self.run is None or not self.run.recipe.train.guided_alignment:
            return None
        assert isinstance(self.run.recipe.model, TransformerConfig)
        return guided_head(self.run.recipe.model.num_layers)

    def check_cross_attention(self, *, layer: int | None = None, head: int | None = None) -> None:
        """Raises RegardError if the model has no such cross layer and head."""
        list(self.alignments(["a"], ["a"], layer=layer, head=head))

    def alignments(
        self,
        sources: Sequence[str],
        translations: Sequence[Generation] | Sequence[str],
        *,
        layer: int | None = None,
        head: int | None = None,
    ) -> Iterator[Float[np.ndarray, "target source"]]:
        """The word alignment of each translation with its source, read from one cross layer.

        Without layer and head it is the guided head or, where none was guided, the mean of the last layer's heads.

        Translations are the model's own or, as texts, anybody's: the model is made to write them, and `check_pairs`
        says which are too long for that.
        """
        if layer is None:
            layer, head = (-1, head) if head is not None or self.guided_head is None else self.guided_head
        pairs = [
            (source.strip() and source, target.strip() and target if isinstance(target, str) else target.tokens)
            for source, target in zip(sources, translations, strict=True)
        ]
        filled = [pair for pair in pairs if all(pair)]
        found = alignments(
            self.module,
            self.tokenizer,
            [source for source, _ in filled],
            [target for _, target in filled],
            layer=layer,
            head=head,
            guided=self.guided_head,
            device=self.device,
        )
        return (next(found) if all(pair) else np.zeros((0, 0)) for pair in pairs)

    def check_pairs(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        name: Callable[[int], str] = lambda index: f"pair {index + 1}",
    ) -> None:
        """Raises RegardError for lists of unequal length, and for a pair with a side longer than the model's limit."""
        check_pairs(self.tokenizer, sources, targets, max_length=self.max_length, name=name)

    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        name: Callable[[int], str] = lambda index: f"pair {index + 1}",
    ) -> list[Generation]:
        """Each target as if the model had written it: its natural log-probability, EOS counted, and that per token.

        `name` says in errors which pair it is. Raises RegardError as `check_pairs` does.
        """
        self.check_pairs(sources, targets, name=name)
        return score_pairs(
            self.module, self.tokenizer, sources, targets, max_length=self.max_length, device=self.device
        )

    def evaluate(self, split: str = "test", decoding: Decoding | None = None, **settings: Any) -> Quality:
        """Quality on a test set, overall and by source length: that of `evaluation`, which takes the same."""
        return self.evaluation(split, decoding, **settings).quality

    def evaluation(
        self,
        split: str = "test",
        decoding: Decoding | None = None,
        *,
        files: Sequence[str | Path] | None = None,
        links: str | Path | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] = lambda sentences: None,
        **settings: Any,
    ) -> Evaluation:
        """The translations of a test set beside their references, and their quality.

        It is a split of the corpus that the run was trained on or, by `files`, any other pairs: one file with both
        sides or two aligned ones, and with `links` a file of gold links. Where there are gold links the quality has the
        alignment error rate, as `evaluate_alignment` measures it; for `files` of the mean of the last layer's heads.
        Pairs longer than the model's limit are left out, and told in the log; a pair that occurs again counts once.
        Settings as in `translate`.
        """
        return measuring.evaluation(
            self, split, decoding, files=files, links=links, batch_size=batch_size, progress=progress, **settings
        )

    def evaluate_alignment(self, split: str = "test") -> AlignmentQuality | None:
        """How well attention links words, by the corpus's gold links; None where it has none or the model no attention.

        Of several heads it is that which aligns dev best. Pairs that are too long are left out, and told in the log.
        """
        corpus = self.own_run().pair_corpus()
        return measuring.alignment_quality(self, corpus, split, measuring.short_enough(self, corpus, split))

    def pairs(self, split: str) -> list[Pair]:
        """The sentence pairs of a split that are short enough for the model, each once."""
        return [pair for pair, _ in measuring.short_enough(self, self.own_run().pair_corpus(), split)]

    def own_run(self) -> Run:
        """The run that trained it. Raises RegardError for a pretrained one."""
        if self.run is None:
            raise RegardError(f"{self.name} is no run of Regard, so it has no splits; name files of your own (--file)")
        return self.run

    def export(self, target: str, folder: str | os.PathLike[str], *, sample: Sequence[str] | None = None) -> Agreement:
        """Write the model into a new folder for another tool, `target`, which must then translate as Regard does.

        Both translate the sample greedily, by default the first sentences of the run's dev split.
        Raises RegardError if there is no such target or it cannot hold this model, if the folder is not empty, and,
        leaving nothing, if fewer than 99 % of the translations are the same.
        """
        given = None if sample is None else list(sample)
        if isinstance(self.module, PretrainedTranslator) and isinstance(self.tokenizer, PretrainedTokenizer):
            if given is None and self.run is None:
                raise RegardError(f"{self.name} has no dev split to check its export on; give a sample (--sample FILE)")
            given = self._export_sample() if given is None else given
            module, tokenizer, most = self.module, self.tokenizer, self.max_length
            return export_pretrained(target, Path(folder), self.name, module, tokenizer, max_length=most, sample=given)
        run = self.own_run()
        check_export(target, Path(folder), run)
        given = self._export_sample() if given is None else given
        return export(target, Path(folder), module=self.module, tokenizer=self.tokenizer, run=run, sample=given)

    def _export_sample(self) -> list[str]:
        try:
            return [pair.source for pair in self.pairs("dev")[:EXPORT_SAMPLE]]
        except RegardError as error:
            raise RegardError(f"{error}; or check the export on a sample of your own (--sample FILE)") from None

    def _generation(self, hypothesis: Hypothesis) -> Generation:
        return Generation(
            text=self.tokenizer.target.decode(hypothesis.tokens),
            tokens=hypothesis.tokens,
            score=hypothesis.score,
            finished=hypothesis.finished,
            log_probability=hypothesis.log_probability,
        )
