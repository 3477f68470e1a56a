"""How good a translator is: its translations of a test set, and the links that its attention draws."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.data.corpus import Corpus
from regard.data.parts import data_name
from regard.data.prepare import tokenize
from regard.errors import RegardError
from regard.evaluation.alignment import AlignmentQuality, Gold, evaluate_alignment
from regard.evaluation.likelihood import likelihood
from regard.evaluation.quality import evaluate_translations
from regard.evaluation.test_set import Evaluation, Marked, marked_pairs
from regard.generation.decoding import Decoding

if TYPE_CHECKING:
    from regard.translator import Translator


def evaluation(
    translator: "Translator",
    split: str,
    decoding: Decoding | None,
    *,
    files: Sequence[str | Path] | None,
    links: str | Path | None,
    batch_size: int,
    progress: Callable[[int], None],
    **settings: Any,
) -> Evaluation:
    """What `Translator.evaluation` gives."""
    if files is None:
        corpus = translator.own_run().pair_corpus()
    else:
        gold = {} if links is None else {split: Path(links)}
        form = None if translator.run is None else translator.run.recipe.data.form
        corpus = Corpus(name=data_name(files), splits={split: files}, links=gold, form=form)
    marked = marked_pairs(corpus, split)
    if not marked:
        raise RegardError(f"{corpus.name}: no pair has text on both sides; there is nothing to evaluate")
    tokenizer, max_length = translator.tokenizer, translator.max_length
    tokenized, kept = tokenize([pair for pair, _ in marked], tokenizer, max_length=max_length)
    sources, references = (list(side) for side in zip(*(marked[index][0] for index in kept), strict=True))
    found = translator.translate(sources, decoding=decoding, batch_size=batch_size, progress=progress, **settings)
    outputs = [each.text for each in found]
    likely = likelihood(translator.module, tokenized, device=translator.device)
    quality = evaluate_translations(
        sources,
        outputs,
        references,
        log_probs=likely.log_probs.tolist(),
        token_counts=likely.token_counts.tolist(),
    )
    alignment = alignment_quality(translator, corpus, split, [marked[index] for index in kept])
    if alignment is not None:
        quality = replace(quality, **vars(alignment))
    return Evaluation(sources=sources, outputs=outputs, references=references, quality=quality)


def short_enough(translator: "Translator", corpus: Corpus, split: str) -> list[Marked]:
    """The pairs of a split that the model can read."""
    marked = marked_pairs(corpus, split)
    _, kept = tokenize([pair for pair, _ in marked], translator.tokenizer, max_length=translator.max_length)
    return [marked[index] for index in kept]


def alignment_quality(
    translator: "Translator", corpus: Corpus, split: str, marked: list[Marked]
) -> AlignmentQuality | None:
    """How well attention links the words of these pairs of a split; None where the corpus has no gold links of it."""
    if split not in corpus.links:
        return None
    splits = {split: marked}
    if split != "dev" and "dev" in corpus.links:
        splits["dev"] = short_enough(translator, corpus, "dev")
    tokenizer = translator.tokenizer
    golds = {name: [Gold.of(tokenizer, *pair, links) for pair, links in rows] for name, rows in splits.items()}
    return evaluate_alignment(
        translator.module,
        golds,
        split,
        guided=translator.guided_head,
        frames=tokenizer.frames,
        device=translator.device,
    )
